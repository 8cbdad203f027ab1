//! Takes the PROXY protocol header off an accepted connection, and not a byte more: what comes
//! behind it, be it in the same segment, is left to the TLS handshake.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::announcement::{Announcement, Progress, read_on};
use super::announcers::Announcers;
use super::handshake::Failure;
use super::scratch;
use crate::metrics::HandshakeFailure;
use crate::net::{Operation, Stream};

/// Reads the header of a peer that may send one, and makes the stream go by the names in it.
pub(super) async fn announcement(announcers: &Announcers, stream: &mut Stream) -> Result<(), Failure> {
    if !announcers.contain(stream.peer()) {
        let text = "this peer may not send a PROXY protocol header, and nobody else may connect (name it with \
                    --proxy-protocol-accept if it may)";
        return Err(Failure::new(HandshakeFailure::ProxyHeader, text));
    }
    if let Announcement::Client { source, destination } = header(stream).await? {
        stream.passes_on(source, destination);
    }
    Ok(())
}

async fn header(stream: &mut Stream) -> Result<Announcement, Failure> {
    let mut header = Vec::new();
    loop {
        let progress = read_on(&header);
        let progress =
            progress.map_err(|error| Failure::new(HandshakeFailure::ProxyHeader, error.to_string()))?;
        let missing = match progress {
            Progress::Done(announcement, _) => return Ok(announcement),
            Progress::Needs(missing) => missing,
        };
        match read_at_most(missing, stream, &mut header).await {
            Ok(0) => return Err(Failure::new(HandshakeFailure::Closed, "EOF")),
            Ok(_) => {}
            Err(error) => {
                let text = stream.error_text(Operation::Read, &error);
                return Err(Failure::new(HandshakeFailure::Closed, text));
            }
        }
    }
}

/// Reads through the worker's buffer, so that a silent peer holds none.
async fn read_at_most(most: usize, stream: &mut Stream, header: &mut Vec<u8>) -> io::Result<usize> {
    poll_fn(|context| {
        scratch::with(|scratch| {
            let mut buffer = ReadBuf::new(scratch.input.get_mut(..most).unwrap_or_default());
            ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
            header.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream as StdUnixStream;

    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;

    use super::*;

    fn pair() -> (StdUnixStream, Stream) {
        let (ours, theirs) = StdUnixStream::pair().expect("a pair");
        theirs.set_nonblocking(true).expect("nonblocking");
        let stream = UnixStream::from_std(theirs).expect("watched");
        (ours, Stream::from_unix(stream).expect("connected"))
    }

    fn announcers(word: &str) -> Announcers {
        Announcers::parse(&[word.to_owned()]).expect("well-formed")
    }

    #[tokio::test]
    async fn bytes_in_the_same_segment_are_left() {
        for header in [
            b"PROXY TCP4 192.0.2.1 10.0.0.1 258 443\r\n".as_slice(),
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\x0a\x00\x00\x01\x01\x02\x01\xbb",
        ] {
            let (mut sender, mut stream) = pair();
            sender.write_all(&[header, b"hello"].concat()).expect("written");
            announcement(&announcers("unix"), &mut stream)
                .await
                .expect("announced");
            assert_eq!(stream.peer().to_string(), "tcp:192.0.2.1:258");
            assert_eq!(stream.local().to_string(), "tcp:10.0.0.1:443");
            assert_eq!(stream.via().map(ToString::to_string).as_deref(), Some("unix:@"));
            let mut rest = [0; 5];
            stream.read_exact(&mut rest).await.expect("left");
            assert_eq!(&rest, b"hello");
        }
    }

    #[tokio::test]
    async fn a_sender_that_speaks_for_itself_keeps_its_name() {
        let (mut sender, mut stream) = pair();
        sender.write_all(b"PROXY UNKNOWN\r\n").expect("written");
        announcement(&announcers("unix"), &mut stream)
            .await
            .expect("announced");
        assert_eq!(
            (stream.peer().to_string().as_str(), stream.via()),
            ("unix:@", None)
        );
    }

    #[tokio::test]
    async fn a_header_of_somebody_else_is_not_read() {
        let (mut sender, mut stream) = pair();
        sender.write_all(b"PROXY UNKNOWN\r\n").expect("written");
        let refused = announcement(&announcers("10.0.0.1"), &mut stream)
            .await
            .expect_err("refused");
        assert_eq!(refused.reason, HandshakeFailure::ProxyHeader);
        let mut rest = [0; 15];
        stream.read_exact(&mut rest).await.expect("untouched");
    }

    #[tokio::test]
    async fn a_header_that_ends_early_is_a_closed_connection() {
        let (mut sender, mut stream) = pair();
        sender.write_all(b"PROXY UNKNOWN").expect("written");
        drop(sender);
        let failure = announcement(&announcers("unix"), &mut stream)
            .await
            .expect_err("incomplete");
        assert_eq!(
            (failure.reason, failure.text.as_str()),
            (HandshakeFailure::Closed, "EOF")
        );
    }
}
