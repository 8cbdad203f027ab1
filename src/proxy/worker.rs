//! Workers: one single-threaded runtime on a thread of its own for each core.
//!
//! A connection stays on the worker that it was given to, so nothing on the way of a byte is
//! shared or locked.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};

/// A task that is made on the thread that runs it, so its future need not be `Send`.
type Task = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// Threads for name look-ups of one worker: look-ups of one name are shared, so this bounds
/// how many different names can be asked for at a time.
const LOOKUP_THREADS: usize = 4;

/// All workers of the process; shared by the tunnels.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    /// Unbounded, because every connection in it holds a descriptor: `RLIMIT_NOFILE` is the
    /// bound.
    tasks: mpsc::UnboundedSender<Task>,
    /// Connections it has been given and has not finished.
    load: Arc<AtomicUsize>,
}

thread_local! {
    /// The index of the worker that runs on this thread.
    static OWN_INDEX: Cell<Option<usize>> = const { Cell::new(None) };
}

impl Workers {
    /// Starts as many workers as the process may use cores (affinity and cgroup quota
    /// considered).
    pub fn start() -> io::Result<Arc<Self>> {
        Self::start_some(thread::available_parallelism().map_or(1, NonZeroUsize::get))
    }

    pub(super) fn start_some(count: usize) -> io::Result<Arc<Self>> {
        let workers = (0..count).map(Worker::start).collect::<io::Result<_>>()?;
        Ok(Arc::new(Self { workers }))
    }

    /// Runs a long-lived task, such as an accept loop, on the worker that `index` falls on.
    pub fn run<F, Fut>(&self, index: usize, task: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        if let Some(worker) = self
            .workers
            .get(index.checked_rem(self.workers.len()).unwrap_or_default())
        {
            worker.send(Box::new(|| Box::pin(task())));
        }
    }

    /// Runs a connection's task on the worker with the fewest connections; on this thread if
    /// that is one of them, which saves waking another.
    pub(super) fn run_on_least_loaded<F, Fut>(&self, task: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let own = OWN_INDEX.get();
        let least = self
            .workers
            .iter()
            .enumerate()
            .min_by_key(|(index, worker)| (worker.load.load(Ordering::Relaxed), own != Some(*index)));
        let Some((index, worker)) = least else { return };
        let counted = Counted::new(&worker.load);
        if own == Some(index) {
            spawn_local(async move {
                let _counted = counted;
                task().await;
            });
        } else {
            worker.send(Box::new(|| {
                Box::pin(async move {
                    let _counted = counted;
                    task().await;
                })
            }));
        }
    }
}

impl Worker {
    fn start(index: usize) -> io::Result<Self> {
        #[expect(
            clippy::disallowed_methods,
            reason = "bounded by RLIMIT_NOFILE, see Worker::tasks"
        )]
        let (tasks, queue) = mpsc::unbounded_channel();
        let runtime = runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(LOOKUP_THREADS)
            .build()?;
        thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                OWN_INDEX.set(Some(index));
                LocalSet::new().block_on(&runtime, spawn_all(queue));
            })?;
        Ok(Self {
            tasks,
            load: Arc::default(),
        })
    }

    fn send(&self, task: Task) {
        // A worker's thread ends only with the process; then nobody waits for the task.
        let _process_is_ending = self.tasks.send(task);
    }
}

/// Takes tasks until the process ends.
async fn spawn_all(mut queue: mpsc::UnboundedReceiver<Task>) {
    while let Some(task) = queue.recv().await {
        spawn_local(task());
    }
}

/// Counts a connection for as long as its task lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use ghostunnel_testing::{DEADLINE, eventually};
    use tokio::sync::oneshot;

    use super::*;

    fn loads(workers: &Workers) -> Vec<usize> {
        let loads = workers.workers.iter();
        loads.map(|worker| worker.load.load(Ordering::SeqCst)).collect()
    }

    /// A connection that says which worker it is on, then waits to be told to end.
    fn connect(workers: &Workers, places: &SyncSender<usize>) -> oneshot::Sender<()> {
        let (end, ended) = oneshot::channel();
        let places = places.clone();
        workers.run_on_least_loaded(move || async move {
            places.send(OWN_INDEX.get().expect("a worker")).expect("heard");
            let _told_or_dropped = ended.await;
        });
        end
    }

    fn next(places: &Receiver<usize>) -> usize {
        places.recv_timeout(DEADLINE).expect("the task runs")
    }

    #[test]
    fn connections_go_to_the_worker_with_the_fewest() {
        let workers = Workers::start_some(3).expect("threads");
        let (places, seen) = sync_channel(10);
        let mut open: Vec<_> = (0..6).map(|_| connect(&workers, &places)).collect();
        let mut places_of: Vec<_> = (0..6).map(|_| next(&seen)).collect();
        places_of.sort_unstable();
        assert_eq!(
            (loads(&workers), places_of),
            (vec![2, 2, 2], vec![0, 0, 1, 1, 2, 2])
        );

        // The second and the fifth are on worker 1.
        drop((open.remove(4), open.remove(1)));
        eventually("both have ended", || loads(&workers) == [2, 0, 2]);
        open.push(connect(&workers, &places));
        assert_eq!(next(&seen), 1);
    }

    #[test]
    fn a_worker_prefers_itself_where_loads_are_equal() {
        let workers = Workers::start_some(3).expect("threads");
        let (places, seen) = sync_channel(10);
        let pool = Arc::clone(&workers);
        workers.run(2, move || async move {
            let _open = connect(&pool, &places);
            pending::<()>().await;
        });
        assert_eq!(next(&seen), 2);
    }

    #[test]
    fn a_task_that_panics_gives_its_place_back_and_the_worker_lives() {
        let workers = Workers::start_some(1).expect("threads");
        let (places, seen) = sync_channel(10);
        let _long = connect(&workers, &places);
        next(&seen);
        // Both ways to get to a worker: from another thread and from its own.
        let pool = Arc::clone(&workers);
        workers.run_on_least_loaded(|| async { panic!("on purpose") });
        workers.run(0, move || async move {
            pool.run_on_least_loaded(|| async { panic!("on purpose") });
        });
        let _after = connect(&workers, &places);
        next(&seen);
        eventually("both panics are over", || loads(&workers) == [2]);
    }
}
