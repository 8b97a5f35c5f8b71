//! Time that passes: a clock to read and a way to wait, so that a simulation can be both.

use std::time::Duration;

use futures::future::BoxFuture;

use crate::flow::{Clock, SystemClock};

/// A clock that can also be waited on. Everything of this room that waits takes one, so that the simulation decides when time passes.
pub trait Timer: Clock {
    /// Is ready once monotonic time has moved on by `span`.
    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()>;
}

/// The system's clocks and tokio's timers.
#[derive(Debug, Clone, Default)]
pub struct SystemTimer {
    clock: SystemClock,
}

impl Clock for SystemTimer {
    fn now_monotonic(&self) -> Duration {
        self.clock.now_monotonic()
    }

    fn now_wall_us(&self) -> i64 {
        self.clock.now_wall_us()
    }
}

impl Timer for SystemTimer {
    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(span))
    }
}

/// What `work` returns, or `None` when it takes longer than `limit`; then it is dropped where it stands.
pub async fn within<T>(timer: &dyn Timer, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased; // the same order each time: a seeded run must repeat itself
        done = work => Some(done),
        () = timer.sleep(limit) => None,
    }
}
