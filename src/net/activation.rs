//! Sockets that systemd has opened for this process (`sd_listen_fds(3)`).
#![expect(
    unsafe_code,
    reason = "descriptors are announced by number: no safe interface can know that a number stands \
              for an open descriptor that belongs to nobody else, nor that the environment has no \
              other reader"
)]

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketType, sockopt};
use socket2::Socket;

/// Sockets that were opened for this process. Nothing is looked at until the first is asked for.
#[derive(Debug, Default)]
pub struct Inherited {
    descriptors: Option<Vec<Descriptor>>,
}

/// Why an inherited socket is not to be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActivationError {
    /// None has this name.
    #[error("expected listener with name {0}, but found none")]
    NotFound(String),
    /// Several have this name.
    #[error("expected exactly 1 listening socket configured in systemd for name {name}, found {count}")]
    Ambiguous {
        /// The name.
        name: String,
        /// How many have it.
        count: usize,
    },
    /// The service manager of this system works in another way.
    #[error("systemd socket activation is only supported on linux")]
    NotOnThisSystem,
}

#[derive(Debug)]
struct Descriptor {
    number: RawFd,
    name: String,
    judgement: Result<(), Unusable>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Unusable {
    #[error("it is not open")]
    Closed,
    #[error("it is no socket")]
    NotASocket,
    #[error("it is no stream socket")]
    NotAStream,
    #[error("it is neither a TCP nor a UNIX socket")]
    OtherFamily,
    #[error("it does not listen")]
    NotListening,
}

impl Inherited {
    /// Takes the one listening socket of this name.
    ///
    /// To be called while the process has one thread and before it listens itself: the variables
    /// that announce descriptors are removed, and a descriptor that listens is taken for one that
    /// was inherited.
    pub(super) fn take(&mut self, name: &str) -> Result<Socket, ActivationError> {
        if !cfg!(target_os = "linux") {
            return Err(ActivationError::NotOnThisSystem);
        }
        let descriptors = self.descriptors.get_or_insert_with(look);
        let is_wanted = |descriptor: &Descriptor| descriptor.judgement.is_ok() && descriptor.name == name;
        let count = descriptors
            .iter()
            .filter(|descriptor| is_wanted(descriptor))
            .count();
        let found = descriptors.iter().position(is_wanted);
        match (found, count) {
            (Some(index), 1) => Ok(adopt(descriptors.swap_remove(index))),
            (Some(_), count) => Err(ActivationError::Ambiguous {
                name: name.to_owned(),
                count,
            }),
            (None, _) => Err(ActivationError::NotFound(name.to_owned())),
        }
    }

