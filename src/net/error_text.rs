//! Operating system errors in the words of Ghostunnel 1.11.1, whatever C library is
//! linked: log parsers match on these phrases.

use std::io;

use rustix::io::Errno;

/// The phrase for an error, without number and without capital letter.
///
/// An error that no system call returned, but a deadline, is `i/o timeout`.
pub(super) fn phrase(error: &io::Error) -> String {
    let Some(errno) = error.raw_os_error() else {
        return match error.kind() {
            io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
            io::ErrorKind::UnexpectedEof => "unexpected EOF".to_owned(),
            _ => error.to_string(),
        };
    };
    if let Some((_, phrase)) = PHRASES.iter().find(|(known, _)| known.raw_os_error() == errno) {
        return (*phrase).to_owned();
    }
    let text = error.to_string();
    lower_first(
        text.strip_suffix(&format!(" (os error {errno})"))
            .unwrap_or(&text),
    )
}

pub(super) fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// Errors of sockets whose wording differs between C libraries, or is matched on.
const PHRASES: [(Errno, &str); 19] = [
    (Errno::ACCESS, "permission denied"),
    (Errno::ADDRINUSE, "address already in use"),
    (Errno::ADDRNOTAVAIL, "cannot assign requested address"),
    (Errno::AFNOSUPPORT, "address family not supported by protocol"),
    (Errno::AGAIN, "resource temporarily unavailable"),
    (Errno::CONNABORTED, "software caused connection abort"),
    (Errno::CONNREFUSED, "connection refused"),
    (Errno::CONNRESET, "connection reset by peer"),
    (Errno::HOSTUNREACH, "no route to host"),
    (Errno::INVAL, "invalid argument"),
    (Errno::MFILE, "too many open files"),
    (Errno::NETUNREACH, "network is unreachable"),
    (Errno::NFILE, "too many open files in system"),
    (Errno::NOENT, "no such file or directory"),
    (Errno::NOTCONN, "transport endpoint is not connected"),
    (Errno::NOTDIR, "not a directory"),
    (Errno::PERM, "operation not permitted"),
    (Errno::PIPE, "broken pipe"),
    (Errno::TIMEDOUT, "connection timed out"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_errors_have_their_known_phrases() {
        for (errno, text) in [
            (Errno::CONNREFUSED, "connection refused"),
            (Errno::ADDRINUSE, "address already in use"),
            (Errno::MFILE, "too many open files"),
            (Errno::LOOP, "too many levels of symbolic links"),
        ] {
            assert_eq!(phrase(&errno.into()), text);
        }
        assert_eq!(phrase(&io::ErrorKind::TimedOut.into()), "i/o timeout");
        assert_eq!(phrase(&io::Error::other("odd")), "odd");
    }
}
