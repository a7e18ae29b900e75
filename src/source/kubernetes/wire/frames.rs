//! The frames of a watch in protobuf: four bytes of length, big-endian, and so many bytes.

use bytes::{Buf, Bytes, BytesMut};

use super::Unreadable;

/// The longest frame that is taken. No object comes near it: etcd takes 1.5 MiB. It is also the limit of Go's client.
pub(super) const LONGEST: usize = 16 << 20;

/// Frames from chunks that are torn anywhere.
#[derive(Debug, Default)]
pub(super) struct Frames {
    rest: BytesMut,
}

impl Frames {
    /// Takes in a chunk.
    pub(super) fn push(&mut self, chunk: Bytes) {
        // What a long list took is not held for as long as the watch goes on.
        if self.rest.is_empty() {
            self.rest = BytesMut::from(chunk);
        } else {
            self.rest.extend_from_slice(&chunk);
        }
    }

    /// The next frame that is whole.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Unreadable> {
        let Some((length, frame)) = self.rest.split_first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > LONGEST {
            return Err(Unreadable::TooLong(length));
        }
        if frame.len() < length {
            return Ok(None);
        }
        self.rest.advance(size_of::<u32>());
        Ok(Some(self.rest.split_to(length).freeze()))
    }

    /// Whether a frame has begun.
    pub(super) fn is_torn(&self) -> bool {
        !self.rest.is_empty()
    }
}
