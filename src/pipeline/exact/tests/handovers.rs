//! Clean handovers, and connectors that change what they promise.

use std::sync::Arc;

use super::owner::{EXACT, Owner};
use super::world::World;
use super::{fine, value};
use crate::kafka::StartOffset;
use crate::pipeline::exact::intents::Intents;

/// Whoever gives a partition back leaves nothing in doubt, and its successor begins where it ended.
#[test]
fn a_clean_handover_leaves_an_empty_window() {
    for turns in [3, 10, 17, 40, 90] {
        let world = World::new((0..200).map(value).collect(), None);
        let mut first = Owner::start(&world, EXACT);
        (0..turns).for_each(|_| first.turn());
        first.give_back();
        let committed = world.state.lock().committed.clone();
        if let Some((offset, metadata)) = committed {
            let intents = Intents::decode(&metadata.unwrap()).unwrap();
            assert_eq!(intents.window, [], "after {turns} turns");
            assert!(intents.base_next <= offset, "{intents:?} at {offset}");
        }
        assert!(Owner::start(&world, EXACT).run());
        world.judge().unwrap();
    }
}

/// To exactly once and back, with a crash before each change: at least once takes over what it finds, and doubles none of it.
#[test]
fn a_connector_may_change_its_promise() {
    for turns in [4, 9, 14, 25, 60] {
        let world = World::new((0..1200).map(fine).collect(), None);
        let mut first = Owner::start(&world, EXACT);
        (0..turns).for_each(|_| first.turn());
        drop(first);
        let landed = world.state.lock().rows.len();
        let mut second = Owner::start(&world, "guarantee = \"at-least-once\"");
        assert!(second.run());
        world.judge().unwrap_or_else(|wrong| panic!("after {turns} turns: {wrong}"));
        let state = world.state.lock();
        assert_eq!(state.unguarded as usize, 1200 - landed, "its own rows go to the default stream");
        assert_eq!(state.committed, Some((1200, None)), "and its commits carry nothing");
        assert!(state.streams.values().all(|stream| stream.finalized), "whoever wrote there cannot go on");
    }
}

/// Rows of at-least-once that were committed are not sent again; the change begins at the committed offset.
#[test]
fn exactly_once_begins_where_at_least_once_committed() {
    let world = World::new((0..100).map(fine).collect(), None);
    world.state.lock().committed = Some((60, None));
    assert!(Owner::start(&world, EXACT).run());
    assert_eq!(world.state.lock().rows.len(), 40);
    assert!(world.judge().is_err(), "the first 60 are not there: nobody sent them in this test");
}

/// The offset that the group has may lag what has landed: the intents know better; and an offset set further on by hand counts.
#[test]
fn the_further_of_offset_and_boundary_counts() {
    for (offset, rows) in [(10, 50), (70, 30)] {
        let world = World::new((0..100).map(fine).collect(), None);
        let intents = Intents { base_next: 50, ..Intents::default() };
        world.state.lock().committed = Some((offset, Some(Arc::clone(&intents.encode()))));
        assert!(Owner::start(&world, EXACT).run());
        assert_eq!(world.state.lock().rows.len(), rows, "from {offset}");
    }
}

/// A partition that begins again behind what retention took, or at its end, does not say that the group has that offset before it is so;
/// and the group has it without a further record.
#[test]
fn a_beginning_that_the_group_does_not_have_is_committed_without_a_record() {
    let begins_anew = Intents::default().encode();
    // A former owner's append that is not among the rows: where it was to go, retention has taken its records.
    let announced = Intents { stream: Some(Arc::from("gone")), base_next: 50, ..Intents::default() }.encode();
    for metadata in [None, Some(begins_anew), Some(announced)] {
        for start in [StartOffset::Asked(100), StartOffset::Latest(100)] {
            for delivery in [EXACT, "guarantee = \"at-least-once\""] {
                let world = World::new((0..100).map(fine).collect(), None);
                world.state.lock().committed = Some((60, metadata.clone()));
                let mut owner = Owner::start_at(&world, delivery, start);
                assert_eq!(owner.claims(), None, "{start:?}, {delivery}");
                assert!(owner.run(), "the group goes to {start:?}");
                assert_eq!(owner.claims(), Some(100));
                assert_eq!(world.state.lock().rows.len(), 0, "nothing is read again");
                let committed = world.state.lock().committed.clone();
                if let Some((_, Some(metadata))) = committed {
                    assert!(Intents::decode(&metadata).unwrap().base_next <= 100);
                }
                drop(owner);
                assert!(Owner::start(&world, delivery).run_some(20), "and whoever comes next begins there");
                assert_eq!(world.state.lock().rows.len(), 0);
            }
        }
    }
}
