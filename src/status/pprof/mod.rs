//! `/debug/pprof/`: profiles of the process, for `--enable-pprof`.
//!
//! The paths and formats are those that Go programs have, so that their tools work. What this
//! program does not have, such as goroutines or a sampling allocator, is answered with what comes
//! closest, or refused in words.

#[cfg(feature = "pprof")]
mod cpu;
mod memory;
mod proto;

use std::time::Duration;

use self::proto::{Kind, Line, Sample};

/// What is known of the process beside what the system says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Census {
    /// Tasks by what they do.
    pub tasks: Vec<(&'static str, usize)>,
}

/// What a path below `/debug/pprof/` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Page {
    /// The list of pages.
    Index,
    /// The command line.
    CommandLine,
    /// Where time is spent.
    Cpu(Duration),
    /// Names of addresses.
    Symbol,
    /// Live tasks.
    Tasks { as_text: bool },
    /// Threads of the system.
    Threads { as_text: bool },
    /// Memory.
    Memory { as_text: bool },
    /// What Go programs have and this one does not.
    Absent(&'static str),
    /// Nothing.
    Unknown,
}

/// What goes back.
pub(super) enum Answer {
    Text(String),
    Html(String),
    /// A compressed profile.
    Profile(Vec<u8>),
    /// Bytes of no particular kind.
    Bytes(Vec<u8>),
    /// There is no such profile here, and why.
    NotImplemented(String),
    /// It went wrong, or is not to be had now.
    Failed(String),
    NotFound,
}

/// How long to look if that is not said, and the most, which bounds what is kept.
const LENGTH: (u64, u64) = (30, 600);

/// Understands what follows `/debug/pprof/`; `values` gives the first value of a key in the query.
pub(super) fn page(name: &str, value: impl Fn(&str) -> Option<String>) -> Page {
    let number = |key: &str| value(key).and_then(|text| text.parse::<u64>().ok());
    let as_text = number("debug").is_some_and(|level| level > 0);
    match name {
        "" => Page::Index,
        "cmdline" => Page::CommandLine,
        "profile" => {
            let seconds = number("seconds")
                .filter(|seconds| *seconds > 0)
                .unwrap_or(LENGTH.0);
            Page::Cpu(Duration::from_secs(seconds.min(LENGTH.1)))
        }
        "symbol" => Page::Symbol,
        "goroutine" => Page::Tasks { as_text },
        "threadcreate" => Page::Threads { as_text },
        "heap" | "allocs" => Page::Memory { as_text },
        "trace" => Page::Absent("there is no execution trace: profile?seconds=N shows where time is spent"),
        "block" | "mutex" => Page::Absent("waiting is not profiled: tasks wait without blocking a thread"),
        _ => Page::Unknown,
    }
}

/// Answers it.
pub(super) async fn answer(page: Page, command_line: &[u8], census: &Census) -> Answer {
    match page {
        Page::Index => Answer::Html(index()),
        Page::CommandLine => Answer::Bytes(command_line.to_vec()),
        Page::Cpu(length) => cpu_profile(length).await,
        // Profiles come with their names, so there are none to ask for.
        Page::Symbol => Answer::Text("num_symbols: 0\n".to_owned()),
        Page::Tasks { as_text: true } => Answer::Text(tasks(census)),
        Page::Tasks { as_text: false } => counts("goroutine", "count", &census.tasks),
        Page::Threads { as_text } => threads(as_text),
        Page::Memory { as_text: true } => Answer::Text(memory::text()),
        Page::Memory { as_text: false } => counts("inuse_space", "bytes", &memory::parts()),
        Page::Absent(why) => Answer::NotImplemented(format!("{why}\n")),
        Page::Unknown => Answer::NotFound,
    }
}

#[cfg(feature = "pprof")]
async fn cpu_profile(length: Duration) -> Answer {
    match cpu::profile(length).await {
        Ok(profile) => Answer::Profile(profile),
        Err(error) => Answer::Failed(format!("{error}\n")),
    }
}

#[cfg(not(feature = "pprof"))]
async fn cpu_profile(_length: Duration) -> Answer {
    Answer::NotImplemented("this program was built without the feature pprof\n".to_owned())
}

