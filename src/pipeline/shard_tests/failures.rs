//! What ends a thread elsewhere, or keeps a dead letter waiting, costs the records concerned and nothing else.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use super::{STUCK_AFTER, Stage, header, is_fine, stage, value};
use crate::flow::HoldCause;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn plain(n: usize) -> Option<Vec<u8>> {
    Some(format!("{{\"n\": {n}, \"s\": \"fine {n}\"}}").into_bytes())
}

/// How often each offset became a letter.
fn letters(stage: &Stage) -> BTreeMap<i64, u32> {
    let mut counts = BTreeMap::new();
    for letter in stage.post.letters.lock().iter() {
        *counts.entry(header(letter, "__connect.errors.offset").parse().expect("an offset")).or_default() += 1;
    }
    counts
}

#[test]
fn a_record_whose_decoding_panics_becomes_a_dead_letter_and_all_else_goes_on() {
    let runtime = runtime();
    let mut stage = stage(runtime.handle(), (0..200).map(plain).collect(), false, 1);
    stage.log.panics.lock().extend([(0, 1), (57, 1), (58, 1), (199, 1)]);
    stage.assign();
    stage.run(|_, _| {});
    assert_eq!(letters(&stage), BTreeMap::from([(0, 1), (57, 1), (58, 1), (199, 1)]));
    for letter in stage.post.letters.lock().iter() {
        assert_eq!(header(letter, "__connect.errors.exception.class.name"), "Bug");
        assert_eq!(header(letter, "__connect.errors.stage"), "decode");
        assert!(header(letter, "__connect.errors.exception.message").contains("please report it"));
        assert!(letter.value.as_ref().is_some_and(|value| value.starts_with(b"{\"n\": ")), "the record as it was");
    }
    let rows = stage.sink.rows.lock();
    assert!(rows.len() == 196 && rows.values().all(|copies| *copies == 1), "{} rows", rows.len());
    assert_eq!(stage.trouble.failure(), None);
}

#[test]
fn a_record_that_cannot_even_be_put_aside_fails_the_connector_and_says_where() {
    let runtime = runtime();
    let mut stage = stage(runtime.handle(), (0..200).map(plain).collect(), false, 1);
    stage.log.panics.lock().insert(57, 1_000);
    stage.assign();
    let started = Instant::now();
    while stage.trouble.failure().is_none() || stage.progress.head() != Some(57) {
        stage.turn();
        assert!(started.elapsed() < STUCK_AFTER, "{:?} at {:?}", stage.trouble.failure(), stage.progress.head());
    }
    let failure = stage.trouble.failure().expect("a failure");
    for part in ["thread ", "a_record_that_cannot", "t[0] offset 57", "please report it"] {
        assert!(failure.contains(part), "no `{part}` in {failure}");
    }
    assert!(stage.progress.hold().is_some_and(|hold| hold.message.contains("offset 57")), "{:?}", stage.progress.hold());
    assert_eq!(stage.sink.rows.lock().len(), 57, "what lies before it is durable");
}

#[test]
fn a_dead_letter_topic_that_is_down_is_a_hold_within_5_s_and_costs_no_second_letter() {
    let runtime = runtime();
    // One bad record (11), then a row that BigQuery rejects (17): both ways to the topic.
    let mut stage = stage(runtime.handle(), (0..400).map(value).collect(), false, 1);
    stage.post.silent.store(true, SeqCst);
    stage.assign();
    let mut worked = Duration::ZERO;
    while stage.progress.hold().is_none_or(|hold| hold.cause != HoldCause::DeadLetterTopic) {
        let turn = Instant::now();
        stage.turn();
        assert!(worked < Duration::from_secs(5), "{:?}", stage.progress.hold());
        std::thread::sleep(Duration::from_millis(1));
        // A turn that took longer is a machine that stood still.
        worked += turn.elapsed().min(Duration::from_millis(100));
    }
    let message = stage.progress.hold().expect("a hold").message;
    assert!(message.contains("dead-letter topic `c.dead` leaves dead letters of this partition unacknowledged"), "{message}");
    assert!(stage.progress.head() <= Some(11), "the head waits for the first letter: {:?}", stage.progress.head());
    assert_eq!(stage.turn(), 0, "nothing more is taken");
    stage.post.silent.store(false, SeqCst);
    stage.run(|_, _| {});
    assert!(stage.progress.hold().is_none(), "{:?}", stage.progress.hold());
    let expected: BTreeMap<i64, u32> = (0..400).filter(|n| matches!(n % 23, 11 | 17)).map(|n| (n, 1)).collect();
    assert_eq!(letters(&stage), expected, "each letter once");
    let rows = stage.sink.rows.lock();
    assert_eq!(rows.len(), (0..400).filter(|n| is_fine(*n)).count());
    assert!(rows.values().all(|copies| *copies == 1), "no row twice");
}

