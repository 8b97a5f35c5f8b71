//! What goes wrong in a run, drawn from its seed.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng;

use super::api::Api;
use super::run::Mutant;
use super::workers::{Load, Worker};
use crate::world::{MachineId, World};

/// The workers that run; `None` while one is down.
pub type Fleet = Arc<Mutex<Vec<Option<Worker>>>>;

/// Everything that a fault touches.
#[derive(Clone)]
pub struct Scene {
    /// The server and the network.
    pub api: Api,
    /// The workers.
    pub fleet: Fleet,
    /// What is needed.
    pub load: Arc<Load>,
    /// What the simulation breaks on purpose.
    pub mutant: Mutant,
}

impl Scene {
    /// Plans faults between now and `end`; all are over at `end`.
    pub fn plan(&self, machines: usize, end: Duration) {
        let world = &self.api.world;
        for _ in 0..world.draw(|random| random.random_range(3..10)) {
            let at = world.draw_span(end);
            let span = world.draw_span(Duration::from_secs(40)).min(end - at);
            let machine = world.draw(|random| random.random_range(0..machines));
            let kind = world.draw(|random| random.random_range(0..9));
            let scene = self.clone();
            world.after(at, move |world| scene.strike(world, kind, machine, span));
        }
    }

    fn strike(&self, world: &World, kind: u32, machine: MachineId, span: Duration) {
        const NAMES: [&str; 9] =
            ["stopped", "suspended", "cut off", "slow network", "server away", "server slow", "killed", "ended", "by hand"];
        world.note(|| format!("fault: {} for {span:?}, machine {machine}", NAMES[kind as usize]));
        let until = world.now() + span;
        let later = |before: &mut Duration| *before = (*before).max(until);
        match kind {
            0 => world.freeze(machine, span),
            1 => world.suspend(machine, span),
            2 => later(&mut self.api.network.lock().cut_until[machine]),
            3 => later(&mut self.api.network.lock().slow_until[machine]),
            4 => later(&mut self.api.network.lock().server_down_until),
            5 => later(&mut self.api.network.lock().server_slow_until),
            6 => {
                if self.fleet.lock()[machine].take().is_some() {
                    world.kill(machine);
                    self.restart(world, machine, span);
                }
            }
            7 => {
                let ending = self.fleet.lock()[machine].take();
                if let Some(worker) = ending {
                    worker.stop();
                    // Its tasks end by themselves, and are still looked at until its pod is gone.
                    let grace = Duration::from_secs(30).min(span);
                    self.fleet.lock()[machine] = Some(worker);
                    let scene = self.clone();
                    world.after(grace, move |world| {
                        scene.fleet.lock()[machine] = None;
                        world.kill(machine);
                        scene.restart(world, machine, Duration::from_secs(1));
                    });
                }
            }
            _ => self.api.set_by_hand(world.draw(|random| random.random_range(1..12))),
        }
    }

    fn restart(&self, world: &World, machine: MachineId, after: Duration) {
        let scene = self.clone();
        world.after(after, move |world| {
            let mut fleet = scene.fleet.lock();
            if fleet[machine].is_none() {
                let incarnation = world.draw(Rng::random);
                fleet[machine] = Some(Worker::start(&scene.api, &scene.load, machine, incarnation, scene.mutant));
            }
        });
    }
}
