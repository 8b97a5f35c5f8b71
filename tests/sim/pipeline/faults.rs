//! What goes wrong, and when.

use std::time::Duration;

use rand::Rng;

use super::run::FAULTS;
use super::scene::Scene;
use crate::world::World;

/// One kind of fault.
#[derive(Debug, Clone, Copy)]
enum Fault {
    StandsStill,
    Killed,
    Stopped,
    OneMore,
    GroupAway,
    CommitsRefused,
    Shuffled,
    /// Members are thrown out, perhaps again as soon as they are back: a network that comes and goes.
    ThrownOut,
    SinkSlow,
    SinkDead,
    SinkFlaky,
    Forbidden,
    TablesFlaky,
    RegistryAway,
    LettersRefused,
    LettersSilent,
    /// The table is deleted, and made again by the user or by millrace.
    TableDeleted,
    /// Days go by in which nobody uses the streams; perhaps all processes are away meanwhile.
    StreamsForgotten,
    /// Somebody else writes to a partition's stream.
    StreamsIntruded,
    /// Retention takes records, read or not.
    Retention,
    /// The process holds more memory than its rows explain.
    MemoryCrowded,
    /// The user changes the guarantee, perhaps for a while.
    GuaranteeSwitched,
}

const KINDS: [Fault; 22] = [
    Fault::StandsStill,
    Fault::Killed,
    Fault::Stopped,
    Fault::OneMore,
    Fault::GroupAway,
    Fault::CommitsRefused,
    Fault::Shuffled,
    Fault::ThrownOut,
    Fault::SinkSlow,
    Fault::SinkDead,
    Fault::SinkFlaky,
    Fault::Forbidden,
    Fault::TablesFlaky,
    Fault::RegistryAway,
    Fault::LettersRefused,
    Fault::LettersSilent,
    Fault::TableDeleted,
    Fault::StreamsForgotten,
    Fault::StreamsIntruded,
    Fault::Retention,
    Fault::MemoryCrowded,
    Fault::GuaranteeSwitched,
];

/// Plans one fault between now and the end of all faults.
pub fn plan_fault(scene: &Scene) {
    let world = &scene.world;
    let at = world.draw_span(FAULTS);
    let span = world.draw_span(Duration::from_secs(14)).min(FAULTS - at);
    let kind = KINDS[world.draw(|random| random.random_range(0..KINDS.len()))];
    let scene = scene.clone();
    world.after(at, move |world| strike(&scene, world, kind, span));
}

