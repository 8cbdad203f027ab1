//! Memory of the process as the system tells it. The allocator is not sampled, so nobody knows
//! what asked for it.

use std::fs;

/// Rows of `/proc/self/status` that tell of memory, and what they mean. Those that [`parts`] gives
/// come first and don't overlap.
const ROWS: [(&str, &str); 8] = [
    ("RssAnon", "resident: heap and stacks"),
    ("RssFile", "resident: program and libraries"),
    ("RssShmem", "resident: shared memory"),
    ("VmRSS", "resident, all of it"),
    ("VmHWM", "the most that was ever resident"),
    ("VmSwap", "swapped out"),
    ("VmSize", "address space"),
    ("VmLck", "locked"),
];

const PARTS: usize = 3;

/// What is resident, by kind, in bytes.
pub(super) fn parts() -> Vec<(&'static str, usize)> {
    let status = status();
    let parts = ROWS.iter().take(PARTS);
    parts
        .filter_map(|(key, meaning)| Some((*meaning, kibibytes(&status, key)?.saturating_mul(1024))))
        .collect()
}

/// All that is known, for people.
pub(super) fn text() -> String {
    let status = status();
    let rows: String = ROWS
        .iter()
        .filter_map(|(key, meaning)| {
            Some(format!(
                "{:>12} kB  {meaning} ({key})\n",
                kibibytes(&status, key)?
            ))
        })
        .collect();
    format!("# Memory of the process; allocations are not sampled.\n{rows}")
}

/// How many threads there are.
pub(super) fn threads() -> usize {
    kibibytes(&status(), "Threads").unwrap_or_default()
}

fn status() -> String {
    fs::read_to_string("/proc/self/status").unwrap_or_default()
}

/// The number in a row of this name.
fn kibibytes(status: &str, key: &str) -> Option<usize> {
    let rows = status.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = rows.into_iter().find(|(name, _)| *name == key)?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_their_whole_names() {
        let status = "VmRSSx:\t1 kB\nVmRSS:\t    1234 kB\nThreads:\t3\n";
        assert_eq!(kibibytes(status, "VmRSS"), Some(1234));
        assert_eq!(kibibytes(status, "Threads"), Some(3));
        assert_eq!(kibibytes(status, "VmHWM"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_and_threads() {
        assert!(threads() >= 1);
        assert_eq!(parts().len(), PARTS);
        assert!(parts().iter().map(|(_, bytes)| bytes).sum::<usize>() > 64 * 1024);
        assert!(text().contains("(VmRSS)\n"), "{}", text());
    }
}
