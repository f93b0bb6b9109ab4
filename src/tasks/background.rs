//! Threads for work that no client waits for.

use std::{
    io,
    num::NonZero,
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};

/// Work that waited for the cores for so long has starved.
const STARVATION: Duration = Duration::from_millis(200);
/// Since work has starved, or somebody was in a [`hurry`], what begins within this gets more of the cores.
const WHILE: Duration = Duration::from_secs(30);
/// About a tenth of a core where all cores are wanted.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

static BACKGROUND: Background = Background::new();

/// Runs `work`, which takes long and can wait, on a thread that gives way to those that serve clients: it gets what nobody else
/// wants of the cores or, for a while after that was next to nothing, a small share of them; after a [`hurry`] as much as others.
///
/// # Errors
/// It panicked.
pub async fn in_background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    BACKGROUND.run(work).await
}

/// For a while such work gives way to nobody: what would fill up without it matters more.
pub fn hurry() {
    BACKGROUND.hurry();
}

/// How far a thread gives way.
#[derive(Clone, Copy)]
enum Gives {
    /// It takes what is idle.
    Everything,
    /// It has a share.
    Most,
    Nothing,
}

struct Background {
    spare: LazyLock<Runtime>,
    share: LazyLock<Runtime>,
    equal: LazyLock<Runtime>,
    /// When work waited for too long.
    starved_at: Mutex<Option<Instant>>,
    hurried_at: Mutex<Option<Instant>>,
}

impl Background {
    const fn new() -> Self {
        Self {
            spare: LazyLock::new(|| threads(Gives::Everything)),
            share: LazyLock::new(|| threads(Gives::Most)),
            equal: LazyLock::new(|| threads(Gives::Nothing)),
            starved_at: Mutex::new(None),
            hurried_at: Mutex::new(None),
        }
    }

    fn hurry(&self) {
        *self.hurried_at.lock() = Some(Instant::now());
    }

    async fn run<T: Send + 'static>(&'static self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let lately = |at: &Mutex<Option<Instant>>| at.lock().is_some_and(|at| at.elapsed() < WHILE);
        let threads = if lately(&self.hurried_at) {
            &self.equal
        } else if lately(&self.starved_at) {
            &self.share
        } else {
            &self.spare
        };
        let timed = move || {
            let (began, worked_before) = (Instant::now(), thread_cpu_time());
            let made = work();
            let waited = began.elapsed().saturating_sub(thread_cpu_time().saturating_sub(worked_before));
            if waited > STARVATION {
                *self.starved_at.lock() = Some(Instant::now());
            }
            made
        };
        threads.spawn_blocking(timed).await.map_err(io::Error::other)
    }
}

/// A thread can't always leave its policy again, so there are some of each kind; they end when they have had nothing to do for
/// long.
#[expect(clippy::expect_used, reason = "such a runtime has no driver that could fail")]
fn threads(gives: Gives) -> Runtime {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    Builder::new_current_thread()
        .max_blocking_threads(cores.div_ceil(2))
        .thread_name("background")
        .on_thread_start(move || give_way(gives))
        .build()
        .expect("a runtime without drivers")
}

/// Lowers this thread's priority. One that may not do so does not give way, and works.
#[cfg(target_os = "linux")]
fn give_way(gives: Gives) {
    use thread_priority::{
        NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
        thread_native_id,
    };
    match gives {
        Gives::Nothing => return,
        Gives::Most => {}
        Gives::Everything => {
            // Whoever wakes up takes the core from it at once, which the priority alone does not bring about.
            let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
            let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle);
        }
    }
    let _ = rustix::process::setpriority_process(None, NICE);
}

/// Elsewhere a priority is the whole process's.
#[cfg(not(target_os = "linux"))]
fn give_way(_: Gives) {}

fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use thread_priority::{NormalThreadSchedulePolicy, ThreadSchedulePolicy, thread_schedule_policy};

    use super::*;

    fn standing() -> (ThreadSchedulePolicy, i32) {
        let policy = thread_schedule_policy().expect("a thread has one");
        (policy, rustix::process::getpriority_process(None).expect("a thread has one"))
    }

    #[tokio::test]
    async fn what_can_wait_takes_what_is_idle_a_share_where_it_starved_and_all_it_needs_in_a_hurry() {
        static BACKGROUND: Background = Background::new();
        let policy = |policy| ThreadSchedulePolicy::Normal(policy);
        let (_, own) = standing();
        let is_lowered = |nice: i32| nice > own || nice == 19;
        let (found, nice) = BACKGROUND.run(standing).await.expect("a thread");
        assert!(found == policy(NormalThreadSchedulePolicy::Idle) && is_lowered(nice), "{found:?} {nice}");

        let starve = || thread::sleep(STARVATION + Duration::from_millis(10));
        BACKGROUND.run(starve).await.expect("a thread");
        let (found, nice) = BACKGROUND.run(standing).await.expect("a thread");
        assert!(found == policy(NormalThreadSchedulePolicy::Other) && is_lowered(nice), "{found:?} {nice}");

        BACKGROUND.hurry();
        let (found, nice) = BACKGROUND.run(standing).await.expect("a thread");
        assert!(found == policy(NormalThreadSchedulePolicy::Other) && nice == own, "{found:?} {nice}");
    }

    #[tokio::test]
    async fn it_says_where_it_failed() {
        assert_eq!(in_background(|| 1).await.ok(), Some(1));
        assert!(in_background(|| panic!("a bad file")).await.is_err());
    }
}
