//! What nobody can know: forgotten streams, counts on no boundary, metadata that make no sense. Held, or replayed and counted; never
//! guessed.

use std::sync::Arc;

use super::fine;
use super::owner::{EXACT, Owner};
use super::world::{Appends, Stop, World};
use crate::pipeline::exact::intents::{Intent, Intents};

const REPLAY: &str = "guarantee = \"exactly-once\"\non_lost_stream = \"at-least-once\"";

/// An owner that died with announced appends.
fn died_in_mid_window(records: usize) -> Arc<World> {
    for at in 4.. {
        let world = World::new((0..records).map(fine).collect(), None);
        world.state.lock().stop = Some(Stop { at, after: true });
        let mut owner = Owner::start(&world, EXACT);
        assert!(!owner.run(), "no death found");
        drop(owner);
        let mut state = world.state.lock();
        state.stopped = None;
        let metadata = state.committed.as_ref().and_then(|(_, metadata)| metadata.clone());
        let intents = metadata.and_then(|text| Intents::decode(&text).ok());
        if state.steps.last() == Some(&"append") && intents.is_some_and(|intents| !intents.window.is_empty()) {
            drop(state);
            return world;
        }
    }
    unreachable!()
}

#[test]
fn a_forgotten_stream_holds_until_the_user_chooses() {
    let world = died_in_mid_window(60);
    world.state.lock().streams.values_mut().for_each(|stream| stream.forgotten = true);
    let before = world.state.lock().committed.clone();
    let mut second = Owner::start(&world, EXACT);
    let said = second.run_until_held("stream_lost");
    for part in ["t[0]", "streams/0", "cannot be known", "StreamNotFound", "on_lost_stream = \"at-least-once\""] {
        assert!(said.contains(part), "no `{part}` in {said}");
    }
    (0..50).for_each(|_| second.turn());
    let rows = world.state.lock().rows.len();
    assert_eq!(world.state.lock().committed, before, "what is known stays");
    second.give_back();
    assert_eq!(world.state.lock().committed.as_ref().map(|(_, m)| m.clone()), before.map(|(_, m)| m), "also when the partition goes");
    let mut third = Owner::start(&world, EXACT);
    third.run_until_held("stream_lost");
    drop(third);
    assert_eq!(world.state.lock().rows.len(), rows, "nothing was guessed");

    let mut chosen = Owner::start(&world, REPLAY);
    assert!(chosen.run());
    let again = world.state.lock().rows.len() - 60;
    assert!((1..=40).contains(&again), "{again} rows a second time: those that were announced and had landed");
}

#[test]
fn a_count_on_no_boundary_holds() {
    for rows in [-1, 1] {
        let world = died_in_mid_window(60);
        for stream in world.state.lock().streams.values_mut() {
            stream.rows = stream.rows.saturating_add_signed(rows);
        }
        let said = Owner::start(&world, EXACT).run_until_held("stream_lost");
        assert!(said.contains("but not this many"), "{said}");
    }
}

#[test]
fn another_writer_in_its_stream_is_noticed_by_an_owner_at_work() {
    let world = World::new((0..2000).map(fine).collect(), None);
    let mut owner = Owner::start(&world, EXACT);
    while world.state.lock().rows.is_empty() {
        owner.turn();
    }
    world.state.lock().streams.values_mut().for_each(|stream| stream.rows += 3);
    let said = owner.run_until_held("stream_lost");
    assert!(said.contains("but not this many"), "{said}");
}

/// Nothing of an idle stream is unknown: a new one takes its place.
#[test]
fn a_stream_that_is_forgotten_while_nothing_is_announced_costs_nothing() {
    let world = World::new((0..60).map(fine).collect(), None);
    let mut owner = Owner::start(&world, EXACT);
    let mut turns = 0;
    while !owner.run_some(25) {
        turns += 1;
        assert!(turns < 500, "stuck at {:?}", owner.hold());
        let mut state = world.state.lock();
        let idle = state.committed.as_ref().is_some_and(|(_, text)| text.as_deref().is_some_and(|text| !text.contains('+')));
        if idle && state.streams.values().all(|stream| !stream.forgotten) {
            state.streams.values_mut().for_each(|stream| stream.forgotten = true);
        }
    }
    world.judge().unwrap();
}