    /// Which descriptors are left alone although they were announced, and why: lines for the log.
    pub fn unusable(&self) -> Vec<String> {
        let descriptors = self.descriptors.iter().flatten();
        let told = descriptors.filter_map(|descriptor| {
            let Descriptor { number, name, .. } = descriptor;
            let reason = descriptor.judgement.err()?;
            Some(format!(
                "inherited descriptor {number} ({name:?}) is not used: {reason}"
            ))
        });
        told.collect()
    }
}

const VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// The first descriptor that is passed: those before it are the standard streams.
const FIRST: RawFd = 3;

/// More than a unit file can ask for, so that a number out of the air costs no time.
const MOST: usize = 4096;

fn look() -> Vec<Descriptor> {
    let [pid, count, names] = VARIABLES.map(env::var_os);
    forget_variables();
    let announced = announced(pid.as_deref(), count.as_deref(), names, std::process::id());
    let judged = announced.into_iter().map(|(number, name)| Descriptor {
        number,
        name,
        judgement: judge(number),
    });
    judged.collect()
}

/// Numbers and names, if it is this process that they are meant for.
fn announced(
    pid: Option<&OsStr>,
    count: Option<&OsStr>,
    names: Option<OsString>,
    own_pid: u32,
) -> Vec<(RawFd, String)> {
    let is_ours = pid.and_then(OsStr::to_str).and_then(|pid| pid.parse().ok()) == Some(own_pid);
    let count = count
        .and_then(OsStr::to_str)
        .and_then(|count| count.parse::<usize>().ok());
    let count = count.filter(|_| is_ours).unwrap_or_default().min(MOST);
    let names = names.unwrap_or_default();
    let names = names.to_string_lossy();
    let mut names = names.split(':');
    let numbers = (FIRST..).take(count);
    numbers
        .map(|number| match names.next().filter(|name| !name.is_empty()) {
            Some(name) => (number, name.to_owned()),
            None => (number, format!("LISTEN_FD_{number}")),
        })
        .collect()
}

/// Whether this descriptor can be accepted from. It is closed on exec from here on.
fn judge(number: RawFd) -> Result<(), Unusable> {
    // SAFETY: asking for the flags of a descriptor has no condition, not even that it is open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return Err(Unusable::Closed);
    }
    // SAFETY: it is open, by the line above, and nothing closes it while it is borrowed, since
    // that ends with this function and nobody else runs.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    // Can't fail for a descriptor that is open.
    let _infallible = fcntl_setfd(descriptor, FdFlags::CLOEXEC);
    judge_socket(descriptor)
}

fn judge_socket(descriptor: impl AsFd) -> Result<(), Unusable> {
    let descriptor = descriptor.as_fd();
    match sockopt::socket_type(descriptor) {
        Err(_) => return Err(Unusable::NotASocket),
        Ok(SocketType::STREAM) => {}
        Ok(_) => return Err(Unusable::NotAStream),
    }
    match sockopt::socket_domain(descriptor) {
        Ok(AddressFamily::INET | AddressFamily::INET6 | AddressFamily::UNIX) => {}
        Ok(_) | Err(_) => return Err(Unusable::OtherFamily),
    }
    match sockopt::socket_acceptconn(descriptor) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(Unusable::NotListening),
    }
}

/// Makes a descriptor that was judged usable, and is on the list no longer, our own.
fn adopt(descriptor: Descriptor) -> Socket {
    // SAFETY: the descriptor is open: it was when it was judged, and who inherits does not close.
    // Nobody else owns it: it listens, which no socket of this process does before the last one
    // is taken, so it was inherited; and a descriptor leaves the list when it is taken.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor.number) };
    Socket::from(owned)
}

/// Keeps the variables from whatever this process might start, as it can't know for whom they
/// would be. Not worth a race: with other threads about, they stay.
fn forget_variables() {
    if !is_single_threaded() {
        return;
    }
    for variable in VARIABLES {
        #[expect(clippy::disallowed_methods, reason = "there is no other thread")]
        // SAFETY: no other thread can read or write the environment: there is none.
        unsafe {
            env::remove_var(variable);
        }
    }
}

