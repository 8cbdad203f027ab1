//! The way of a line to its descriptor: straight while the process is one thread, then
//! through a bounded queue and a writer thread, so that a slow log reader never holds up
//! a connection.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How many bytes of lines may wait for the writer. About five thousand lines: enough for
/// a burst of connections while the reader is busy for a moment, little enough not to
/// matter beside the connections themselves. The batch that the writer holds comes on top.
pub(super) const MAX_QUEUED: usize = 1024 * 1024;

/// How much one write carries at most, unless a single line is longer. Up to this size
/// (PIPE_BUF) the kernel keeps a write to a pipe in one piece, so that two processes that
/// share a pipe do not tear each other's lines.
const MAX_WRITE: usize = 4096;

/// How long the writer pauses when a non-blocking descriptor takes nothing.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Buffers larger than this are given back once they are empty.
const KEPT_CAPACITY: usize = 64 * 1024;

/// A line that stands for others, in the log's own layout: made by the caller because
/// the queue knows nothing of layouts.
pub(super) type Notice = Box<dyn Fn(&Gap) -> String + Send + Sync>;

/// Lines that are missing from the log.
#[derive(Debug, Default)]
pub(super) struct Gap {
    /// How many.
    pub(super) lines: u64,
    /// Why writing failed; `None` when the queue was full.
    pub(super) error: Option<io::Error>,
}

/// The queue. Shared by everybody who logs.
pub(super) struct Queue {
    state: Mutex<State>,
    /// Told that there is something to write.
    filled: Condvar,
    /// Told that everything has been written.
    emptied: Condvar,
    dropped: AtomicU64,
    notice: Notice,
}

struct State {
    pending: Vec<u8>,
    /// The missing lines that no notice has told of yet: those that found the queue full,
    /// and those whose write failed.
    overflow: Gap,
    failure: Gap,
    /// The descriptor, until the writer thread takes it.
    direct: Option<Box<dyn Write + Send>>,
    is_writing: bool,
}

impl Queue {
    pub(super) fn new(descriptor: Box<dyn Write + Send>, notice: Notice) -> Self {
        Self {
            state: Mutex::new(State {
                pending: Vec::new(),
                overflow: Gap::default(),
                failure: Gap::default(),
                direct: Some(descriptor),
                is_writing: false,
            }),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            dropped: AtomicU64::new(0),
            notice,
        }
    }

    /// Appends one line, or drops it when the queue is full. Does not wait for the reader
    /// once the writer thread runs.
    pub(super) fn push(&self, line: &str) {
        let mut state = self.state();
        if state.pending.len().saturating_add(line.len()) > MAX_QUEUED {
            state.overflow.lines += 1;
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.pending.extend_from_slice(line.as_bytes());
        if let Some(mut descriptor) = state.direct.take() {
            self.write_directly(&mut state, &mut descriptor);
            state.direct = Some(descriptor);
        } else if !state.is_writing {
            self.filled.notify_one();
        }
    }

    /// Hands the descriptor to a thread of its own. From here on nobody but that thread
    /// ever waits for the reader.
    pub(super) fn start_writer(self: &Arc<Self>) -> io::Result<()> {
        let queue = Arc::clone(self);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || queue.write_forever())?;
        // Until the thread holds the descriptor, a caller would still write by itself.
        let has_descriptor = |state: &mut State| state.direct.is_some();
        let waited = self.emptied.wait_while(self.state(), has_descriptor);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// Waits until everything has been written, at most for `timeout`. Says whether it has.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let state = self.state();
        if state.direct.is_some() {
            return state.pending.is_empty();
        }
        let busy = |state: &mut State| state.is_writing || state.has_work();
        let waited = self.emptied.wait_timeout_while(state, timeout, busy);
        let (_state, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
        !outcome.timed_out()
    }

    /// How many lines never reached the descriptor so far.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The single-threaded way: what the descriptor does not take now waits for the next line.
    fn write_directly(&self, state: &mut State, descriptor: &mut Box<dyn Write + Send>) {
        let (written, outcome) = write_lines(descriptor, &state.pending);
        state.pending.drain(..written);
        match outcome {
            Ok(()) => self.report_failure(&mut state.failure, descriptor),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                let lost = std::mem::take(&mut state.pending);
                self.note_failure(&mut state.failure, &lost, error);
            }
        }
    }

