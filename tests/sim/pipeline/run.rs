//! One run: processes that come and go, faults for 20 s, then peace, in which every record must be finished and committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use rand::Rng;

use super::mutants::Mutant;
use super::oracle::Seen;
use super::scene::Scene;
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
    let duplicates = Duplicates::default();
    metrics::with_local_recorder(&duplicates, || {
        let world = World::new(seed, traced);
        let scene = Scene::new(world.clone(), FAULTS.mul_f64(0.9), mutant);
        for _ in 0..world.draw(|random| random.random_range(1..4)) {
            scene.start();
        }
        let count = world.draw(|random| random.random_range(1..9));
        for _ in 0..count {
            plan_fault(&scene);
        }
        let mut look = FAULTS;
        loop {
            world.run(look, |_| {});
            if world.is_spinning() {
                scene.oracle.complain(format!("tasks spin without end at {:?}", world.now()));
            }
            if scene.oracle.is_wrong() || scene.is_done() || look >= FAULTS + PEACE {
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
            if scene.oracle.uncounted(duplicates.0.load(Relaxed)).is_some() {
                // A lost answer's rows are counted when they are sent again, or are not any more: after a backoff.
                world.run(until + Duration::from_secs(70), |_| {});
            }
        }
        if !scene.oracle.is_wrong() {
            scene.oracle.end(duplicates.0.load(Relaxed), look, &scene.group.committed());
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

/// Plans one fault between now and the end of all faults.
fn plan_fault(scene: &Scene) {
    let world = &scene.world;
    let at = world.draw_span(FAULTS);
    let span = world.draw_span(Duration::from_secs(14)).min(FAULTS - at);
    let kind = world.draw(|random| random.random_range(0..16));
    let scene = scene.clone();
    world.after(at, move |world| strike(&scene, world, kind, span));
}

fn strike(scene: &Scene, world: &World, kind: u32, span: Duration) {
    const NAMES: [&str; 16] = [
        "stands still",
        "killed",
        "stopped",
        "one more",
        "group away",
        "commits refused",
        "shuffled",
        "thrown out",
        "sink slow",
        "sink dead",
        "sink flaky",
        "forbidden",
        "tables flaky",
        "registry away",
        "letters refused",
        "letters silent",
    ];
    world.note(|| format!("fault: {} for {span:?}", NAMES[kind as usize]));
    let until = world.now() + span;
    let running = scene.running();
    let victim = (!running.is_empty()).then(|| running[world.draw(|random| random.random_range(0..running.len()))]);
    let restart = |after: Duration| {
        let scene = scene.clone();
        world.after(after, move |_| {
            scene.start();
        });
    };
    let later = |before: &mut Duration| *before = until.max(*before);
    match (kind, victim) {
        (0, Some(victim)) => scene.freeze(victim, span),
        (1, Some(victim)) => {
            scene.kill(victim);
            restart(span);
        }
        (2, Some(victim)) => {
            scene.stop(victim);
            restart(span);
        }
        (3, _) if running.len() < 5 => {
            scene.start();
        }
        (4, _) => scene.group.away(until),
        (5, _) => scene.group.refuse(until),
        (6, _) => scene.group.disturb(false),
        (7, _) => scene.group.disturb(true),
        (8, _) => scene.warehouse.trouble(|troubles| later(&mut troubles.slow)),
        (9, _) => scene.warehouse.trouble(|troubles| later(&mut troubles.dead)),
        (10, _) => scene.warehouse.trouble(|troubles| later(&mut troubles.flaky)),
        (11, _) => scene.warehouse.trouble(|troubles| later(&mut troubles.forbidden)),
        (12, _) => scene.warehouse.trouble(|troubles| later(&mut troubles.rest)),
        (13, _) => scene.registry.away(until),
        (14, _) => scene.letters.down(until, false),
        (15, _) => scene.letters.down(until, true),
        _ => {}
    }
}

/// Reads what millrace counts of possible duplicates.
#[derive(Default)]
struct Duplicates(Arc<AtomicU64>);

impl Recorder for Duplicates {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        if key.name() == "millrace_possible_duplicate_rows_total" { Counter::from_arc(self.0.clone()) } else { Counter::noop() }
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
