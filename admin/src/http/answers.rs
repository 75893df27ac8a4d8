//! What waits in the connections: large answers have a bounded room together until they are sent, so that
//! clients which do not read cost a bounded amount of memory.

use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::http::StatusCode;
use axum::response::Response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Failure;
use crate::limits::{LARGE_ANSWER_BYTES, LARGE_ANSWERS_BYTES_MAX};

/// Room for large answers, in bytes.
pub(super) fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(LARGE_ANSWERS_BYTES_MAX))
}

/// An answer with its room, or the answer that there is none.
pub(super) async fn held(answer: Response, room: Arc<Semaphore>) -> Response {
    // All answers are made whole, so their length is known, and there is nothing to wait for.
    let bytes = answer.body().size_hint().lower();
    if bytes < LARGE_ANSWER_BYTES {
        return answer;
    }
    let no_room = || {
        Failure::of(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many large answers wait for clients that do not read them; ask again, or for less",
        )
    };
    let wanted = u32::try_from(bytes).unwrap_or(u32::MAX);
    let Ok(permit) = room.try_acquire_many_owned(wanted) else { return no_room() };
    let (head, body) = answer.into_parts();
    match to_bytes(body, LARGE_ANSWERS_BYTES_MAX).await {
        Ok(bytes) => {
            let held = Bytes::from_owner(Held { bytes, _permit: permit });
            Response::from_parts(head, Body::from(held))
        }
        Err(_) => no_room(),
    }
}

/// The bytes of an answer. They are dropped when the connection has sent them, or has ended.
struct Held {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(bytes: usize) -> Response {
        Response::new(Body::from(vec![b'x'; bytes]))
    }

    #[tokio::test]
    async fn large_answers_take_room_until_they_are_gone_and_short_ones_none() {
        let room = Arc::new(Semaphore::new(1 << 20));
        let short = held(answer(1_000), Arc::clone(&room)).await;
        assert_eq!((short.status(), room.available_permits()), (StatusCode::OK, 1 << 20));
        let large = held(answer(700_000), Arc::clone(&room)).await;
        assert_eq!(
            (large.status(), room.available_permits()),
            (StatusCode::OK, (1 << 20) - 700_000)
        );
        let second = held(answer(700_000), Arc::clone(&room)).await;
        assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
        let bytes = to_bytes(large.into_body(), usize::MAX).await.expect("the answer");
        assert_eq!((bytes.len(), room.available_permits()), (700_000, (1 << 20) - 700_000));
        drop(bytes);
        assert_eq!(room.available_permits(), 1 << 20);
    }
}
