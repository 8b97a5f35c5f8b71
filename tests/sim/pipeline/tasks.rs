//! The pipeline's time and tasks on a machine of the world.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use millrace::flow::{Clock, Tasks};
use millrace::leader::Timer;
use rand::RngCore;

use crate::machine_timer::MachineTimer;
use crate::world::{MachineId, World};

/// The time and the tasks of one process.
pub struct MachineTasks {
    world: World,
    machine: MachineId,
    timer: MachineTimer,
}

impl MachineTasks {
    /// Of the process on this machine, whose wall clock is wrong by that much.
    pub fn new(world: &World, machine: MachineId, wall_offset_us: i64) -> Self {
        Self { world: world.clone(), machine, timer: MachineTimer::steady(world, machine, wall_offset_us) }
    }
}

/// The instant of every world's beginning: instants can only be had by the system's clock, and are only compared with each other.
fn beginning() -> Instant {
    static BEGINNING: OnceLock<Instant> = OnceLock::new();
    *BEGINNING.get_or_init(|| Instant::now() + Duration::from_secs(86_400))
}

impl Clock for MachineTasks {
    fn now_monotonic(&self) -> Duration {
        self.timer.now_monotonic()
    }

    fn now_wall_us(&self) -> i64 {
        self.timer.now_wall_us()
    }
}

impl Tasks for MachineTasks {
    fn now(&self) -> Instant {
        beginning() + self.now_monotonic()
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        self.timer.sleep(span)
    }

    fn spawn(&self, work: BoxFuture<'static, ()>) {
        self.world.spawn(self.machine, work);
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        let waits = self.timer.sleep(self.world.draw_span(Duration::from_millis(300)));
        self.world.spawn(self.machine, async move {
            waits.await;
            work();
        });
    }

    fn random(&self) -> u64 {
        self.world.draw(RngCore::next_u64)
    }
}