    fn write_forever(&self) {
        let Some(mut descriptor) = self.state().direct.take() else {
            return;
        };
        self.emptied.notify_all();
        let mut batch = Vec::new();
        loop {
            self.next_batch(&mut batch);
            self.write_batch(&mut descriptor, &mut batch);
        }
    }

    /// Exchanges the emptied `batch` for what has gathered, as soon as something has.
    fn next_batch(&self, batch: &mut Vec<u8>) {
        let mut state = self.state();
        state.is_writing = false;
        if !state.has_work() {
            self.emptied.notify_all();
        }
        state = self
            .filled
            .wait_while(state, |state| !state.has_work())
            .unwrap_or_else(PoisonError::into_inner);
        state.is_writing = true;
        batch.clear();
        batch.shrink_to(KEPT_CAPACITY);
        std::mem::swap(&mut state.pending, batch);
        let overflow = std::mem::take(&mut state.overflow);
        drop(state);
        // Everything in the batch is older than the first line that found no room.
        if overflow.lines > 0 {
            batch.extend_from_slice((self.notice)(&overflow).as_bytes());
        }
    }

    fn write_batch(&self, descriptor: &mut Box<dyn Write + Send>, batch: &mut Vec<u8>) {
        let mut rest = batch.as_slice();
        while !rest.is_empty() {
            let (written, outcome) = write_lines(descriptor, rest);
            rest = rest.get(written..).unwrap_or_default();
            match outcome {
                Ok(()) => {
                    let mut failure = std::mem::take(&mut self.state().failure);
                    self.report_failure(&mut failure, descriptor);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => pause(),
                // A reader that went away may come back (a named pipe), a full disk may
                // be emptied: this line is lost, the next one is tried again.
                Err(error) => {
                    let end = rest.iter().position(|byte| *byte == b'\n');
                    let (lost, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
                    rest = after;
                    self.note_failure(&mut self.state().failure, lost, error);
                }
            }
        }
    }

    /// Tells, once writing works again, what was lost while it failed.
    fn report_failure(&self, failure: &mut Gap, descriptor: &mut Box<dyn Write + Send>) {
        let failure = std::mem::take(failure);
        if failure.lines > 0 {
            let _ = write_lines(descriptor, (self.notice)(&failure).as_bytes());
        }
    }

    fn note_failure(&self, failure: &mut Gap, lost: &[u8], error: io::Error) {
        let lines = lost.iter().filter(|byte| **byte == b'\n').count() as u64;
        failure.lines += lines;
        failure.error = Some(error);
        self.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_work(&self) -> bool {
        !self.pending.is_empty() || self.overflow.lines > 0
    }
}

/// Writes whole lines until all are written or the descriptor refuses. Gives the number
/// of bytes that went out, and the refusal.
fn write_lines(descriptor: &mut Box<dyn Write + Send>, lines: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while let Some(rest) = lines.get(written..).filter(|rest| !rest.is_empty()) {
        match descriptor.write(next_write(rest)) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(length) => written += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the log's own thread, for which nobody waits"
)]
fn pause() {
    thread::sleep(RETRY_PAUSE);
}

/// As many whole lines as fit one write, or the first line alone.
fn next_write(lines: &[u8]) -> &[u8] {
    let is_newline = |byte: &u8| *byte == b'\n';
    let window = lines.get(..MAX_WRITE.min(lines.len())).unwrap_or(lines);
    let end = window
        .iter()
        .rposition(is_newline)
        .or_else(|| lines.iter().position(is_newline));
    end.and_then(|end| lines.get(..=end)).unwrap_or(lines)
}

/// Descriptor 1, without the buffer of `std::io::stdout`.
pub(super) struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(io::stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, PipeReader, Read};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn notice(gap: &Gap) -> String {
        format!(
            "{} missing, {}\n",
            gap.lines,
            if gap.error.is_some() { "failed" } else { "full" }
        )
    }

    fn queue_over_a_pipe() -> (Arc<Queue>, PipeReader) {
        let (reader, writer) = io::pipe().expect("the system makes a pipe");
        (Arc::new(Queue::new(Box::new(writer), Box::new(notice))), reader)
    }

    fn line(number: usize) -> String {
        format!("{number:099}\n")
    }

    /// Fills queue, pipe and the writer's batch until lines are dropped, then stops.
    fn overflow(queue: &Queue) -> usize {
        let mut pushed = 0;
        while queue.dropped() < 5 {
            queue.push(&line(pushed));
            pushed += 1;
        }
        pushed
    }

    #[test]
    fn a_line_reaches_the_pipe_without_a_writer_thread() {
        let (queue, mut reader) = queue_over_a_pipe();
        queue.push("first\n");
        let mut bytes = [0; 6];
        reader.read_exact(&mut bytes).expect("the line is in the pipe");
        assert_eq!(&bytes, b"first\n");
        assert!(queue.flush(Duration::ZERO));
    }

    #[test]
    fn a_line_reaches_the_pipe_through_the_writer_without_a_flush() {
        let (queue, reader) = queue_over_a_pipe();
        queue.start_writer().expect("the writer starts");
        queue.push("one\n");
        let mut lines = BufReader::new(reader).lines();
        assert_eq!(lines.next().expect("a line").expect("readable"), "one");
        assert!(queue.flush(PATIENCE));
    }

    #[test]
    fn a_reader_that_never_reads_stops_neither_callers_nor_the_exit() {
        let (queue, _reader) = queue_over_a_pipe();
        queue.start_writer().expect("the writer starts");
        let pushed = overflow(&queue);
        assert!(
            pushed * 100 <= 3 * MAX_QUEUED,
            "the queue is bounded, {pushed} lines went in"
        );
        assert!(!queue.flush(Duration::from_millis(1)));
    }

    #[test]
    fn dropped_lines_are_reported_once_when_the_reader_reads_again() {
        let (queue, reader) = queue_over_a_pipe();
        queue.start_writer().expect("the writer starts");
        let pushed = overflow(&queue);
        let dropped = queue.dropped();
        let mut lines = BufReader::new(reader).lines().map(|line| line.expect("readable"));
        let mut numbers = 0..;
        let report = loop {
            let text = lines.next().expect("the log goes on");
            if text.ends_with("full") {
                break text;
            }
            assert_eq!(text, line(numbers.next().expect("endless")).trim_end());
        };
        assert_eq!(report, format!("{dropped} missing, full"));
        assert_eq!(numbers.start + usize::try_from(dropped).expect("few"), pushed);
        queue.push("after\n");
        assert_eq!(lines.next().as_deref(), Some("after"));
    }

    #[test]
    fn a_reader_that_went_away_costs_lines_only() {
        let (queue, reader) = queue_over_a_pipe();
        drop(reader);
        queue.push("direct\n");
        assert_eq!(queue.dropped(), 1);
        queue.start_writer().expect("the writer starts");
        queue.push("queued\n");
        assert!(queue.flush(PATIENCE));
        assert_eq!(queue.dropped(), 2);
    }

    #[test]
    fn a_failure_is_told_of_once_writing_works_again() {
        struct FailsOnce(bool, io::PipeWriter);
        impl Write for FailsOnce {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, false) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                self.1.write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (reader, writer) = io::pipe().expect("the system makes a pipe");
        let queue = Arc::new(Queue::new(Box::new(FailsOnce(true, writer)), Box::new(notice)));
        queue.start_writer().expect("the writer starts");
        queue.push("lost\n");
        assert!(queue.flush(PATIENCE));
        queue.push("kept\n");
        let mut lines = BufReader::new(reader).lines().map(|line| line.expect("readable"));
        assert_eq!(lines.next().as_deref(), Some("kept"));
        assert_eq!(lines.next().as_deref(), Some("1 missing, failed"));
    }

    #[test]
    fn writes_end_with_a_line_and_fit_one_piece() {
        let lines = line(1).repeat(100);
        assert_eq!(next_write(lines.as_bytes()).len(), 4000);
        let long = format!("{}\nshort\n", "x".repeat(9000));
        assert_eq!(next_write(long.as_bytes()).len(), 9001);
        assert_eq!(next_write(b"a\nb\n"), b"a\nb\n");
    }
}
