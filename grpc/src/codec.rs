//! Messages as the services take them: protobuf, of a bounded number of fields.
//!
//! A field of two bytes can become fifty in memory, so a request is looked through before it is decoded.

use std::marker::PhantomData;

use prost::Message;
use prost::encoding::DecodeContext;
use prost::encoding::{WireType, decode_key, skip_field};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

use crate::limits::REQUEST_FIELDS_MAX;

/// The codec of all calls.
#[derive(Debug)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> BoundedDecoder<U> {
        BoundedDecoder(PhantomData)
    }
}

/// Looks through a message, and decodes it.
#[derive(Debug)]
pub struct BoundedDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        use bytes::Buf;
        let whole = buffer.copy_to_bytes(buffer.remaining());
        check_fields(whole.clone())?;
        let message = U::decode(whole);
        message.map(Some).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

fn check_fields(mut message: bytes::Bytes) -> Result<(), Status> {
    let bad = |error: prost::DecodeError| Status::invalid_argument(error.to_string());
    for _ in 0..REQUEST_FIELDS_MAX {
        if message.is_empty() {
            return Ok(());
        }
        let (tag, wire_type): (u32, WireType) = decode_key(&mut message).map_err(bad)?;
        skip_field(wire_type, tag, &mut message, DecodeContext::default()).map_err(bad)?;
    }
    if message.is_empty() {
        return Ok(());
    }
    Err(Status::invalid_argument(format!("a request has at most {REQUEST_FIELDS_MAX} fields")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Header, PublishRequest};

    fn request(headers: usize) -> bytes::Bytes {
        let headers = vec![Header::default(); headers];
        let request =
            PublishRequest { topic: "a".to_owned(), headers, ..PublishRequest::default() };
        request.encode_to_vec().into()
    }

    #[test]
    fn a_request_of_too_many_fields_is_not_decoded() {
        check_fields(request(REQUEST_FIELDS_MAX - 1)).expect("it is within the bound");
        let refused = check_fields(request(REQUEST_FIELDS_MAX)).expect_err("it is not");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        let cut = request(10).slice(..7);
        assert!(check_fields(cut).is_err());
    }
}
