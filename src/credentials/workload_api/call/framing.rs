//! Messages out of pieces: five bytes that tell kind and length, then the message.

use hyper::body::Bytes;
use zeroize::Zeroizing;

use super::super::{Code, Status};

/// A message without anything in it.
pub(super) const EMPTY_MESSAGE: [u8; PREFIX] = [0; PREFIX];

const PREFIX: usize = 5;

/// The largest message that is taken; what gRPC programs allow by default. A bundle of a
/// hundred authorities has some 100 KiB.
const LONGEST: usize = 4 * 1024 * 1024;

/// Puts messages together. Holds one at most.
#[derive(Default)]
pub(super) struct Assembler {
    prefix: Vec<u8>,
    message: Option<Partial>,
}

/// A message of which something is still missing. It may hold a key, so it is given all its
/// room at once: growing would leave copies behind.
struct Partial {
    bytes: Zeroizing<Vec<u8>>,
    missing: usize,
}

impl Assembler {
    /// Takes from `input` up to the end of a message. `None`: all of it has been taken, and
    /// there is more to come.
    pub(super) fn take(&mut self, input: &mut Bytes) -> Result<Option<Zeroizing<Vec<u8>>>, Status> {
        if self.message.is_none() {
            let missing = PREFIX.saturating_sub(self.prefix.len()).min(input.len());
            self.prefix.extend_from_slice(&input.split_to(missing));
            let Ok(prefix) = <[u8; PREFIX]>::try_from(self.prefix.as_slice()) else {
                return Ok(None);
            };
            self.prefix.clear();
            self.message = Some(begin(prefix)?);
        }
        let Some(mut partial) = self.message.take() else {
            return Ok(None);
        };
        let piece = input.split_to(partial.missing.min(input.len()));
        partial.bytes.extend_from_slice(&piece);
        partial.missing = partial.missing.saturating_sub(piece.len());
        if partial.missing == 0 {
            return Ok(Some(partial.bytes));
        }
        self.message = Some(partial);
        Ok(None)
    }
}

fn begin(prefix: [u8; PREFIX]) -> Result<Partial, Status> {
    let [flag, length @ ..] = prefix;
    if flag != 0 {
        return Err(Status::new(
            Code::Internal,
            "the message is compressed, which was not asked for",
        ));
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > LONGEST {
        return Err(Status::new(
            Code::ResourceExhausted,
            format_args!("grpc: received message larger than max ({length} vs. {LONGEST})"),
        ));
    }
    Ok(Partial {
        bytes: Zeroizing::new(Vec::with_capacity(length)),
        missing: length,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).expect("short").to_be_bytes();
        [&[0][..], &length, message].concat()
    }

    fn all(pieces: impl IntoIterator<Item = Vec<u8>>) -> Result<Vec<Vec<u8>>, Status> {
        let (mut assembler, mut found) = (Assembler::default(), Vec::new());
        for piece in pieces {
            let mut input = Bytes::from(piece);
            while let Some(message) = assembler.take(&mut input)? {
                found.push(message.to_vec());
            }
            assert!(input.is_empty(), "everything is taken");
        }
        Ok(found)
    }

    #[test]
    fn what_is_compressed_or_too_large_ends_the_call() {
        let compressed = all([vec![1, 0, 0, 0, 0]]).expect_err("compressed");
        assert_eq!(compressed.code(), Code::Internal);
        let large = all([vec![0, 0, 0x40, 0, 1]]).expect_err("large");
        assert_eq!(
            large.to_string(),
            "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (4194305 vs. 4194304)"
        );
        assert_eq!(all([vec![0, 0, 0x40, 0, 0]]), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_they_are_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..5),
            size in 1usize..12,
        ) {
            let stream: Vec<u8> = messages.iter().flat_map(|message| framed(message)).collect();
            let pieces = stream.chunks(size).map(<[u8]>::to_vec);
            prop_assert_eq!(all(pieces), Ok(messages));
        }

        #[test]
        fn any_bytes_are_taken_without_panic(bytes: Vec<u8>) {
            let _ = all([bytes]);
        }
    }
}
