//! A machine's clocks and sleeps, as its processes see them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use millrace::flow::Clock;
use millrace::leader::Timer;
use parking_lot::Mutex;

use crate::world::{MachineId, World};

/// A machine's clocks.
pub struct MachineTimer {
    world: World,
    machine: MachineId,
}

impl MachineTimer {
    /// Of this machine.
    pub fn new(world: &World, machine: MachineId) -> Self {
        Self { world: world.clone(), machine }
    }
}

impl Clock for MachineTimer {
    fn now_monotonic(&self) -> Duration {
        self.world.local(self.machine).0
    }

    fn now_wall_us(&self) -> i64 {
        self.world.local(self.machine).1
    }
}

impl Timer for MachineTimer {
    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        let deadline = self.world.local(self.machine).0.saturating_add(span);
        Box::pin(Sleep { world: self.world.clone(), machine: self.machine, deadline, waker: Arc::default() })
    }
}

struct Sleep {
    world: World,
    machine: MachineId,
    deadline: Duration,
    /// Empty once nobody waits any more: what was given up must not wake the task.
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (local, _, rate) = self.world.local(self.machine);
        if local >= self.deadline {
            return Poll::Ready(());
        }
        if self.waker.lock().replace(context.waker().clone()).is_none() {
            let waker = Arc::clone(&self.waker);
            let left = self.deadline - local;
            // Rounding must not wake it for nothing.
            let span = if rate == 1.0 { left } else { left.div_f64(rate) + Duration::from_nanos(10) };
            self.world.after(span, move |_| {
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