fn strike(scene: &Scene, world: &World, kind: Fault, span: Duration) {
    world.note(|| format!("fault: {kind:?} for {span:?}"));
    let until = world.now() + span;
    let running = scene.running();
    let victim = (!running.is_empty()).then(|| running[world.draw(|random| random.random_range(0..running.len()))]);
    let restart = |after: Duration| {
        let scene = scene.clone();
        world.after(after, move |_| scene.start());
    };
    let later = |before: &mut Duration| *before = until.max(*before);
    match (kind, victim) {
        (Fault::StandsStill, Some(victim)) => scene.freeze(victim, span),
        (Fault::Killed, Some(victim)) => {
            scene.kill(victim);
            restart(span);
        }
        (Fault::Stopped, Some(victim)) => {
            scene.stop(victim);
            restart(span);
        }
        (Fault::OneMore, _) if running.len() < 5 => scene.start(),
        (Fault::StandsStill | Fault::Killed | Fault::Stopped | Fault::OneMore, _) => {}
        (Fault::GroupAway, _) => scene.group.away(until),
        (Fault::CommitsRefused, _) => {
            scene.group.refuse(until);
            // A partition that moves meanwhile is given up with a refused commit.
            let scene = scene.clone();
            world.after(span / 2, move |_| scene.group.disturb(false));
        }
        (Fault::Shuffled, _) => scene.group.disturb(false),
        (Fault::ThrownOut, _) => thrown_out(scene, world, span),
        (Fault::SinkSlow, _) => scene.warehouse.trouble(|troubles| later(&mut troubles.slow)),
        (Fault::SinkDead, _) => scene.warehouse.trouble(|troubles| later(&mut troubles.dead)),
        (Fault::SinkFlaky, _) => scene.warehouse.trouble(|troubles| later(&mut troubles.flaky)),
        (Fault::Forbidden, _) => scene.warehouse.trouble(|troubles| later(&mut troubles.forbidden)),
        (Fault::TablesFlaky, _) => scene.warehouse.trouble(|troubles| later(&mut troubles.rest)),
        (Fault::RegistryAway, _) => scene.registry.away(until),
        (Fault::LettersRefused, _) => scene.letters.down(until, false),
        (Fault::LettersSilent, _) => scene.letters.down(until, true),
        (Fault::TableDeleted, _) => {
            scene.warehouse.delete(scene);
            if scene.warehouse.chance(0.5) {
                let scene = scene.clone();
                world.after(span / 4, move |_| scene.warehouse.make_again());
            }
        }
        (Fault::StreamsForgotten, _) => streams_forgotten(scene, world, span),
        (Fault::StreamsIntruded, _) => scene.warehouse.streams.intrude(),
        (Fault::Retention, _) => retention(scene, world, span),
        (Fault::MemoryCrowded, _) => memory_crowded(scene, world, span),
        (Fault::GuaranteeSwitched, _) => {
            let switched = scene.settings.lock().switched();
            scene.roll_out(switched);
            if scene.warehouse.chance(0.5) {
                let scene = scene.clone();
                world.after(span, move |_| {
                    let back = scene.settings.lock().switched();
                    scene.roll_out(back);
                });
            }
        }
    }
}

/// Days go by, in which streams are forgotten that nobody uses: all of them while nobody is there, or some under their owners.
fn streams_forgotten(scene: &Scene, world: &World, span: Duration) {
    let nobody = scene.warehouse.chance(0.5);
    for process in if nobody { scene.running() } else { Vec::new() } {
        scene.kill(process);
        let scene = scene.clone();
        world.after(span / 4, move |_| scene.start());
    }
    let forget = |scene: &Scene, share: f64| {
        let forgotten = scene.warehouse.streams.forget_idle(|| scene.warehouse.chance(share));
        scene.oracle.see(|seen| seen.forgotten += forgotten);
    };
    if nobody {
        // What was on its way has arrived long since.
        let scene = scene.clone();
        world.after(span / 5, move |_| forget(&scene, 1.0));
    } else {
        forget(scene, 0.7);
    }
}

/// A member is thrown out, and perhaps again and again, while its rows are still on their way.
fn thrown_out(scene: &Scene, world: &World, span: Duration) {
    for step in 0..world.draw(|random| random.random_range(1..6)) {
        let scene = scene.clone();
        world.after(span / 6 * step, move |_| scene.group.disturb(true));
    }
}

/// Retention takes records of one partition, in some steps.
fn retention(scene: &Scene, world: &World, span: Duration) {
    let partition = world.draw(|random| random.random_range(0..scene.log.partitions()));
    for step in 0..world.draw(|random| random.random_range(1..4)) {
        let scene = scene.clone();
        world.after(span / 3 * step, move |world| {
            let (low, high) = (scene.log.low(partition), scene.log.high(partition, world.now()));
            let below = world.draw(|random| random.random_range(low..=high));
            world.note(|| format!("retention: partition {partition} begins at {below}"));
            scene.log.expire(partition, below);
        });
    }
}

/// What the processes that run now hold is near their limits, or far above.
fn memory_crowded(scene: &Scene, world: &World, span: Duration) {
    let budgets: Vec<_> = scene.fleet.lock().values().map(|running| running.budget.clone()).collect();
    for budget in budgets {
        let limit = budget.limit_bytes();
        budget.observe_resident(world.draw(|random| [limit * 3 / 4, limit, limit * 2, limit + (64 << 20)][random.random_range(0..4)]));
        world.after(span, move |_| budget.observe_resident(0));
    }
}
