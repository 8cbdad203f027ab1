//! What the kernel tells about a process: descriptors, threads, privileges, memory.

use std::fs;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The number of open descriptors.
pub fn descriptors(pid: u32) -> usize {
    match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(entries) => entries.count(),
        Err(error) => panic!("cannot count the descriptors of process {pid}: {error}"),
    }
}

/// How many descriptors the process can still open. Not the limit less [`descriptors`]: what it
/// has inherited may have numbers beyond the limit.
pub fn free_descriptors(pid: u32) -> u64 {
    let (limit, _) = descriptor_limits(pid);
    let limit = limit.expect("the number of descriptors is limited");
    let numbers = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap_or_else(|error| panic!("cannot list the descriptors of process {pid}: {error}"))
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok());
    limit - numbers.filter(|number| *number < limit).count() as u64
}

/// Soft and hard limit on open descriptors; `None` is unlimited.
pub fn descriptor_limits(pid: u32) -> (Option<u64>, Option<u64>) {
    let limits = read(pid, "limits");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .expect("every process has it");
    let mut numbers = line.split_whitespace().skip(3).map(|field| field.parse().ok());
    (numbers.next().flatten(), numbers.next().flatten())
}

/// Lets the test itself open as many descriptors as the system permits.
pub fn raise_descriptor_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, limit).expect("the soft limit may reach the hard one");
}

/// Duplicates of the TCP and UNIX sockets of a process, to ask for their options. Needs the
/// right to trace it: a child of this user will do, or any process for root.
pub fn sockets(pid: u32) -> Vec<socket2::Socket> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.expect("a valid process id");
    let process = pidfd_open(pid, PidfdFlags::empty())
        .unwrap_or_else(|error| panic!("cannot open process {pid:?}: {error}"));
    let folder = format!("/proc/{}/fd", pid.as_raw_nonzero());
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("cannot list {folder}: {error}"));
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let link = fs::read_link(entry.path()).ok()?;
            link.to_str()?.strip_prefix("socket:")?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            // Fails for one that was closed since.
            let duplicate = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok()?;
            Some(socket2::Socket::from(duplicate))
        })
        .collect()
}

/// One thread of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Its id.
    pub id: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Whether it can gain no privileges by running another program, which Landlock and
    /// system call filters require.
    pub no_new_privileges: bool,
    /// Whether a system call filter is in force.
    pub filtered: bool,
}

/// The threads of a process.
pub fn threads(pid: u32) -> Vec<Thread> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap_or_else(|error| panic!("cannot list the threads of process {pid}: {error}"));
    let ids = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
    ids.filter_map(|id| thread(pid, id)).collect()
}

/// `None` when the thread has ended since it was listed.
fn thread(pid: u32, id: u32) -> Option<Thread> {
    let status = fs::read_to_string(format!("/proc/{pid}/task/{id}/status")).ok()?;
    Some(Thread {
        id,
        name: field(&status, "Name")?.to_owned(),
        no_new_privileges: field(&status, "NoNewPrivs")? == "1",
        filtered: field(&status, "Seccomp")? == "2",
    })
}

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Resident set size: all pages in memory.
    pub resident: u64,
    /// Proportional set size: shared pages divided among their users.
    pub proportional: u64,
}

/// The memory of a process.
pub fn memory(pid: u32) -> Memory {
    let rollup = read(pid, "smaps_rollup");
    let bytes = |name| {
        let kibibytes =
            field(&rollup, name).and_then(|value| value.trim_end_matches(" kB").parse::<u64>().ok());
        kibibytes.expect("the kernel reports it in kB") * 1024
    };
    Memory {
        resident: bytes("Rss"),
        proportional: bytes("Pss"),
    }
}

fn read(pid: u32, file: &str) -> String {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

/// The value of a `Name: value` line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process;

    use super::*;

    #[test]
    fn own_process_is_described() {
        let pid = process::id();
        let memory = memory(pid);
        assert!(memory.resident >= memory.proportional && memory.proportional > 0);
        assert!(threads(pid).iter().any(|thread| thread.id == pid));
        assert!(descriptor_limits(pid).0.is_some_and(|soft| soft > 10));
    }

    #[test]
    fn own_descriptor_limit_rises_to_the_hard_one() {
        raise_descriptor_limit();
        let (soft, hard) = descriptor_limits(process::id());
        assert_eq!(soft, hard);
    }

    #[test]
    fn open_descriptors_are_counted() {
        let pid = process::id();
        // Other tests of this binary may run in the same process, hence many at once.
        let before = descriptors(pid);
        let files: Vec<File> = (0..100)
            .map(|_| File::open("/dev/null").expect("it exists"))
            .collect();
        assert!(descriptors(pid) > before + 50);
        let (soft, _) = descriptor_limits(pid);
        assert!(free_descriptors(pid) + 50 < soft.expect("limited"));
        drop(files);
    }

    #[test]
    fn sockets_of_a_process_can_be_looked_at() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let found = sockets(process::id());
        let is_ours = |socket: &socket2::Socket| {
            let local = socket.local_addr().ok().and_then(|local| local.as_socket());
            local == Some(address) && socket.is_listener().expect("a socket")
        };
        assert!(found.iter().any(is_ours));
    }
}
