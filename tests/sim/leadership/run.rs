//! One run: three workers, a load that changes, faults for 100 s, then a minute of peace in which everything must come right.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng;

use super::api::Api;
use super::faults::Scene;
use super::oracle::Seen;
use super::workers::{Load, Worker, believers, vary_load};
use crate::seeds::Run;
use crate::world::{Pauses, World};

const MACHINES: usize = 3;
const FAULTS: Duration = Duration::from_secs(100);
const PEACE: Duration = Duration::from_secs(60);
/// Everything is looked at after so many steps, too, not only when a term begins.
const LOOK_STEPS: u32 = 50;

/// What the simulation breaks on purpose, to show that it would see it. The product has no such switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Nothing.
    None,
    /// The resize path without its look at the term.
    NoRecheck,
    /// The scale is written without a resourceVersion: the server takes any.
    ScaleWithoutVersion,
    /// The Lease is written without one.
    LeaseWithoutVersion,
    /// Whether the Lease has expired is read from the times that stand in it.
    TrustsTimestamps,
    /// A leader leads as long as others wait.
    NoMargin,
}

fn scene(seed: u64, traced: bool, mutant: Mutant) -> Scene {
    let world = World::new(seed, traced);
    for _ in 0..MACHINES {
        // Clocks that are wrong by up to 10 % in speed, and by up to two minutes on the wall.
        let (rate, offset) = world.draw(|random| (random.random_range(0.9..1.1), random.random_range(-120_000_000..120_000_000)));
        world.machine(rate, offset);
    }
    let load = Arc::new(Load::default());
    load.wanted.store(1, Ordering::Relaxed);
    let api = Api::new(&world, MACHINES, mutant);
    let start = |machine| Some(Worker::start(&api, &load, machine, world.draw(Rng::random), mutant));
    let fleet = Arc::new(Mutex::new((0..MACHINES).map(start).collect()));
    Scene { api, fleet, load, mutant }
}

/// Runs a seed.
pub fn run(seed: u64, traced: bool, mutant: Mutant) -> Run<Seen> {
    let scene = scene(seed, traced, mutant);
    let world = scene.api.world.clone();
    world.set_pauses(Pauses { anywhere: 0.002, before_request: 0.01, before_resize: 0.15, longest: Duration::from_secs(30) });
    scene.plan(MACHINES, FAULTS);
    vary_load(&world, &scene.load, FAULTS);
    let mut steps = 0;
    let mut check = |_: &World| {
        steps += 1;
        let mut fleet = scene.fleet.lock();
        let changed = fleet.iter_mut().flatten().any(Worker::changed);
        if changed || steps % LOOK_STEPS == 0 {
            scene.api.server.lock().oracle.believers(&believers(&fleet));
        }
    };
    world.run(FAULTS, &mut check);
    world.note(|| "peace".to_owned());
    world.set_pauses(Pauses::default());
    world.run(FAULTS + PEACE, &mut check);

    let leaders = believers(&scene.fleet.lock());
    let mut server = scene.api.server.lock();
    let (wanted, found) = (scene.load.wanted.load(Ordering::Relaxed), server.replicas);
    if leaders.len() != 1 {
        server.oracle.wrong.push(format!("after {PEACE:?} of peace these lead: {leaders:?}"));
    }
    if wanted != found {
        server.oracle.wrong.push(format!("after {PEACE:?} of peace {found} workers are asked for, and {wanted} are needed"));
    }
    server.oracle.seen.runs = 1;
    Run { trace: world.trace(), wrong: std::mem::take(&mut server.oracle.wrong), seen: std::mem::take(&mut server.oracle.seen) }
}

/// How long nobody leads after the leader was told to stop, nothing else going wrong.
pub fn hand_over(seed: u64) -> Duration {
    let scene = scene(seed, false, Mutant::None);
    let world = scene.api.world.clone();
    let leads = |machine: usize| scene.fleet.lock()[machine].as_ref().is_some_and(Worker::believes);
    world.run(Duration::from_secs(20), |_| {});
    let leader = (0..MACHINES).find(|machine| leads(*machine)).expect("somebody leads after 20 s");
    scene.fleet.lock()[leader].as_ref().expect("it runs").stop();
    let stopped = world.now();
    let mut next = None;
    world.run(stopped + Duration::from_secs(30), |world| {
        if next.is_none() && (0..MACHINES).any(|machine| machine != leader && leads(machine)) {
            next = Some(world.now());
        }
    });
    next.map_or(Duration::MAX, |next| next - stopped)
}
