//! How messages become bytes on a gRPC stream.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Sends `Out`, receives `In`.
pub(super) struct Prost<Out, In>(PhantomData<(Out, In)>);

impl<Out, In> Default for Prost<Out, In> {
    fn default() -> Self {
        Prost(PhantomData)
    }
}

impl<Out, In> Codec for Prost<Out, In>
where
    Out: Message + 'static,
    In: Message + Default + 'static,
{
    type Encode = Out;
    type Decode = In;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<Out: Message, In> Encoder for Prost<Out, In> {
    type Item = Out;
    type Error = Status;

    fn encode(&mut self, message: Out, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // Once, to the whole size: a first response can hold a hundred thousand resources.
        buf.reserve(message.encoded_len());
        message.encode(buf).map_err(|error| Status::internal(error.to_string()))
    }
}

impl<Out, In: Message + Default> Decoder for Prost<Out, In> {
    type Item = In;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<In>, Status> {
        In::decode(buf).map(Some).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}
