//! A machine's clocks and sleeps, as its processes see them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use millrace::flow::Clock;
use millrace::leader::Timer;
use parking_lot::Mutex;

use crate::world::{EPOCH_US, MachineId, World};

/// A machine's clocks.
#[derive(Clone)]
pub struct MachineTimer {
    world: World,
    machine: MachineId,
    /// How wrong the wall clock is, where the clocks are known to run as the true time does.
    steady: Option<i64>,
}

impl MachineTimer {
    /// Of this machine.
    pub fn new(world: &World, machine: MachineId) -> Self {
        Self { world: world.clone(), machine, steady: None }
    }

    /// Of a machine whose clocks run at a rate of 1 and is never suspended: quicker to ask.
    pub fn steady(world: &World, machine: MachineId, wall_offset_us: i64) -> Self {
        Self { world: world.clone(), machine, steady: Some(wall_offset_us) }
    }

    /// Monotonic time, wall clock, rate.
    fn local(&self) -> (Duration, i64, f64) {
        let Some(offset_us) = self.steady else { return self.world.local(self.machine) };
        let now = self.world.now();
        (now, EPOCH_US + offset_us + now.as_micros() as i64, 1.0)
    }
}

impl Clock for MachineTimer {
    fn now_monotonic(&self) -> Duration {
        self.local().0
    }

    fn now_wall_us(&self) -> i64 {
        self.local().1
    }
}

impl Timer for MachineTimer {
    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        let deadline = self.local().0.saturating_add(span);
        Box::pin(Sleep { timer: self.clone(), deadline, waker: Arc::default() })
    }
}

struct Sleep {
    timer: MachineTimer,
    deadline: Duration,
    /// Empty once nobody waits any more: what was given up must not wake the task.
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (local, _, rate) = self.timer.local();
        if local >= self.deadline {
            return Poll::Ready(());
        }
        if self.waker.lock().replace(context.waker().clone()).is_none() {
            let waker = Arc::clone(&self.waker);
            let left = self.deadline - local;
            // Rounding must not wake it for nothing.
            let span = if rate == 1.0 { left } else { left.div_f64(rate) + Duration::from_nanos(10) };
            self.timer.world.after(span, move |_| {
                if let Some(waker) = waker.lock().take() {
                    waker.wake();
                }
            });
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        *self.waker.lock() = None;
    }
}
