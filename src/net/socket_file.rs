//! The file of a listening UNIX socket: it appears when it can be connected to, and goes away
//! with its listener.
//!
//! Callers take a path that exists for one that answers, and between bind and listen the kernel
//! refuses connections. So the socket is bound beside its path, listens, and is then linked to
//! where it belongs. Its name in the kernel's tables is the path with a suffix.

use std::collections::hash_map::RandomState;
use std::fs::{self, Metadata};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

use super::stale_socket::{self, Obstacle};

/// Why nothing listens at a path.
#[derive(Debug)]
pub(super) enum Failure {
    /// This call failed.
    Call(&'static str, io::Error),
    /// The path is taken by something that must not be removed.
    Taken(Obstacle),
}

/// Opens a socket that listens at `path`. A file that a dead process left there is replaced.
pub(super) fn listen(path: &Path, backlog: i32) -> Result<(Socket, Option<SocketFile>), Failure> {
    // What fails here fails directly too, and is told of in terms of the real path; unless it
    // is for the length of the name, or for a file system without links, where it succeeds.
    let Ok((socket, hidden)) = listen_beside(path, backlog) else {
        return listen_directly(path, backlog);
    };
    match claim(path, || fs::hard_link(&hidden.0, path)) {
        Ok(()) => Ok((socket, SocketFile::at(path))),
        Err(Failure::Call(..)) => listen_directly(path, backlog),
        Err(taken @ Failure::Taken(_)) => Err(taken),
    }
}

fn listen_beside(path: &Path, backlog: i32) -> io::Result<(Socket, Hidden)> {
    let mut name = path.as_os_str().to_owned();
    // Nobody else's: several processes may start with one path at a time.
    name.push(format!(".{:016x}", RandomState::new().build_hasher().finish()));
    let hidden = PathBuf::from(name);
    let socket = unix_socket()?;
    socket.bind(&SockAddr::unix(&hidden)?)?;
    let hidden = Hidden(hidden);
    socket.listen(backlog)?;
    Ok((socket, hidden))
}

fn listen_directly(path: &Path, backlog: i32) -> Result<(Socket, Option<SocketFile>), Failure> {
    let failed = |call| move |error| Failure::Call(call, error);
    let address = SockAddr::unix(path).map_err(failed("bind"))?;
    let socket = unix_socket().map_err(failed("socket"))?;
    claim(path, || socket.bind(&address))?;
    // As close to the bind as can be.
    let listening = socket.listen(backlog);
    let file = SocketFile::at(path);
    listening.map_err(failed("listen"))?;
    Ok((socket, file))
}

fn unix_socket() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)
}

/// Takes the path, a second time after a dead socket there was removed.
fn claim(path: &Path, take: impl Fn() -> io::Result<()>) -> Result<(), Failure> {
    let is_taken = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::AddrInUse | io::ErrorKind::AlreadyExists
        )
    };
    match take() {
        Err(error) if is_taken(&error) => {
            stale_socket::remove_stale(path).map_err(Failure::Taken)?;
            take()
        }
        result => result,
    }
    .map_err(|error| match is_taken(&error) {
        true => Failure::Call("bind", Errno::ADDRINUSE.into()),
        false => Failure::Call("bind", error),
    })
}

/// A socket's name until it has its real one. The socket stays when the name goes.
struct Hidden(PathBuf);

impl Drop for Hidden {
    fn drop(&mut self) {
        // There is nothing better to do than to try.
        let _ = fs::remove_file(&self.0);
    }
}

/// A socket file that goes away with its listener, unless somebody else has put
/// another one in its place meanwhile.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    created: Metadata,
}

impl SocketFile {
    fn at(path: &Path) -> Option<Self> {
        // Absolute, for a working directory that changes must not lead elsewhere.
        let path = std::path::absolute(path).ok()?;
        let created = fs::symlink_metadata(&path).ok()?;
        Some(Self { path, created })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours =
            fs::symlink_metadata(&self.path).is_ok_and(|now| stale_socket::is_same_file(&now, &self.created));
        if is_ours {
            // The process is about to go; there is nothing better to do than to try.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::thread;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("readable");
        let name = |entry: io::Result<fs::DirEntry>| entry.expect("readable").file_name();
        entries
            .map(|entry| name(entry).to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn path_answers_from_the_moment_it_exists() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        for _ in 0..200 {
            let listener = thread::scope(|scope| {
                let caller = scope.spawn(|| {
                    while !path.exists() {
                        std::hint::spin_loop();
                    }
                    UnixStream::connect(&path)
                });
                let listener = listen(&path, 1).expect("a free path");
                caller.join().expect("no panic").expect("it listens");
                listener
            });
            assert_eq!(names(directory.path()), ["socket"]);
            drop(listener);
            assert!(names(directory.path()).is_empty());
        }
    }

    #[test]
    fn dead_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        drop(UnixListener::bind(&path).expect("a free path"));
        let (first, _file) = listen(&path, 1).expect("nobody lives there");
        assert!(matches!(listen(&path, 1), Err(Failure::Taken(Obstacle::Live))));
        assert_eq!(names(directory.path()), ["socket"]);
        UnixStream::connect(&path).expect("the first one still listens");
        drop(first);
    }

    #[test]
    fn name_of_the_greatest_length_is_used_directly() {
        let directory = tempfile::tempdir().expect("a directory");
        let room = 107 - directory.path().as_os_str().len() - 1;
        let path = directory.path().join("x".repeat(room));
        let _listener = listen(&path, 1).expect("it fits");
        UnixStream::connect(&path).expect("it listens");
    }
}