fn threads(as_text: bool) -> Answer {
    let count = memory::threads();
    match as_text {
        true => Answer::Text(format!("threadcreate profile: total {count}\n")),
        false => counts("threadcreate", "count", &[("threads", count)]),
    }
}

/// Watchers take the last word of the first line for the number of live tasks.
fn tasks(census: &Census) -> String {
    let total: usize = census.tasks.iter().map(|(_, count)| count).sum();
    let mut text = format!("goroutine profile: total {total}\n");
    for (what, count) in census.tasks.iter().filter(|(_, count)| *count > 0) {
        text.push_str(&format!("{count} @\n#\t{what}\n\n"));
    }
    text
}

/// A profile of numbers that no place in the program belongs to: each has its name for one.
fn counts(kind: &'static str, unit: &'static str, counts: &[(&'static str, usize)]) -> Answer {
    let samples: Vec<Sample> = counts
        .iter()
        .map(|(what, count)| Sample {
            stack: vec![vec![Line {
                function: (*what).to_owned(),
                ..Line::default()
            }]],
            values: vec![i64::try_from(*count).unwrap_or(i64::MAX)],
            thread: None,
        })
        .collect();
    match proto::compress(&proto::encode(&[Kind { name: kind, unit }], &samples, None)) {
        Ok(profile) => Answer::Profile(profile),
        Err(error) => Answer::Failed(format!("{error}\n")),
    }
}

fn index() -> String {
    let pages = [
        (
            "profile?seconds=30",
            "where processor time is spent, after that many seconds",
        ),
        ("goroutine?debug=1", "live tasks; there are no goroutines"),
        ("heap?debug=1", "memory by kind; allocations are not sampled"),
        ("threadcreate?debug=1", "threads"),
        ("cmdline", "command line, without passwords"),
    ];
    let rows: String = pages
        .iter()
        .map(|(path, meaning)| format!("<li><a href=\"{path}\">{path}</a>: {meaning}</li>\n"))
        .collect();
    format!(
        "<!doctype html>\n<html><head><title>/debug/pprof/</title></head><body>\n<p>Profiles of ghostunnel \
         {}</p>\n<ul>\n{rows}</ul>\n</body></html>\n",
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_of(name: &str, query: &[(&str, &str)]) -> Page {
        page(name, |key| {
            let found = query.iter().find(|(known, _)| *known == key);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn pages_are_those_of_go_programs() {
        let seconds = |number| Page::Cpu(Duration::from_secs(number));
        for (name, query, expected) in [
            ("", &[][..], Page::Index),
            ("cmdline", &[], Page::CommandLine),
            ("profile", &[], seconds(30)),
            ("profile", &[("seconds", "5")], seconds(5)),
            ("profile", &[("seconds", "0")], seconds(30)),
            ("profile", &[("seconds", "-1")], seconds(30)),
            ("profile", &[("seconds", "x")], seconds(30)),
            ("profile", &[("seconds", "99999999")], seconds(600)),
            ("goroutine", &[("debug", "1")], Page::Tasks { as_text: true }),
            ("goroutine", &[("debug", "2")], Page::Tasks { as_text: true }),
            ("goroutine", &[], Page::Tasks { as_text: false }),
            ("heap", &[("debug", "0")], Page::Memory { as_text: false }),
            ("allocs", &[("debug", "1")], Page::Memory { as_text: true }),
            ("threadcreate", &[], Page::Threads { as_text: false }),
            ("symbol", &[], Page::Symbol),
            ("x", &[], Page::Unknown),
            ("profile/", &[], Page::Unknown),
            ("Profile", &[], Page::Unknown),
        ] {
            assert_eq!(page_of(name, query), expected, "{name} {query:?}");
        }
        for name in ["trace", "block", "mutex"] {
            assert!(matches!(page_of(name, &[]), Page::Absent(_)), "{name}");
        }
    }

    #[test]
    fn the_first_line_ends_with_the_number_of_tasks() {
        let census = Census {
            tasks: vec![("connections", 7), ("nothing", 0), ("status connections", 2)],
        };
        assert_eq!(
            tasks(&census),
            "goroutine profile: total 9\n7 @\n#\tconnections\n\n2 @\n#\tstatus connections\n\n"
        );
    }
}
