//! The running binary, and other programs beside it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, PipeWriter, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, ChildStdin, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::eventually::{DEADLINE, eventually_some, within};
use crate::ports::is_listening;

/// A command line for the tested program.
///
/// `built` is what Cargo made (`env!("CARGO_BIN_EXE_ghostunnel")` in tests of the root
/// package); the environment variable `GHOSTUNNEL_BIN` names another binary instead. The
/// program starts with an empty environment, so that the caller's settings decide nothing.
pub fn ghostunnel(built: &str) -> Command {
    let binary = env::var_os("GHOSTUNNEL_BIN").unwrap_or_else(|| built.into());
    let mut command = Command::new(binary);
    command.clear_environment();
    command
}

/// A command line that can be started.
#[derive(Debug)]
pub struct Command {
    program: PathBuf,
    arguments: Vec<OsString>,
    launcher: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    inherits_environment: bool,
    directory: Option<PathBuf>,
    descriptor_limit: Option<(&'static str, u32)>,
    has_input: bool,
    output: Option<PipeWriter>,
}

impl Command {
    /// Any program.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            launcher: Vec::new(),
            environment: Vec::new(),
            inherits_environment: true,
            directory: None,
            descriptor_limit: None,
            has_input: false,
            output: None,
        }
    }

    /// Adds an argument.
    pub fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args(&mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        self.arguments
            .extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Adds `NAME=VALUE` as one argument, for flags whose value is a path or an address.
    pub fn flag(&mut self, name: &str, value: impl AsRef<OsStr>) -> &mut Self {
        let mut argument = OsString::from(name);
        argument.push("=");
        argument.push(value);
        self.arg(argument)
    }

    /// Sets an environment variable.
    pub fn env(&mut self, name: &str, value: impl AsRef<OsStr>) -> &mut Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Starts with no variables but those set by [`Command::env`].
    pub fn clear_environment(&mut self) -> &mut Self {
        self.inherits_environment = false;
        self
    }

    /// Sets the working directory.
    pub fn directory(&mut self, directory: &Path) -> &mut Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Sets soft and hard limit on open descriptors.
    pub fn descriptor_limit(&mut self, limit: u32) -> &mut Self {
        self.descriptor_limit = Some(("-n", limit));
        self
    }

    /// Sets the soft limit on open descriptors, which the program may raise to the hard one.
    pub fn soft_descriptor_limit(&mut self, limit: u32) -> &mut Self {
        self.descriptor_limit = Some(("-Sn", limit));
        self
    }

    /// Starts a copy of the program in this directory, for users who can't reach the original.
    #[track_caller]
    pub fn copied_to(&mut self, directory: &Path) -> &mut Self {
        let copy = directory.join(self.program.file_name().expect("a program has a name"));
        if let Err(error) = std::fs::copy(&self.program, &copy) {
            panic!("cannot copy {}: {error}", self.program.display());
        }
        self.program = copy;
        self
    }

    /// Starts it by way of another program, which is given its command line as last arguments
    /// and becomes it under the same process id: `setpriv --reuid=…`, `strace -D …`.
    pub fn through(
        &mut self,
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> &mut Self {
        self.launcher = vec![program.into()];
        self.launcher
            .extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Opens a pipe to its standard input, for [`Process::write_input`]; otherwise it is empty.
    pub fn with_input(&mut self) -> &mut Self {
        self.has_input = true;
        self
    }

    /// Sends its standard output into a pipe of the test's, for readers that are slow or go
    /// away. The [`Process`] then sees standard error only. The pipe ends when the process
    /// and this command are gone.
    pub fn output_to(&mut self, writer: PipeWriter) -> &mut Self {
        self.output = Some(writer);
        self
    }

    /// Starts it.
    #[track_caller]
    pub fn start(&self) -> Process {
        let mut command = self.launcher();
        if !self.inherits_environment {
            command.env_clear();
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command.stdin(if self.has_input {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        command.stdout(self.output.as_ref().map_or_else(Stdio::piped, |writer| {
            writer.try_clone().expect("a pipe can be handed on").into()
        }));
        command.stderr(Stdio::piped());
        match command.spawn() {
            Ok(child) => Process::new(self.to_string_lossy(), child),
            Err(error) => panic!("cannot start {}: {error}", self.to_string_lossy()),
        }
    }

    /// Starts it and waits for its end.
    #[track_caller]
    pub fn run(&self) -> Output {
        self.start().wait_output()
    }

    fn launcher(&self) -> process::Command {
        let mut words = self.launcher.clone();
        if let Some((option, limit)) = self.descriptor_limit {
            // A shell lowers the limit and becomes the program: same process id.
            let script = format!("ulimit {option} {limit}; exec \"$0\" \"$@\"");
            words.extend(["/bin/sh".into(), "-c".into(), script.into()]);
        }
        words.push(self.program.clone().into());
        words.extend_from_slice(&self.arguments);
        let mut command = process::Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    fn to_string_lossy(&self) -> String {
        let mut text = self.program.display().to_string();
        for argument in &self.arguments {
            write!(text, " {}", argument.to_string_lossy()).expect("a String takes everything");
        }
        text
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.expect("without a code there is a signal")),
        }
    }
}

/// What a process that has ended has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

/// A line of output, without its newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// From standard output.
    Out(String),
    /// From standard error.
    Err(String),
}

impl Line {
    /// The text, whichever stream it came from.
    pub fn text(&self) -> &str {
        match self {
            Self::Out(text) | Self::Err(text) => text,
        }
    }
}

/// A running process. Killed when dropped; then prints all of its output if the test panics.
pub struct Process {
    command: String,
    id: u32,
    child: Mutex<Child>,
    input: Mutex<Option<ChildStdin>>,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Default)]
struct LogState {
    lines: Vec<Line>,
    ended_streams: usize,
}

impl Process {
    fn new(command: String, mut child: Child) -> Self {
        let log = Arc::new(Log::default());
        match child.stdout.take() {
            Some(stdout) => log.follow(stdout, Line::Out),
            None => log.lock().ended_streams += 1,
        }
        log.follow(child.stderr.take().expect("piped"), Line::Err);
        let input = Mutex::new(child.stdin.take());
        Self {
            command,
            id: child.id(),
            child: Mutex::new(child),
            input,
            log,
        }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// All lines so far, in the order they were read (which is exact within one stream).
    pub fn lines(&self) -> Vec<Line> {
        self.log.lock().lines.clone()
    }

    /// The number of lines so far: a mark for [`Process::wait_for_line_after`].
    pub fn mark(&self) -> usize {
        self.log.lock().lines.len()
    }

    /// How many lines so far contain this text.
    pub fn count_lines(&self, text: &str) -> usize {
        self.log
            .lock()
            .lines
            .iter()
            .filter(|line| line.text().contains(text))
            .count()
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        self.text(|line| matches!(line, Line::Out(_)))
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        self.text(|line| matches!(line, Line::Err(_)))
    }

    /// Waits for the first line that contains this text. Panics if the process ends without.
    #[track_caller]
    pub fn wait_for_line(&self, text: &str) -> String {
        self.wait_for_line_after(0, text)
    }

    /// Like [`Process::wait_for_line`], but only looks at lines after a [`Process::mark`].
    #[track_caller]
    pub fn wait_for_line_after(&self, mark: usize, text: &str) -> String {
        match self.log.find(mark, text) {
            Some(line) => line,
            None => panic!("no line {text:?} in the output of {}", self.command),
        }
    }

    /// Waits until somebody listens on a TCP port. Panics if the process ends before.
    #[track_caller]
    pub fn wait_listening(&self, port: u16) {
        eventually_some(&format!("port {port} is listening"), || {
            let is_listening = is_listening(port);
            assert!(
                is_listening || self.try_exit().is_none(),
                "ended before it listened on port {port}"
            );
            is_listening.then_some(())
        });
    }

    /// Sends a signal. A process that has ended does not mind.
    pub fn signal(&self, signal: Signal) {
        let mut child = self.child();
        // While the exit status is not collected the id can't belong to another process.
        if let Ok(None) = child.try_wait() {
            let pid = i32::try_from(self.id)
                .ok()
                .and_then(Pid::from_raw)
                .expect("a valid process id");
            let _ = kill_process(pid, signal);
        }
    }

    /// How it ended, or `None` while it runs.
    pub fn try_exit(&self) -> Option<Exit> {
        self.child()
            .try_wait()
            .expect("a child can be waited for")
            .map(Exit::from)
    }

    /// Waits for its end, at most this long. Once it is given, the output is complete.
    pub fn wait_exit_within(&self, limit: Duration) -> Option<Exit> {
        let exit = within(limit, || self.try_exit())?;
        self.log.wait_complete();
        Some(exit)
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait_exit(&self) -> Exit {
        match self.wait_exit_within(DEADLINE) {
            Some(exit) => exit,
            None => panic!("still running after {DEADLINE:?}: {}", self.command),
        }
    }

    /// Waits for its end and returns all it said.
    #[track_caller]
    pub fn wait_output(&self) -> Output {
        let exit = self.wait_exit();
        Output {
            exit,
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }

    /// Writes to its standard input ([`Command::with_input`]).
    #[track_caller]
    pub fn write_input(&self, bytes: &[u8]) {
        let mut input = self.input.lock().expect("no holder panics");
        let input = input.as_mut().expect("started with input that is not closed yet");
        input.write_all(bytes).expect("it reads its input");
    }

    /// Closes its standard input.
    pub fn close_input(&self) {
        drop(self.input.lock().expect("no holder panics").take());
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().expect("no holder panics")
    }

    fn text(&self, is_wanted: impl Fn(&Line) -> bool) -> String {
        let state = self.log.lock();
        state
            .lines
            .iter()
            .filter(|line| is_wanted(line))
            .flat_map(|line| [line.text(), "\n"])
            .collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        {
            let mut child = self.child();
            // Fails if it has ended, which is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            self.log.wait_complete();
            eprintln!("--- output of {} (process {})", self.command, self.id);
            for line in self.lines() {
                match line {
                    Line::Out(text) => eprintln!("out {text}"),
                    Line::Err(text) => eprintln!("err {text}"),
                }
            }
            eprintln!("---");
        }
    }
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().expect("no holder panics")
    }

    fn follow(self: &Arc<Self>, stream: impl Read + Send + 'static, line: fn(String) -> Line) {
        let log = Arc::clone(self);
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut bytes = Vec::new();
            while let Ok(1..) = stream.read_until(b'\n', &mut bytes) {
                let text = String::from_utf8_lossy(bytes.strip_suffix(b"\n").unwrap_or(&bytes)).into_owned();
                log.lock().lines.push(line(text));
                log.changed.notify_all();
                bytes.clear();
            }
            log.lock().ended_streams += 1;
            log.changed.notify_all();
        });
    }

    fn find(&self, mark: usize, text: &str) -> Option<String> {
        let deadline = Instant::now() + DEADLINE;
        let mut state = self.lock();
        loop {
            let found = state
                .lines
                .iter()
                .skip(mark)
                .find(|line| line.text().contains(text));
            if let Some(line) = found {
                return Some(line.text().to_owned());
            }
            let remaining = deadline.saturating_duration_since(Instant::now());
            if state.is_complete() || remaining.is_zero() {
                return None;
            }
            state = self
                .changed
                .wait_timeout(state, remaining)
                .expect("no holder panics")
                .0;
        }
    }

    /// Bounded, since a child of the process may have inherited its pipes.
    fn wait_complete(&self) {
        drop(
            self.changed
                .wait_timeout_while(self.lock(), DEADLINE, |state| !state.is_complete()),
        );
    }
}

impl LogState {
    fn is_complete(&self) -> bool {
        self.ended_streams == 2
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::descriptors::descriptor_limits;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn streams_exit_code_and_environment_are_seen() {
        let output = shell("echo $A; echo two >&2; exit 3").env("A", "one").run();
        assert_eq!(
            output,
            Output {
                exit: Exit::Code(3),
                stdout: "one\n".into(),
                stderr: "two\n".into()
            }
        );
    }

    #[test]
    fn lines_are_awaited_from_a_mark_on() {
        let process = shell("read a; echo got $a; read b; echo got $b")
            .with_input()
            .start();
        process.write_input(b"1\n");
        assert_eq!(process.wait_for_line("got"), "got 1");
        let mark = process.mark();
        process.write_input(b"2\n");
        assert_eq!(process.wait_for_line_after(mark, "got"), "got 2");
        assert_eq!(process.count_lines("got"), 2);
    }

    #[test]
    fn waiting_for_a_line_fails_as_soon_as_the_process_has_ended() {
        let started = Instant::now();
        let process = shell("echo something else").start();
        assert!(catch_unwind(AssertUnwindSafe(|| process.wait_for_line("never"))).is_err());
        assert!(started.elapsed() < DEADLINE);
    }

    #[test]
    fn signals_arrive_and_are_told_from_exit_codes() {
        let process = shell("trap 'echo caught' HUP; echo ready; while :; do read line; done")
            .with_input()
            .start();
        process.wait_for_line("ready");
        process.signal(Signal::HUP);
        process.write_input(b"\n");
        process.wait_for_line("caught");
        assert_eq!(process.wait_exit_within(Duration::ZERO), None);
        process.signal(Signal::KILL);
        assert_eq!(process.wait_exit(), Exit::Signal(9));
    }

    #[test]
    fn descriptor_limit_holds_for_the_program_itself() {
        let process = shell("echo ready; read line")
            .with_input()
            .descriptor_limit(64)
            .start();
        process.wait_for_line("ready");
        assert_eq!(descriptor_limits(process.id()), (Some(64), Some(64)));

        let process = shell("echo ready; read line")
            .with_input()
            .soft_descriptor_limit(63)
            .start();
        process.wait_for_line("ready");
        let (soft, hard) = descriptor_limits(process.id());
        assert_eq!(soft, Some(63));
        assert_ne!(hard, Some(63));
    }

    #[test]
    fn output_goes_to_the_given_pipe_and_errors_do_not() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let mut command = shell("echo out; echo err >&2");
        let output = command.output_to(writer).run();
        drop(command);
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", "err\n"));
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        assert_eq!(text, "out\n");
    }

    #[test]
    fn another_program_can_become_it_under_the_same_process_id() {
        let process = shell("echo $A $$; read line")
            .through(Path::new("/usr/bin/env"), ["A=launched"])
            .with_input()
            .start();
        assert_eq!(
            process.wait_for_line("launched"),
            format!("launched {}", process.id())
        );
    }

    #[test]
    fn dropped_process_is_killed() {
        let process = shell("read line").with_input().start();
        let path = format!("/proc/{}", process.id());
        drop(process);
        assert!(!Path::new(&path).exists());
    }
}
