//! Removes a UNIX socket file that a dead process left behind, and nothing else.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// Why a file in the way of a listener is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// A file of another kind, or a symbolic link.
    #[error("a file that is no socket is in the way")]
    NotASocket,
    /// Somebody else's socket.
    #[error("the socket belongs to another user")]
    Foreign,
    /// A process has this socket open.
    #[error("another process uses this socket")]
    Live,
    /// It cannot be told whether the socket is in use.
    #[error("cannot tell whether the socket is in use; remove it if it is not")]
    Unknown,
}

/// Removes the socket at `path` if it is ours and dead.
///
/// Dead means: the kernel lists no socket bound to the path, and a connect is refused.
/// Either alone would not do: the list covers one network namespace, and a socket that
/// is bound but does not listen yet refuses connects too. Between the last look and the
/// removal there is a moment in which another process could bind the path; the kernel
/// offers no removal by inode that would close it.
pub(super) fn remove_stale(path: &Path) -> Result<(), Obstacle> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err(Obstacle::NotASocket);
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(Obstacle::Foreign);
    }
    let listed = fs::read("/proc/net/unix").map_err(|_| Obstacle::Unknown)?;
    if lists(&listed, path) {
        return Err(Obstacle::Live);
    }
    require_refusal(path)?;
    match fs::symlink_metadata(path) {
        Ok(now) if is_same_file(&now, &found) => fs::remove_file(path).map_err(|_| Obstacle::Unknown),
        Ok(_) => Err(Obstacle::Live),
        Err(_) => Ok(()),
    }
}

pub(super) fn is_same_file(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn require_refusal(path: &Path) -> Result<(), Obstacle> {
    let connected = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)
        .and_then(|socket| socket.connect(&SockAddr::unix(path)?));
    match connected.map_err(|error| error.kind()) {
        Err(std::io::ErrorKind::ConnectionRefused) => Ok(()),
        Ok(()) | Err(std::io::ErrorKind::WouldBlock) => Err(Obstacle::Live),
        Err(_) => Err(Obstacle::Unknown),
    }
}

/// Whether the kernel's table of UNIX sockets has one at `path`.
///
/// Paths are listed as they were given to bind. One that was relative can't be traced
/// to its directory, so its file name alone decides; and as a path may hold a line
/// break, which the table does not escape, so does a line that ends in the name.
fn lists(table: &[u8], path: &Path) -> bool {
    let Some(name) = path.file_name() else {
        return true;
    };
    let directory = |path: &Path| {
        let parent = path.parent().unwrap_or(path);
        fs::canonicalize(parent).unwrap_or_else(|_| parent.to_owned())
    };
    let here = directory(&absolute(path));
    table
        .split(|byte| *byte == b'\n')
        .skip(1)
        .filter_map(listed_path)
        .any(|entry| {
            let entry = Path::new(OsStr::from_bytes(entry));
            entry.file_name() == Some(name) && (entry.is_relative() || directory(entry) == here)
        })
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The path behind the seven columns of a line; the whole line when it has no columns.
fn listed_path(line: &[u8]) -> Option<&[u8]> {
    let is_column_start = |index: usize| {
        line.get(index).is_some_and(|byte| *byte != b' ')
            && index
                .checked_sub(1)
                .is_none_or(|before| line.get(before) == Some(&b' '))
    };
    let mut starts = (0..line.len()).filter(|index| is_column_start(*index));
    let is_entry = line
        .iter()
        .position(|byte| *byte == b':')
        .is_some_and(|colon| colon > 0 && line.iter().take(colon).all(u8::is_ascii_hexdigit));
    match is_entry {
        true => starts.nth(7).and_then(|start| line.get(start..)),
        false => Some(line),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    const TABLE: &[u8] = b"Num       RefCount Protocol Flags    Type St Inode Path
000000009763f754: 00000003 00000000 00000000 0001 03  1157
00000000104127e5: 00000002 00000000 00010000 0001 01   158 /no/such/dir/a b.sock
00000000104127e6: 00000002 00000000 00010000 0001 01 23158 ./relative.sock
00000000104127e7: 00000002 00000000 00010000 0001 01 23159 @abstract
00000000104127e8: 00000002 00000000 00010000 0001 01 23160 /no/such/dir/first
second.sock
";

    #[test]
    fn bound_paths_are_found_in_the_table() {
        for (path, listed) in [
            ("/no/such/dir/a b.sock", true),
            ("/no/such/dir/b.sock", false),
            ("/other/dir/a b.sock", false),
            ("/anywhere/relative.sock", true),
            ("/anywhere/1157", false),
            ("/anywhere/second.sock", true),
        ] {
            assert_eq!(lists(TABLE, Path::new(path)), listed, "{path}");
        }
    }

    #[test]
    fn only_a_dead_socket_is_removed() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("s");
        assert_eq!(remove_stale(&path), Ok(()));

        let listener = UnixListener::bind(&path).expect("bind");
        assert_eq!(remove_stale(&path), Err(Obstacle::Live));
        assert!(path.exists());
        drop(listener);
        assert_eq!(remove_stale(&path), Ok(()));
        assert!(!path.exists());
    }

    #[test]
    fn a_bound_socket_that_does_not_listen_is_alive() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("s");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("socket");
        socket
            .bind(&SockAddr::unix(&path).expect("address"))
            .expect("bind");
        assert_eq!(remove_stale(&path), Err(Obstacle::Live));
    }

    #[test]
    fn other_files_and_links_are_left_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("file");
        fs::write(&file, "precious").expect("write");
        assert_eq!(remove_stale(&file), Err(Obstacle::NotASocket));

        let (socket, link) = (folder.path().join("socket"), folder.path().join("link"));
        drop(UnixListener::bind(&socket).expect("bind"));
        std::os::unix::fs::symlink(&socket, &link).expect("link");
        assert_eq!(remove_stale(&link), Err(Obstacle::NotASocket));
        assert!(socket.exists() && link.exists());
    }

    #[test]
    fn a_socket_of_another_user_is_left_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("s");
        drop(UnixListener::bind(&path).expect("bind"));
        if std::os::unix::fs::chown(&path, Some(12345), None).is_err() {
            eprintln!("SKIPPED: giving files away needs root");
            return;
        }
        assert_eq!(remove_stale(&path), Err(Obstacle::Foreign));
        assert!(path.exists());
    }
}
