//! What a running process can do, tried from outside: a debugger makes calls of the C library
//! in the name of each of its threads.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::openssl::{require_tool, skip};
use crate::process::{Command, Exit};

/// Something to try. What succeeds has its effect, except that descriptors are closed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// Open a file or directory for reading.
    Read(PathBuf),
    /// Open a file for writing.
    Write(PathBuf),
    /// Open a file for writing, and make it if it is missing.
    Create(PathBuf),
    /// Connect to a TCP address.
    Connect(SocketAddr),
    /// Bind a TCP address.
    Bind(SocketAddr),
    /// Start this program.
    Execute(PathBuf),
}

/// What one thread was able to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempted {
    /// The thread's id.
    pub thread: u32,
    /// One outcome for each attempt, in their order.
    pub outcomes: Vec<Result<(), io::ErrorKind>>,
}

/// Stops the process for a moment and makes the attempts on each of its threads.
///
/// The process must be linked to the C library dynamically. `None` if gdb is missing or may
/// not look into other processes.
#[track_caller]
pub fn attempt(pid: u32, attempts: &[Attempt]) -> Option<Vec<Attempted>> {
    let mut script = tempfile::NamedTempFile::new().expect("a temporary file");
    script
        .write_all(script_text(attempts).as_bytes())
        .expect("a temporary file takes a script");
    let output = Command::new(require_tool("gdb")?)
        // Without its debug information a program has no function that could be mistaken for
        // one of the C library.
        .args(["-nx", "--readnever", "--batch", "-p", &pid.to_string(), "-x"])
        .arg(script.path())
        // Never asks the network for debug information.
        .env("DEBUGINFOD_URLS", "")
        .run();
    if output.stderr.contains("Operation not permitted") {
        skip("gdb may not look into other processes (kernel.yama.ptrace_scope)");
        return None;
    }
    let attempted = parse(&output.stdout);
    let is_complete = attempted
        .iter()
        .all(|thread| thread.outcomes.len() == attempts.len());
    assert!(
        output.exit == Exit::Code(0) && !attempted.is_empty() && is_complete,
        "gdb has failed:\n{}{}",
        output.stdout,
        output.stderr
    );
    Some(attempted)
}

/// Room for the argument of one attempt, in the memory that the script asks the process for.
const SLOT: usize = 1024;

fn script_text(attempts: &[Attempt]) -> String {
    let size = SLOT * (attempts.len() + 1);
    let mut script = format!(
        "set language c\n\
         set scheduler-locking on\n\
         set unwindonsignal on\n\
         set $memory = ((char *(*)(long, long, int, int, int, long)) mmap)(0, {size}, 3, 0x22, -1, 0)\n"
    );
    let mut calls = String::new();
    for (index, attempt) in attempts.iter().enumerate() {
        let slot = format!("($memory + {})", SLOT * (index + 1));
        place(&mut script, &slot, &attempt.argument());
        calls += &attempt.calls(&slot);
        calls += "printf \"attempt %d\\n\", $error\n";
    }
    write!(script, "define attempts\n{calls}end\nthread apply all attempts\n").expect("a String");
    script
}

/// Puts bytes and a zero into the memory of the process.
fn place(script: &mut String, slot: &str, bytes: &[u8]) {
    assert!(bytes.len() < SLOT, "too long for a slot");
    let literal: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
    writeln!(
        script,
        "set {{char [{}]}} {slot} = \"{literal}\"",
        bytes.len() + 1
    )
    .expect("a String");
}

impl Attempt {
    fn argument(&self) -> Vec<u8> {
        match self {
            Self::Read(path) | Self::Write(path) | Self::Create(path) | Self::Execute(path) => {
                path.as_os_str().as_bytes().to_vec()
            }
            Self::Connect(address) | Self::Bind(address) => socket_address(address),
        }
    }