fn is_single_threaded() -> bool {
    fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::{AsRawFd, IntoRawFd};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn descriptors_are_announced_to_one_process_by_number_and_name() {
        let own = std::process::id();
        let other = own.wrapping_add(1);
        for (pid, count, names, expected) in [
            (own, "1", Some("web"), vec![(3, "web")]),
            (
                own,
                "3",
                Some("a::c:d"),
                vec![(3, "a"), (4, "LISTEN_FD_4"), (5, "c")],
            ),
            (own, "2", None, vec![(3, "LISTEN_FD_3"), (4, "LISTEN_FD_4")]),
            (own, "1", Some(""), vec![(3, "LISTEN_FD_3")]),
            (own, "2", Some("same:same"), vec![(3, "same"), (4, "same")]),
            (own, "0", Some("web"), vec![]),
            (own, "-1", Some("web"), vec![]),
            (own, "x", Some("web"), vec![]),
            (own, "", Some("web"), vec![]),
            (other, "1", Some("web"), vec![]),
        ] {
            let found = announced(
                Some(pid.to_string().as_ref()),
                Some(count.as_ref()),
                names.map(OsString::from),
                own,
            );
            let found: Vec<_> = found
                .iter()
                .map(|(number, name)| (*number, name.as_str()))
                .collect();
            assert_eq!(found, expected, "{pid} {count} {names:?}");
        }
        let own_text = own.to_string();
        for (pid, count) in [
            (None, Some("1")),
            (Some(""), Some("1")),
            (Some("x"), Some("1")),
            (Some(own_text.as_str()), None),
        ] {
            let found = announced(pid.map(OsStr::new), count.map(OsStr::new), None, own);
            assert_eq!(found, [], "{pid:?} {count:?}");
        }
        let many = announced(
            Some(own_text.as_ref()),
            Some("18446744073709551615".as_ref()),
            None,
            own,
        );
        assert_eq!(many.len(), MOST);
    }

    #[test]
    fn only_stream_sockets_that_listen_are_usable() {
        let folder = tempfile::tempdir().expect("folder");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("bind");
        assert_eq!(judge(tcp.as_raw_fd()), Ok(()));
        assert_eq!(
            judge_socket(UnixListener::bind(folder.path().join("s")).expect("bind")),
            Ok(())
        );
        assert_eq!(
            judge_socket(TcpStream::connect(tcp.local_addr().expect("address")).expect("connect")),
            Err(Unusable::NotListening)
        );
        assert_eq!(
            judge_socket(UnixStream::pair().expect("pair").0),
            Err(Unusable::NotListening)
        );
        assert_eq!(
            judge_socket(UdpSocket::bind("127.0.0.1:0").expect("bind")),
            Err(Unusable::NotAStream)
        );
        assert_eq!(
            judge_socket(fs::File::open("/dev/null").expect("open")),
            Err(Unusable::NotASocket)
        );
        // A number that no process of ours gets to.
        assert_eq!(judge(RawFd::MAX), Err(Unusable::Closed));
        assert_eq!(judge(-1), Err(Unusable::Closed));
    }

    /// As if these had been announced; they belong to nobody else.
    fn inherited(sockets: Vec<(&str, OwnedFd)>) -> Inherited {
        let descriptors = sockets.into_iter().map(|(name, socket)| {
            let number = socket.into_raw_fd();
            Descriptor {
                number,
                name: name.to_owned(),
                judgement: judge(number),
            }
        });
        Inherited {
            descriptors: Some(descriptors.collect()),
        }
    }

    #[test]
    fn a_socket_is_taken_once_and_by_its_name() {
        let listener = || TcpListener::bind("127.0.0.1:0").expect("bind");
        let (web, two, three) = (listener(), listener(), listener());
        let address = web.local_addr().expect("address");
        let (stream, _) = UnixStream::pair().expect("pair");
        let datagrams = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let number = stream.as_raw_fd();
        let mut inherited = inherited(vec![
            ("web", datagrams.into()),
            ("web", web.into()),
            ("two", two.into()),
            ("two", three.into()),
            ("odd\n", stream.into()),
        ]);
        let told = inherited.unusable();
        assert!(
            told[0].ends_with("(\"web\") is not used: it is no stream socket"),
            "{told:?}"
        );
        assert_eq!(
            told[1],
            format!("inherited descriptor {number} (\"odd\\n\") is not used: it does not listen")
        );
        let socket = inherited.take("web").expect("one is usable");
        assert_eq!(socket.local_addr().expect("address").as_socket(), Some(address));
        for (name, text) in [
            ("web", "expected listener with name web, but found none"),
            ("", "expected listener with name , but found none"),
            ("odd\n", "expected listener with name odd\n, but found none"),
            (
                "two",
                "expected exactly 1 listening socket configured in systemd for name two, found 2",
            ),
        ] {
            assert_eq!(inherited.take(name).expect_err(name).to_string(), text);
        }
    }
}
