//! The time limits of one HTTP connection, kept by the stream below the HTTP library.
//!
//! The library itself knows one limit for reading a head and none for an idle
//! connection, so the limits are set here, by what the connection is doing.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a whole request may take to arrive, its body included.
pub(super) const WHOLE_REQUEST: Duration = Duration::from_secs(30);

/// How long a connection may wait for its next request.
const IDLE: Duration = Duration::from_secs(120);

/// How long the peer may take to accept an answer. Answers are small enough for a
/// socket's buffer; this is for peers that send requests and never read.
const ANSWER: Duration = Duration::from_secs(30);

/// What goes to a peer that began a request and did not end its head in time.
const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Connection: close\r\n\r\n400 Bad Request";

/// What a connection is doing. Shared by the stream, which sees bytes, and the service,
/// which sees requests.
pub(super) struct Progress {
    stage: Cell<Stage>,
    deadline: Cell<Option<Instant>>,
    request_began: Cell<Instant>,
    head_limit: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing has arrived yet on this connection.
    Fresh,
    /// Between two requests.
    Idle,
    /// In the head of a request.
    Head,
    /// The request is with the service.
    Service,
    /// The answer is on its way.
    Answer,
}

impl Progress {
    /// A connection that was accepted now. `head_limit` is the time for reading a head.
    pub(super) fn new(head_limit: Duration) -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self {
            stage: Cell::new(Stage::Fresh),
            deadline: Cell::new(Some(now + head_limit)),
            request_began: Cell::new(now),
            head_limit,
        })
    }

    /// The head is complete. Gives the moment by which the body must be, too.
    pub(super) fn service_begins(&self) -> Instant {
        if self.stage.get() == Stage::Idle {
            // The request came together with the one before.
            self.request_began.set(Instant::now());
        }
        self.enter(Stage::Service, None);
        self.request_began.get() + WHOLE_REQUEST
    }

    /// The answer is ready to be sent.
    pub(super) fn service_ends(&self) {
        self.enter(Stage::Answer, Some(ANSWER));
    }

    /// Whether there is no request yet, at least no whole one.
    pub(super) fn is_waiting(&self) -> bool {
        match self.stage.get() {
            Stage::Fresh | Stage::Idle | Stage::Head => true,
            Stage::Service | Stage::Answer => false,
        }
    }

    fn bytes_arrived(&self) {
        match self.stage.get() {
            Stage::Fresh => self.stage.set(Stage::Head),
            Stage::Idle => {
                self.request_began.set(Instant::now());
                self.enter(Stage::Head, Some(self.head_limit));
            }
            Stage::Head | Stage::Service | Stage::Answer => {}
        }
    }

    fn bytes_flushed(&self) {
        if self.stage.get() == Stage::Answer {
            self.enter(Stage::Idle, Some(IDLE));
        }
    }

    fn enter(&self, stage: Stage, limit: Option<Duration>) {
        self.stage.set(stage);
        self.deadline.set(limit.map(|limit| Instant::now() + limit));
    }
}

/// A stream that gives up when its [`Progress`] says so.
pub(super) struct DeadlineStream<S> {
    inner: S,
    progress: Rc<Progress>,
    timer: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> DeadlineStream<S> {
    pub(super) fn new(inner: S, progress: Rc<Progress>) -> Self {
        let deadline = progress.deadline.get().unwrap_or_else(Instant::now);
        Self {
            inner,
            progress,
            timer: Box::pin(sleep_until(deadline)),
        }
    }

    /// Ready when the current deadline has passed.
    fn poll_expired(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.progress.deadline.get() else {
            return Poll::Pending;
        };
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        self.timer.as_mut().poll(context)
    }

    /// Turns a wait for the peer that lasts too long into an error.
    fn or_expired<T>(&mut self, context: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_pending() && self.poll_expired(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        poll
    }

    /// Tells the peer why its request goes unanswered, if its socket has room for that.
    fn refuse(&mut self, context: &mut Context<'_>) {
        if self.progress.stage.get() == Stage::Head {
            let _ = Pin::new(&mut self.inner).poll_write(context, BAD_REQUEST);
            let _ = Pin::new(&mut self.inner).poll_shutdown(context);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for DeadlineStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if let Poll::Ready(outcome) = Pin::new(&mut this.inner).poll_read(context, buffer) {
            if buffer.filled().len() > before {
                this.progress.bytes_arrived();
            }
            // A head that arrives byte by byte must not outrun its deadline.
            if this.progress.stage.get() != Stage::Head || this.poll_expired(context).is_pending() {
                return Poll::Ready(outcome);
            }
            buffer.set_filled(before);
        } else {
            ready!(this.poll_expired(context));
        }
        this.refuse(context);
        // The end of the stream: the library then closes what is left in good order.
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for DeadlineStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.inner).poll_write(context, bytes);
        this.or_expired(context, poll)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.inner).poll_flush(context);
        if matches!(poll, Poll::Ready(Ok(()))) {
            this.progress.bytes_flushed();
        }
        this.or_expired(context, poll)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.inner).poll_shutdown(context);
        this.or_expired(context, poll)
    }
}
