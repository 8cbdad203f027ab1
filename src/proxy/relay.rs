//! Bytes both ways between an end that speaks TLS and one that doesn't, until both
//! directions have ended.
//!
//! Two directions run in one task: *opening* (TLS to plain) and *sealing* (plain to TLS).
//! Each reads only when it has nothing left to write, so a side that stops reading stops
//! its peer, and what waits is bounded by one read. How a direction ends:
//!
//! * its source ends (FIN, close_notify, reset): everything that arrived before is delivered,
//!   then its destination is told at once (FIN, close_notify); the other direction goes on;
//! * its destination fails: what the source still sends is read and thrown away, since
//!   unread bytes would make the kernel reset the connection and lose what the other direction
//!   has just delivered to that source;
//! * a deadline strikes: `--close-timeout` after the first direction ended, or the absolute
//!   `--max-conn-lifetime`, whichever comes first.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::scratch::{self, LARGEST_READ, Scratch};
use crate::net::{Operation, Stream};
use crate::tls::{CLOSE_NOTIFY_ROOM, Opened, Session, SessionError};

/// Read sizes: what a direction starts with; what it falls back to when its destination
/// takes less than it is given, so that a slow reader pins little; and the most.
const FIRST_READ: usize = 64 * 1024;
const CAUTIOUS_READ: usize = 32 * 1024;

/// How long the end of a connection waits for a peer whose bytes are being thrown away.
const LINGER: Duration = Duration::from_secs(1);

/// The end that speaks TLS.
pub(super) struct TlsEnd {
    pub(super) stream: Stream,
    pub(super) session: Session,
}

/// When a relay must end.
pub(super) struct Deadlines {
    /// `--close-timeout`.
    pub(super) close_timeout: Duration,
    /// The moment at which `--max-conn-lifetime` strikes.
    pub(super) end_of_life: Option<Instant>,
}

/// Told about what happens, as it happens.
pub(super) trait Observer {
    /// So much more was delivered.
    fn moved(&self, volume: Volume);
    /// A direction ended by an error.
    fn failed(&self, text: &str);
    /// A direction was cut by a deadline.
    fn timed_out(&self, text: &str);
}

/// Payload bytes delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Volume {
    /// From the TLS end to the plain end.
    pub(super) opened: u64,
    /// From the plain end to the TLS end.
    pub(super) sealed: u64,
}

/// Relays until both directions have ended; dropping the future closes both ends.
pub(super) async fn relay(
    tls: TlsEnd,
    plain: Stream,
    deadlines: Deadlines,
    observer: &dyn Observer,
) -> Volume {
    Relay {
        tls,
        plain,
        opening: Direction::default(),
        sealing: Direction::default(),
        sealed: 0,
        sealed_waiting: 0,
        told: Volume::default(),
        untouched: true,
        session_is_dead: false,
        close_notify_sent: false,
        timer: deadlines
            .end_of_life
            .map(|at| Box::pin(tokio::time::sleep_until(at))),
        deadlines,
        closing: Closing::NotYet,
        observer,
    }
    .await
}

struct Relay<'a> {
    tls: TlsEnd,
    plain: Stream,
    opening: Direction,
    sealing: Direction,
    /// Payload bytes of the records that the TLS end has taken.
    sealed: u64,
    /// Payload bytes of the records that wait for it, in part or whole.
    sealed_waiting: u64,
    /// What the observer was told of already.
    told: Volume,
    /// Nothing has been opened yet: what came behind the handshake may be whole records.
    untouched: bool,
    /// A fatal alert was sent or received: nothing can be sealed any more.
    session_is_dead: bool,
    close_notify_sent: bool,
    deadlines: Deadlines,
    timer: Option<Pin<Box<Sleep>>>,
    closing: Closing,
    observer: &'a dyn Observer,
}

