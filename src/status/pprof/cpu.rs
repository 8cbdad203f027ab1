//! Where the process spends its time: its threads are interrupted a hundred times in a second of
//! processor time, and what they are doing is noted.
//!
//! Stacks are followed by frame pointers, each checked before it is read. The unwinding tables
//! would lead further, but those of cryptographic assembly crashed the process within seconds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use pprof::{Frames, ProfilerGuard, ProfilerGuardBuilder, Symbol};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::proto::{self, Kind, Line, Sample, Timing};

/// Interruptions in a second of processor time, as usual.
const FREQUENCY: i32 = 100;

/// Not interrupted: what walks the stack itself, and the kernel's page, which has no unwinding
/// information that can be relied on.
const LEFT_ALONE: [&str; 3] = ["libgcc_s", "ld-linux", "vdso"];

/// The system has one timer for this in each process.
static IS_RUNNING: AtomicBool = AtomicBool::new(false);

/// Looks for this long and gives the profile, or why there is none. Dropping the future ends it.
pub(super) async fn profile(length: Duration) -> Result<Vec<u8>, String> {
    let running = Running::begin()?;
    let start = SystemTime::now();
    let guard = elsewhere(begin).await??;
    sleep(length).await;
    let duration = start.elapsed().unwrap_or(length);
    elsewhere(move || {
        let _running = running;
        finish(guard, start, duration)
    })
    .await?
}

struct Running;

impl Running {
    fn begin() -> Result<Self, String> {
        match IS_RUNNING.swap(true, Ordering::SeqCst) {
            true => Err("Could not enable CPU profiling: cpu profiling already in use".to_owned()),
            false => Ok(Self),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        IS_RUNNING.store(false, Ordering::SeqCst);
    }
}

/// Reading the program's symbols takes a while: on a thread of its own, so that the status port
/// answers meanwhile, and the exit does not wait.
async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let (sender, outcome) = oneshot::channel();
    let thread = thread::Builder::new().name("profile".to_owned()).spawn(move || {
        let _nobody_waits = sender.send(work());
    });
    thread.map_err(|error| format!("Could not enable CPU profiling: {error}"))?;
    outcome.await.map_err(|_| "profiling failed".to_owned())
}

fn begin() -> Result<ProfilerGuard<'static>, String> {
    let builder = ProfilerGuardBuilder::default()
        .frequency(FREQUENCY)
        .blocklist(&LEFT_ALONE);
    builder
        .build()
        .map_err(|error| format!("Could not enable CPU profiling: {error}"))
}

fn finish(guard: ProfilerGuard<'static>, start: SystemTime, duration: Duration) -> Result<Vec<u8>, String> {
    let report = guard.report().build_unresolved();
    // Finding names is not to be in the profile.
    drop(guard);
    let report = report.map_err(|error| format!("profiling failed: {error}"))?;
    let period = Duration::from_secs(1) / FREQUENCY.unsigned_abs();
    let nanoseconds = i64::try_from(period.as_nanos()).unwrap_or(i64::MAX);
    let samples: Vec<Sample> = report
        .data
        .into_iter()
        .map(|(frames, count)| {
            let count = i64::try_from(count).unwrap_or_default();
            let frames = Frames::from(frames);
            Sample {
                stack: frames.frames.iter().map(|frame| lines(frame)).collect(),
                values: vec![count, count.saturating_mul(nanoseconds)],
                thread: Some(frames.thread_name_or_id()),
            }
        })
        .collect();
    let kinds = [
        Kind {
            name: "samples",
            unit: "count",
        },
        Kind {
            name: "cpu",
            unit: "nanoseconds",
        },
    ];
    let timing = Timing {
        start,
        duration,
        period,
    };
    let bytes = proto::encode(&kinds, &samples, Some(&timing));
    proto::compress(&bytes).map_err(|error| error.to_string())
}

fn lines(frame: &[Symbol]) -> Vec<Line> {
    let line = |symbol: &Symbol| Line {
        function: symbol.name(),
        file: symbol.filename().into_owned(),
        line: symbol.lineno(),
    };
    frame.iter().map(line).collect()
}
