//! The tasks of calls: each runs until its answer has left, or its client takes nothing of it.

use std::sync::Arc;

use hyper::rt::Executor;
use tokio::sync::Notify;
use tokio::task_local;

use crate::answers::Delivery;

task_local! {
    /// What of the answer of the call whose task this is has not left.
    static DELIVERY: Arc<Delivery>;
}

/// That of the call whose task this is.
pub(crate) fn delivery() -> Arc<Delivery> {
    DELIVERY.try_with(Arc::clone).unwrap_or_default()
}

/// Starts the calls of one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls {
    /// Told when the connection has to be closed.
    pub(crate) cut: Arc<Notify>,
}

impl<F> Executor<F> for Calls
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        let delivery = Arc::<Delivery>::default();
        let call = DELIVERY.scope(Arc::clone(&delivery), call);
        let cut = Arc::clone(&self.cut);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = call => {}
                // Without its task the call is reset, and what waits for it is thrown away.
                () = delivery.stalled() => return,
            }
            // All that is left of it waits in the connection's queues, where nobody can reach it any more. Only
            // short answers do: the end of a long one is not made before the rest has left.
            tokio::select! {
                () = delivery.emptied() => {}
                () = delivery.stalled() => cut.notify_one(),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;
    use crate::answers::Portion;
    use crate::limits::STALLED_TIMEOUT;

    #[tokio::test(start_paused = true)]
    async fn a_call_of_which_nothing_leaves_ends_and_one_that_is_out_of_reach_takes_its_connection()
    {
        let calls = Calls::default();
        let (kept, ended) = oneshot::channel::<Portion>();
        calls.execute(async move {
            let _portion = Portion::of(10, &delivery());
            let _kept = kept;
            std::future::pending::<()>().await;
        });
        let (kept, given) = oneshot::channel();
        let cut = timeout(STALLED_TIMEOUT * 3, calls.cut.notified());
        assert!(cut.await.is_err(), "what can be ended alone is");
        assert!(ended.await.is_err(), "it has ended");
        calls.execute(async move { drop(kept.send(Portion::of(10, &delivery()))) });
        let portion = given.await.expect("a portion in a queue");
        assert!(timeout(STALLED_TIMEOUT * 3, calls.cut.notified()).await.is_ok());
        drop(portion);
    }
}