struct Direction {
    phase: Phase,
    /// Bytes that the destination has not taken yet.
    rest: Rest,
    /// How much to read next time.
    appetite: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// The source has ended; deliver the rest, then tell the destination.
    Delivering,
    /// The destination failed; throw away what the source still sends.
    Discarding,
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    NotYet,
    /// One direction is over; the other may go on until the close timeout.
    Half,
    /// Both are over; only bytes to throw away are waited for.
    Lingering,
}

impl Default for Direction {
    fn default() -> Self {
        Self {
            phase: Phase::Running,
            rest: Rest::default(),
            appetite: FIRST_READ,
        }
    }
}

impl Direction {
    /// Whether nothing will be delivered any more.
    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Discarding | Phase::Ended)
    }

    fn adapt(&mut self, read: usize) {
        if !self.rest.is_empty() {
            self.appetite = CAUTIOUS_READ;
        } else if read >= self.appetite {
            self.appetite = LARGEST_READ;
        }
    }
}

/// Reads that one direction has made without giving others a chance.
#[derive(Default)]
struct Turns(u32);

impl Turns {
    /// Eight full reads are 2 MiB: a millisecond or so, after which the other direction and
    /// the worker's other connections get their turn.
    const MOST: u32 = 8;

    /// True when it is time to yield; the task is then already set to be polled again.
    fn is_over(&mut self, context: &Context<'_>) -> bool {
        self.0 = self.0.saturating_add(1);
        let over = self.0 > Self::MOST;
        if over {
            context.waker().wake_by_ref();
        }
        over
    }
}

impl Future for Relay<'_> {
    type Output = Volume;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Volume> {
        let relay = self.get_mut();
        let outcome = relay.poll_both(context);
        relay.tell_volume();
        outcome
    }
}

