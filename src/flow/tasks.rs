//! Work that waits, and the time that passes meanwhile: one seam, so that a simulation can decide what runs when.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;

use super::{Clock, SystemClock};

/// Where a worker's async work runs, and what time it is there. Whoever of the pipeline or of `bigquery/` waits, spawns, measures or draws
/// a jitter does it here, so that a seed can decide all of it.
pub trait Tasks: Clock {
    /// Now, as threads measure it: the same time as [`Clock::now_monotonic`].
    fn now(&self) -> Instant;
    /// Is ready once `span` has passed.
    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()>;
    /// Runs `work` beside everything else, until it ends or the worker does.
    fn spawn(&self, work: BoxFuture<'static, ()>);
    /// Runs `work` on a thread that may block.
    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>);
    /// 64 bits that differ between workers and moments: for jitter.
    fn random(&self) -> u64;
}

/// [`Tasks`] on tokio, with the system's clocks.
#[derive(Debug, Clone)]
pub struct TokioTasks {
    clock: SystemClock,
    runtime: tokio::runtime::Handle,
}

impl TokioTasks {
    /// Tasks of this runtime.
    pub fn new(runtime: tokio::runtime::Handle) -> Self {
        Self { clock: SystemClock::new(), runtime }
    }
}

impl Clock for TokioTasks {
    fn now_monotonic(&self) -> Duration {
        self.clock.now_monotonic()
    }

    fn now_wall_us(&self) -> i64 {
        self.clock.now_wall_us()
    }
}

impl Tasks for TokioTasks {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        // Made when first polled: on the runtime, wherever this was called.
        Box::pin(async move { tokio::time::sleep(span).await })
    }

    fn spawn(&self, work: BoxFuture<'static, ()>) {
        self.runtime.spawn(work);
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        self.runtime.spawn_blocking(work);
    }

    fn random(&self) -> u64 {
        rand::random()
    }
}

/// An even draw from 0 (included) to 1 (excluded), of 64 random bits.
pub fn even(random: u64) -> f64 {
    // 53 bits: every f64 of the range with the same chance.
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_in_their_range() {
        assert_eq!(even(0), 0.0);
        assert!(even(u64::MAX) < 1.0 && even(u64::MAX) > 0.999);
        assert_eq!(even(1 << 63), 0.5);
    }

    #[tokio::test]
    async fn tokio_tasks_run_and_wait() {
        let tasks = TokioTasks::new(tokio::runtime::Handle::current());
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let (began, waiting) = (tasks.now(), tasks.sleep(Duration::from_millis(10)));
        tasks.spawn(Box::pin(async move {
            waiting.await;
            // The receiver lives until the end of the test.
            let _ = sender.send(());
        }));
        assert!(receiver.await.is_ok());
        assert!(tasks.now() - began >= Duration::from_millis(10));
    }
}