#[test]
fn metadata_that_make_no_sense_hold_and_name_the_choice() {
    let window = vec![Intent { rows: 3, next_offset: 23 }];
    let mut garbled = Intents { stream: Some(Arc::from("s")), base_rows: 1, base_next: 20, window }.encode().to_string();
    garbled = garbled.replace("3+3", "4+3");
    for (text, what) in [("flink 4", "another program"), (garbled.as_str(), "damaged"), ("millrace/7 x", "later version")] {
        let world = World::new((0..60).map(fine).collect(), None);
        world.state.lock().committed = Some((20, Some(Arc::from(text))));
        let mut owner = Owner::start(&world, EXACT);
        let said = owner.run_until_held("stream_lost");
        assert!(said.contains(what) && said.contains("on_lost_stream"), "{said}");
        (0..20).for_each(|_| owner.turn());
        assert_eq!(world.state.lock().committed, Some((20, Some(Arc::from(text)))));
        assert!(world.state.lock().rows.is_empty());
        drop(owner);
        assert!(Owner::start(&world, REPLAY).run());
        assert_eq!(world.state.lock().rows.len(), 40);
    }
}

/// Without any append announced, even a stream that is gone is no question.
#[test]
fn an_empty_window_needs_no_stream() {
    let world = World::new((0..60).map(fine).collect(), None);
    let intents =
        Intents { stream: Some(Arc::from("projects/p/datasets/d/tables/t/streams/gone")), base_rows: 9, base_next: 20, window: Vec::new() };
    world.state.lock().committed = Some((20, Some(intents.encode())));
    assert!(Owner::start(&world, EXACT).run());
    assert_eq!(world.state.lock().rows.len(), 40);
}

/// `offset.metadata.max.bytes` below what intents need: said with the setting and the bytes, nothing sent, back by itself.
#[test]
fn a_broker_that_takes_too_little_metadata_holds_and_says_which_setting() {
    let world = World::new((0..60).map(fine).collect(), None);
    // Room for an offset's own line, none for a stream's name.
    world.state.lock().metadata_bytes_max = Some(60);
    let mut owner = Owner::start(&world, EXACT);
    let said = owner.run_until_held("offset_metadata");
    for part in ["t[0]", "offset.metadata.max.bytes", "4096", "3072", "at-least-once"] {
        assert!(said.contains(part), "no `{part}` in {said}");
    }
    (0..50).for_each(|_| owner.turn());
    assert_eq!(world.state.lock().rows, Vec::<Vec<u8>>::new(), "what is not announced is not sent");
    assert!(owner.hold().is_some_and(|(cause, _)| cause == "offset_metadata"), "{:?}", owner.hold());
    world.state.lock().metadata_bytes_max = Some(4096);
    assert!(owner.run(), "it goes on by itself");
    world.judge().unwrap();
}

/// The brokers refuse intents while the writer waits to send an append again, and takes no notice of anything else: said as soon as it
/// does.
#[test]
fn intents_that_are_refused_while_an_append_is_tried_again_are_said_all_the_same() {
    let world = World::new((0..400).map(fine).collect(), None);
    world.state.lock().appends = Appends::Unanswered;
    let refused = || world.state.lock().refused_appends;
    let mut owner = Owner::start(&world, EXACT);
    owner.turn_until(true, "an append on its way", |_| refused() > 0);
    owner.turn_until(false, "more announced, and not committed yet", Owner::announces);
    {
        let mut state = world.state.lock();
        (state.metadata_bytes_max, state.appends) = (Some(60), Appends::Refused);
    }
    let before = refused();
    owner.turn_until(false, "an append tried again", |_| refused() >= before + 2);
    (0..20).for_each(|_| owner.turn());
    world.state.lock().appends = Appends::Taken;
    owner.run_until_held("offset_metadata");
    world.state.lock().metadata_bytes_max = Some(4096);
    assert!(owner.run(), "it goes on by itself");
    world.judge().unwrap();
}

/// Two reasons to wait: the end of one is not the end of the other.
#[test]
fn intents_that_are_refused_hold_on_when_letters_go_on() {
    let reject = |n: usize| if n == 2 { Some(format!("{{\"n\": {n}, \"s\": \"reject {n}.\"}}").into_bytes()) } else { fine(n) };
    let world = World::new((0..400).map(reject).collect(), None);
    world.state.lock().appends = Appends::Unanswered;
    let mut owner = Owner::start(&world, EXACT);
    owner.turn_until(true, "an append on its way", |_| world.state.lock().refused_appends > 0);
    owner.turn_until(false, "more announced, and not committed yet", Owner::announces);
    world.state.lock().metadata_bytes_max = Some(60);
    owner.run_until_held("offset_metadata");
    {
        let mut state = world.state.lock();
        (state.letters_refused, state.appends) = (true, Appends::Taken);
    }
    owner.run_until_held("dead_letter_topic");
    world.state.lock().letters_refused = false;
    owner.run_until_held("offset_metadata");
    world.state.lock().metadata_bytes_max = Some(4096);
    assert!(owner.run(), "it goes on by itself");
    world.judge().unwrap();
}
