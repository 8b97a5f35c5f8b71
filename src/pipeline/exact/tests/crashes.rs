//! An owner stops before and after every single step it makes, and dies there or wakes later; its successor does the same.

use std::sync::Arc;

use super::owner::{EXACT, Owner};
use super::value;
use super::world::{Stop, World};

const RECORDS: usize = 40;

fn steps_of(world: &Arc<World>) -> Vec<&'static str> {
    world.state.lock().steps.clone()
}

fn undisturbed() -> Vec<&'static str> {
    let world = World::new((0..RECORDS).map(value).collect(), None);
    assert!(Owner::start(&world, EXACT).run());
    world.judge().unwrap();
    steps_of(&world)
}

#[test]
fn undisturbed_every_record_is_one_row_and_nothing_goes_to_the_default_stream() {
    let steps = undisturbed();
    for step in ["create", "commit intents", "append", "letter"] {
        assert!(steps.contains(&step), "{steps:?}");
    }
    let first = |what| steps.iter().position(|step| *step == what).unwrap();
    assert!(first("create") < first("commit intents") && first("commit intents") < first("append"), "{steps:?}");
}

/// One owner dies, or is paused and wakes while its successor works, at every step.
#[test]
fn an_owner_may_stop_anywhere() {
    let steps = undisturbed().len() as u64 + 4;
    let mut takeovers = 0;
    for at in 0..steps {
        for (after, wakes) in [(false, false), (true, false), (false, true), (true, true)] {
            let world = World::new((0..RECORDS).map(value).collect(), None);
            world.state.lock().stop = Some(Stop { at, after });
            let mut first = Owner::start(&world, EXACT);
            if first.run() {
                continue;
            }
            let mut second = Owner::start(&world, EXACT);
            if wakes {
                // In the middle of its successor's work: what it had asked for comes late, and it goes on.
                for turn in 0..60 {
                    second.turn();
                    if turn == at % 7 {
                        world.thaw();
                    }
                    first.turn();
                }
            } else {
                drop(first);
                world.state.lock().stopped = None;
            }
            assert!(second.run());
            world.judge().unwrap_or_else(|wrong| panic!("stop at {at}, after: {after}, wakes: {wakes}: {wrong}"));
            assert_eq!(world.state.lock().unguarded, 0);
            takeovers += u32::from(steps_of(&world).contains(&"finalize"));
        }
    }
    assert!(takeovers > 60, "{takeovers} takeovers: too few to show anything");
}

/// The successor stops as well, at every one of its first steps: finalize, new stream, its commit, first append.
#[test]
fn the_successor_may_stop_anywhere_too() {
    let mut twice = 0;
    for at in [4, 7, 9, 12, 15, 18] {
        for further in 0..10 {
            for (after, wakes) in [(false, false), (true, true), (true, false), (false, true)] {
                let world = World::new((0..RECORDS).map(value).collect(), None);
                world.state.lock().stop = Some(Stop { at, after: true });
                let mut first = Owner::start(&world, EXACT);
                assert!(!first.run());
                {
                    let mut state = world.state.lock();
                    state.stopped = None;
                    let at = state.steps.len() as u64 + further;
                    state.stop = Some(Stop { at, after });
                }
                let mut second = Owner::start(&world, EXACT);
                if second.run() {
                    continue;
                }
                let mut third = Owner::start(&world, EXACT);
                if wakes {
                    for turn in 0..60 {
                        third.turn();
                        if turn == further {
                            world.thaw();
                        }
                        second.turn();
                        first.turn();
                    }
                } else {
                    drop((first, second));
                    world.state.lock().stopped = None;
                }
                assert!(third.run());
                world.judge().unwrap_or_else(|wrong| panic!("stops at {at} and {further} later, after: {after}: {wrong}"));
                twice += 1;
            }
        }
    }
    assert!(twice > 100, "{twice} of them stopped twice");
}

/// Lost answers, refused appends and commits, lost creations and finalizations, and a death now and then: by seeds.
#[test]
fn faults_of_all_kinds_and_deaths_leave_each_record_once() {
    let mut ended = 0;
    for seed in 0..60 {
        let world = World::new((0..120).map(value).collect(), Some(seed));
        for life in 0.. {
            let at = world.state.lock().steps.len() as u64 + 9 + (seed * 7 + life * 5) % 23;
            world.state.lock().stop = (life < 4).then_some(Stop { at, after: seed % 2 == 0 });
            let mut owner = Owner::start(&world, EXACT);
            if owner.run() {
                break;
            }
            drop(owner);
            world.state.lock().stopped = None;
        }
        world.judge().unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        ended += steps_of(&world).iter().filter(|step| **step == "finalize").count();
    }
    assert!(ended > 200, "{ended} streams ended");
}