impl Relay<'_> {
    fn poll_both(&mut self, context: &mut Context<'_>) -> Poll<Volume> {
        loop {
            let opening = self.poll_opening(context);
            let sealing = self.poll_sealing(context);
            // Opening may have left an alert for the TLS end, which sealing has now sent; and
            // when sealing has ended a dead session, there is nothing left to wait for.
            if opening.is_ready() && sealing.is_ready() {
                return Poll::Ready(self.finish());
            }
            if !self.advance_closing() && ready!(self.poll_timer(context)) {
                return Poll::Ready(self.finish());
            }
        }
    }

    fn volume(&self) -> Volume {
        Volume {
            opened: self.opening.rest.taken,
            sealed: self.sealed,
        }
    }

    fn tell_volume(&mut self) {
        let volume = self.volume();
        let told = std::mem::replace(&mut self.told, volume);
        let news = Volume {
            opened: volume.opened.saturating_sub(told.opened),
            sealed: volume.sealed.saturating_sub(told.sealed),
        };
        if news != Volume::default() {
            self.observer.moved(news);
        }
    }

    fn poll_opening(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut turns = Turns::default();
        loop {
            match self.opening.phase {
                Phase::Ended => return Poll::Ready(()),
                Phase::Discarding => {
                    ready!(poll_discard(context, &mut self.tls.stream));
                    self.opening.phase = Phase::Ended;
                }
                Phase::Running | Phase::Delivering => {
                    let flushed = ready!(self.opening.rest.poll_flush(context, &mut self.plain));
                    match flushed {
                        Err(error) => self.opening_cannot_deliver(&error),
                        Ok(()) if self.opening.phase == Phase::Delivering => {
                            let _peer_may_be_gone = self.plain.shutdown_write();
                            // What follows a bad record is thrown away: unread, it would make the
                            // kernel reset the connection, and a reset can overtake the alert.
                            self.opening.phase = if self.session_is_dead {
                                Phase::Discarding
                            } else {
                                Phase::Ended
                            };
                        }
                        Ok(()) if turns.is_over(context) => return Poll::Pending,
                        Ok(()) => ready!(scratch::with(|scratch| self.poll_open(context, scratch))),
                    }
                }
            }
        }
    }

    /// Reads once, opens what is complete, writes it in one go.
    fn poll_open(&mut self, context: &mut Context<'_>, scratch: &mut Scratch) -> Poll<()> {
        let kept = self.tls.session.unopened().len();
        let read = if std::mem::take(&mut self.untouched) {
            0
        } else {
            let room = scratch.input.get_mut(kept..).unwrap_or_default();
            match ready!(poll_read(
                context,
                &mut self.tls.stream,
                room,
                self.opening.appetite
            )) {
                Ok(0) => {
                    if kept > 0 {
                        self.observer.failed("unexpected EOF");
                    }
                    self.opening.phase = Phase::Delivering;
                    return Poll::Ready(());
                }
                Ok(read) => read,
                Err(error) => {
                    self.report_read(&error, End::Tls);
                    self.opening.phase = Phase::Delivering;
                    return Poll::Ready(());
                }
            }
        };
        let Some(input) = scratch.input.get_mut(..kept.saturating_add(read)) else {
            return Poll::Ready(());
        };
        if let Some(front) = input.get_mut(..kept) {
            front.copy_from_slice(self.tls.session.unopened());
        }
        scratch.plain.clear();
        let mut reply = Vec::new();
        match self.tls.session.open(input, &mut scratch.plain, &mut reply) {
            Ok(Opened::Open) => {}
            Ok(Opened::Closed) => self.opening.phase = Phase::Delivering,
            Err(error) => {
                self.observer.failed(&error.to_string());
                self.opening.phase = Phase::Delivering;
                self.session_is_dead = true;
            }
        }
        // Whoever has been told the end is told nothing more.
        if !self.sealing.is_over() {
            self.sealing.rest.push(&reply);
        }
        if let Err(error) = self.opening.rest.write(context, &mut self.plain, &scratch.plain) {
            self.opening_cannot_deliver(&error);
        }
        self.opening.adapt(read);
        Poll::Ready(())
    }

    fn opening_cannot_deliver(&mut self, error: &io::Error) {
        self.report_write(error, End::Plain);
        self.opening.rest.clear();
        self.opening.phase = if self.opening.phase == Phase::Delivering {
            Phase::Ended
        } else {
            Phase::Discarding
        };
    }

    fn poll_sealing(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut turns = Turns::default();
        loop {
            match self.sealing.phase {
                Phase::Ended => return Poll::Ready(()),
                Phase::Discarding => {
                    ready!(poll_discard(context, &mut self.plain));
                    self.sealing.phase = Phase::Ended;
                }
                Phase::Running | Phase::Delivering => {
                    let flushed = ready!(self.sealing.rest.poll_flush(context, &mut self.tls.stream));
                    match flushed {
                        Err(error) => self.sealing_cannot_deliver(&error),
                        Ok(()) if self.session_is_dead => self.end_of_session(),
                        Ok(()) if self.sealing.phase == Phase::Delivering => {
                            self.sealed_was_taken();
                            if self.close_notify_sent {
                                self.sealing.phase = Phase::Ended;
                            } else {
                                self.queue_close_notify();
                            }
                        }
                        Ok(()) => {
                            self.sealed_was_taken();
                            if turns.is_over(context) {
                                return Poll::Pending;
                            }
                            ready!(scratch::with(|scratch| self.poll_seal(context, scratch)));
                        }
                    }
                }
            }
        }
    }

    /// Reads once, seals it all, writes the records in one go.
    fn poll_seal(&mut self, context: &mut Context<'_>, scratch: &mut Scratch) -> Poll<()> {
        let read = match ready!(poll_read(
            context,
            &mut self.plain,
            &mut scratch.input,
            self.sealing.appetite
        )) {
            Ok(0) => {
                self.sealing.phase = Phase::Delivering;
                return Poll::Ready(());
            }
            Ok(read) => read,
            Err(error) => {
                self.report_read(&error, End::Plain);
                self.sealing.phase = Phase::Delivering;
                return Poll::Ready(());
            }
        };
        let plain = scratch.input.get(..read).unwrap_or_default();
        match self.tls.session.seal(plain, &mut scratch.sealed) {
            Ok(length) => {
                let records = scratch.sealed.get(..length).unwrap_or_default();
                match self.sealing.rest.write(context, &mut self.tls.stream, records) {
                    Ok(()) => self.sealed_waiting = as_u64(read),
                    Err(error) => self.sealing_cannot_deliver(&error),
                }
                self.sealing.adapt(read);
            }
            Err(error) => self.session_failed(&error),
        }
        Poll::Ready(())
    }

    fn sealing_cannot_deliver(&mut self, error: &io::Error) {
        self.report_write(error, End::Tls);
        self.sealing.rest.clear();
        self.close_notify_sent = true;
        self.nothing_can_be_sealed();
    }

    /// The alert that told of the session's end is out.
    fn end_of_session(&mut self) {
        self.sealed_was_taken();
        let _peer_may_be_gone = self.tls.stream.shutdown_write();
        self.nothing_can_be_sealed();
    }

    fn nothing_can_be_sealed(&mut self) {
        self.sealing.phase = if self.sealing.phase == Phase::Delivering {
            Phase::Ended
        } else {
            Phase::Discarding
        };
    }

    fn sealed_was_taken(&mut self) {
        self.sealed = self
            .sealed
            .saturating_add(std::mem::take(&mut self.sealed_waiting));
    }

    fn session_failed(&mut self, error: &SessionError) {
        self.observer.failed(&error.to_string());
        self.session_is_dead = true;
    }

    fn queue_close_notify(&mut self) {
        self.close_notify_sent = true;
        let mut alert = [0; CLOSE_NOTIFY_ROOM];
        match self.tls.session.close(&mut alert) {
            Ok(length) => self.sealing.rest.push(alert.get(..length).unwrap_or_default()),
            Err(_) => self.session_is_dead = true,
        }
    }

    /// Notices that one direction, or both, are over, and sets the deadline for the rest.
    /// True when something has changed, so that the timer has to be looked at afresh.
    fn advance_closing(&mut self) -> bool {
        let over = (self.opening.is_over(), self.sealing.is_over());
        let (next, wait) = match (self.closing, over) {
            (Closing::NotYet | Closing::Half, (true, true)) => (Closing::Lingering, LINGER),
            (Closing::NotYet, (true, false) | (false, true)) => (Closing::Half, self.deadlines.close_timeout),
            _ => return false,
        };
        if next == Closing::Lingering {
            // Whoever is still sending learns that nobody listens; what it was sent is flushed.
            for (direction, source) in [(&self.opening, &self.tls.stream), (&self.sealing, &self.plain)] {
                if direction.phase == Phase::Discarding {
                    let _peer_may_be_gone = source.shutdown_write();
                }
            }
        }
        self.closing = next;
        self.expire_after(wait);
        true
    }

    /// Moves the deadline closer; it never moves away.
    fn expire_after(&mut self, wait: Duration) {
        let at = super::deadline_after(wait);
        match &mut self.timer {
            Some(timer) if timer.deadline() <= at => {}
            Some(timer) => timer.as_mut().reset(at),
            None => self.timer = Some(Box::pin(tokio::time::sleep_until(at))),
        }
    }

    /// Ready with true when the deadline has struck; pending while it is to come or there is
    /// none.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        let Some(timer) = &mut self.timer else {
            return Poll::Pending;
        };
        ready!(timer.as_mut().poll(context));
        // With a close timeout of zero being cut is the normal way to end, not a fault.
        if self.closing == Closing::Half && self.deadlines.close_timeout.is_zero() {
            return Poll::Ready(true);
        }
        if !self.opening.is_over() {
            self.observer
                .timed_out(&self.timeout_text(&self.opening, End::Tls));
        }
        if !self.sealing.is_over() {
            self.observer
                .timed_out(&self.timeout_text(&self.sealing, End::Plain));
        }
        Poll::Ready(true)
    }

    fn timeout_text(&self, direction: &Direction, source: End) -> String {
        let (stream, operation) = if direction.rest.is_empty() {
            (self.stream(source), Operation::Read)
        } else {
            (self.stream(source.other()), Operation::Write)
        };
        stream.error_text(operation, &io::Error::from(io::ErrorKind::TimedOut))
    }

    /// Says goodbye where it has not been said, if that takes no waiting.
    fn finish(&mut self) -> Volume {
        if !self.close_notify_sent && !self.session_is_dead && self.sealing.rest.is_empty() {
            self.queue_close_notify();
            self.sealing.rest.write_now(&self.tls.stream);
        }
        self.volume()
    }

    fn report_read(&self, error: &io::Error, end: End) {
        if !is_orderly(error) {
            self.observer
                .failed(&self.stream(end).error_text(Operation::Read, error));
        }
    }

    fn report_write(&self, error: &io::Error, end: End) {
        if !is_orderly(error) {
            self.observer
                .failed(&self.stream(end).error_text(Operation::Write, error));
        }
    }

    fn stream(&self, end: End) -> &Stream {
        match end {
            End::Tls => &self.tls.stream,
            End::Plain => &self.plain,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum End {
    Tls,
    Plain,
}

impl End {
    fn other(self) -> Self {
        match self {
            Self::Tls => Self::Plain,
            Self::Plain => Self::Tls,
        }
    }
}

/// Peers that vanish are no fault of anybody here: Ghostunnel 1.11.1 logs nothing either.
fn is_orderly(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected
    )
}

fn poll_read(
    context: &mut Context<'_>,
    stream: &mut Stream,
    room: &mut [u8],
    limit: usize,
) -> Poll<io::Result<usize>> {
    let length = room.len().min(limit);
    let mut buffer = ReadBuf::new(room.get_mut(..length).unwrap_or_default());
    ready!(Pin::new(stream).poll_read(context, &mut buffer))?;
    Poll::Ready(Ok(buffer.filled().len()))
}

/// Reads and throws away; ready when the source has ended.
fn poll_discard(context: &mut Context<'_>, stream: &mut Stream) -> Poll<()> {
    loop {
        let read = scratch::with(|scratch| poll_read(context, stream, &mut scratch.input, CAUTIOUS_READ));
        match ready!(read) {
            Ok(0) | Err(_) => return Poll::Ready(()),
            Ok(_) => {}
        }
    }
}

/// Bytes that a destination has not taken yet; holds no memory when empty.
#[derive(Debug, Default)]
struct Rest {
    bytes: Vec<u8>,
    sent: usize,
    /// All bytes that the destination has ever taken.
    taken: u64,
}

impl Rest {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn clear(&mut self) {
        self.bytes = Vec::new();
        self.sent = 0;
    }

    fn unsent(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    /// Writes `bytes` behind the rest and keeps what the destination does not take now.
    fn write(&mut self, context: &mut Context<'_>, stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
        let mut left = bytes;
        while self.is_empty() && !left.is_empty() {
            let Poll::Ready(length) = poll_write(context, stream, left)? else {
                break;
            };
            left = left.get(length..).unwrap_or_default();
            self.taken = self.taken.saturating_add(as_u64(length));
        }
        self.push(left);
        Ok(())
    }

    /// Ready when nothing is left.
    fn poll_flush(&mut self, context: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<()>> {
        while !self.unsent().is_empty() {
            let length = ready!(poll_write(context, stream, self.unsent()))?;
            self.sent = self.sent.saturating_add(length);
            self.taken = self.taken.saturating_add(as_u64(length));
        }
        self.clear();
        Poll::Ready(Ok(()))
    }

    /// Writes what the destination takes without waiting; for a last word that may be lost.
    fn write_now(&self, stream: &Stream) {
        let _may_be_lost = stream.try_write(self.unsent());
    }
}

fn poll_write(context: &mut Context<'_>, stream: &mut Stream, bytes: &[u8]) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(stream).poll_write(context, bytes)) {
        Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        written => Poll::Ready(written),
    }
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
