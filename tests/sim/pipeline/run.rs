//! One run: processes that come and go, faults for 20 s, then peace, in which every record must be finished and committed.

use std::time::Duration;

use rand::Rng;

use super::counted::Counters;
use super::faults::plan_fault;
use super::mutants::Mutant;
use super::scene::Scene;
use super::seen::Seen;
use crate::seeds::Run;
use crate::world::World;

/// When the last fault is over, but for processes that stand still a little longer.
pub const FAULTS: Duration = Duration::from_secs(20);
/// Everything must be done this long after the last fault: the longest backoffs and holds, twice.
const PEACE: Duration = Duration::from_secs(180);
/// How often it is looked at whether all is done.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs a seed.
pub fn run(seed: u64, traced: bool, mutant: Mutant) -> Run<Seen> {
    let counters = Counters::default();
    metrics::with_local_recorder(&counters, || {
        let world = World::new(seed, traced);
        let scene = Scene::new(world.clone(), FAULTS.mul_f64(0.9), mutant);
        for _ in 0..world.draw(|random| random.random_range(1..4)) {
            scene.start();
        }
        scene.watch();
        let count = world.draw(|random| random.random_range(1..12));
        for _ in 0..count {
            plan_fault(&scene);
        }
        let mut look = FAULTS;
        loop {
            world.run(look, |_| {});
            if world.is_spinning() {
                scene.oracle.complain(format!("tasks spin without end at {:?}", world.now()));
            }
            if scene.oracle.is_wrong() || (scene.is_done() && scene.oracle.is_told(counters.now())) || look >= FAULTS + PEACE {
                break;
            }
            look += LOOK_EVERY;
        }
        for failure in scene.failures() {
            scene.oracle.complain(format!("a connector gave up: {failure}"));
        }
        if !scene.oracle.is_wrong() {
            // What is still on its way may land.
            // Whoever stands still counts what it did when it goes on.
            let until = look.max(*scene.frozen_until.lock());
            world.run(until + Duration::from_secs(4), |_| {});
            if scene.oracle.uncounted(counters.now()).is_some() {
                // A lost answer's rows are counted when they are sent again, or are not any more: after a backoff.
                world.run(until + Duration::from_secs(70), |_| {});
            }
        }
        if !scene.oracle.is_wrong() {
            scene.oracle.end(counters.now(), look, &scene.group.committed());
        }
        scene.oracle.see(|seen| seen.rebalances += scene.group.rebalances());
        let (wrong, seen) = scene.oracle.verdict();
        let trace = world.trace();
        // The scene and its processes hold each other.
        for process in scene.running() {
            world.destroy(process);
        }
        scene.fleet.lock().clear();
        Run { trace, wrong, seen }
    })
}