#[test]
fn refused_letters_are_sent_again_and_nothing_beside_them() {
    let runtime = runtime();
    let mut stage = stage(runtime.handle(), (0..200).map(value).collect(), false, 2);
    stage.post.refuse.store(20, SeqCst);
    stage.assign();
    stage.run(|_, _| {});
    assert!(letters(&stage).values().all(|copies| *copies == 1), "{:?}", letters(&stage));
    assert_eq!(letters(&stage).len(), (0..200).filter(|n| matches!(n % 23, 11 | 17)).count());
    assert!(stage.sink.rows.lock().values().all(|copies| *copies == 1));
}

#[test]
fn an_append_whose_delivery_panics_is_a_hold_that_says_so_and_is_sent_again() {
    let runtime = runtime();
    let mut stage = stage(runtime.handle(), (0..50).map(plain).collect(), false, 3);
    stage.sink.panics.store(1, SeqCst);
    stage.assign();
    let mut said = None;
    stage.run(|stage, _| said = said.take().or_else(|| stage.progress.hold().filter(|hold| hold.cause == HoldCause::UnknownError)));
    let said = said.expect("a hold").message;
    assert!(said.contains("to p.d.t panicked (on purpose)") && said.contains("please report it"), "{said}");
    assert_eq!(stage.sink.rows.lock().len(), 50);
    assert_eq!(stage.trouble.failure(), None);
}

#[test]
fn a_dropped_column_is_a_short_hold_and_the_rows_go_on_without_it() {
    let runtime = runtime();
    let values = (0..400).map(|n| Some(format!("{{\"n\": {n}}}").into_bytes())).collect();
    let mut stage = stage(runtime.handle(), values, false, 4);
    stage.sink.drop_after.store(5, SeqCst);
    stage.assign();
    let mut said = None;
    stage.run(|stage, _| said = said.take().or_else(|| stage.progress.hold().filter(|hold| hold.message.contains("columns changed"))));
    assert!(said.is_some(), "its partition holds meanwhile");
    let refused = stage.sink.failures.load(SeqCst);
    assert!((1..=64).contains(&refused), "{refused} appends refused: only those that were under way");
    let rows = stage.sink.rows.lock();
    assert!(rows.len() == 400 && rows.values().all(|copies| *copies == 1), "{} rows", rows.len());
    assert!(stage.post.letters.lock().is_empty());
}

/// More rejecting appends than may be on their way to the topic, and than a writer has in flight: the rows beside and behind them land all
/// the same.
#[test]
fn a_dead_letter_topic_that_is_down_does_not_keep_the_writer() {
    let runtime = runtime();
    let count = 7 * 420;
    let rejected = |n: usize| n % 7 == 3 && n < 7 * 400;
    let text = |n| if rejected(n) { "reject" } else { "fine" };
    let values = (0..count).map(|n| Some(format!("{{\"n\": {n}, \"s\": \"{}\"}}", text(n)).into_bytes())).collect();
    let mut stage = stage(runtime.handle(), values, false, 5);
    stage.post.silent.store(true, SeqCst);
    stage.assign();
    let fine = (0..count).filter(|n| !rejected(*n)).count();
    let started = Instant::now();
    while stage.sink.rows.lock().len() < fine || stage.progress.hold().is_none() {
        stage.turn();
        let landed = stage.sink.rows.lock().len();
        assert!(started.elapsed() < STUCK_AFTER, "{landed} of {fine} landed, {:?}", stage.progress.hold());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(stage.progress.hold().map(|hold| hold.cause), Some(HoldCause::DeadLetterTopic));
    stage.post.silent.store(false, SeqCst);
    stage.run(|_, _| {});
    assert_eq!(letters(&stage).len(), 400);
    assert!(letters(&stage).values().all(|copies| *copies == 1), "each letter once");
    assert!(stage.sink.rows.lock().values().all(|copies| *copies == 1), "no row twice");
}