    /// Commands that leave the number of the error, or 0, in `$error`.
    fn calls(&self, slot: &str) -> String {
        const ERRNO: &str = "*((int *(*)(void)) __errno_location)()";
        const CLOSE: &str = "set $closed = ((int (*)(int)) close)($descriptor)\n";
        let open = |flags| {
            format!(
                "set $descriptor = ((int (*)(char *, int, int)) open)({slot}, {flags}, 0600)\n\
                 set $error = 0\n\
                 if $descriptor < 0\nset $error = {ERRNO}\nelse\n{CLOSE}end\n"
            )
        };
        let socket = |call, address: &SocketAddr| {
            format!(
                "set $descriptor = ((int (*)(int, int, int)) socket)({}, 1, 0)\n\
                 set $result = ((int (*)(int, char *, int)) {call})($descriptor, {slot}, {})\n\
                 set $error = 0\n\
                 if $result < 0\nset $error = {ERRNO}\nend\n{CLOSE}",
                family(address),
                socket_address(address).len()
            )
        };
        match self {
            Self::Read(_) => open(0),
            Self::Write(_) => open(1),
            Self::Create(_) => open(0o101),
            Self::Connect(address) => socket("connect", address),
            Self::Bind(address) => socket("bind", address),
            // The first slot holds the arguments: the program and the null behind it.
            Self::Execute(_) => format!(
                "set {{char *}} $memory = {slot}\n\
                 set $error = ((int (*)(void *, char *, void *, void *, void *, void *)) posix_spawn)\
                 ($memory + 64, {slot}, 0, 0, $memory, $memory + 8)\n"
            ),
        }
    }
}

fn family(address: &SocketAddr) -> u16 {
    match address {
        SocketAddr::V4(_) => 2,
        SocketAddr::V6(_) => 10,
    }
}

/// `struct sockaddr_in` or `sockaddr_in6`.
fn socket_address(address: &SocketAddr) -> Vec<u8> {
    let (family, port) = (family(address).to_ne_bytes(), address.port().to_be_bytes());
    match address {
        SocketAddr::V4(address) => [&family[..], &port, &address.ip().octets(), &[0; 8]].concat(),
        SocketAddr::V6(address) => {
            let scope = address.scope_id().to_ne_bytes();
            [&family[..], &port, &[0; 4], &address.ip().octets(), &scope].concat()
        }
    }
}

/// Reads what the debugger prints: `Thread 2 (Thread 0x7f… (LWP 4711) "name"):` before the
/// outcomes of each thread.
fn parse(output: &str) -> Vec<Attempted> {
    let mut attempted: Vec<Attempted> = Vec::new();
    for line in output.lines() {
        if let Some(id) = line.strip_prefix("Thread ").and_then(thread_id) {
            attempted.push(Attempted {
                thread: id,
                outcomes: Vec::new(),
            });
        } else if let Some(error) = line.strip_prefix("attempt ") {
            let error = error.parse().expect("the script prints a number");
            let thread = attempted.last_mut().expect("the debugger names the thread first");
            thread.outcomes.push(match error {
                0 => Ok(()),
                error => Err(io::Error::from_raw_os_error(error).kind()),
            });
        }
    }
    attempted
}

/// A process with a single thread is shown as `process 4711` where threads are not known.
fn thread_id(line: &str) -> Option<u32> {
    let (_, rest) = line
        .split_once("(LWP ")
        .or_else(|| line.split_once("(process "))?;
    rest.split(')').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;

    use super::*;
    use crate::private_dir;

    #[test]
    fn attempts_succeed_or_fail_as_the_process_itself_would() {
        let dir = private_dir();
        fs::write(dir.path().join("file"), "x").expect("writable");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let process = Command::new("/bin/sh")
            .args(["-c", "echo ready; read line"])
            .with_input()
            .start();
        process.wait_for_line("ready");
        let attempts = [
            Attempt::Read(dir.path().join("file")),
            Attempt::Write(dir.path().join("missing")),
            Attempt::Create(dir.path().join("new")),
            Attempt::Connect(address),
            Attempt::Bind(address),
            Attempt::Bind("[::1]:0".parse().expect("address")),
            Attempt::Execute("/bin/true".into()),
            Attempt::Execute(dir.path().join("file")),
        ];
        let Some(attempted) = attempt(process.id(), &attempts) else {
            return;
        };
        let [thread] = attempted.as_slice() else {
            panic!("{attempted:?}")
        };
        assert_eq!(thread.thread, process.id());
        assert_eq!(
            thread.outcomes,
            [
                Ok(()),
                Err(io::ErrorKind::NotFound),
                Ok(()),
                Ok(()),
                Err(io::ErrorKind::AddrInUse),
                Ok(()),
                Ok(()),
                Err(io::ErrorKind::PermissionDenied),
            ]
        );
        assert!(dir.path().join("new").exists());
        process.write_input(b"\n");
        process.wait_exit();
    }
}
