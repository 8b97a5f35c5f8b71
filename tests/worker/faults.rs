//! Each class of fault once, alone, against a running worker: what it does about it, what it says, and that no row is lost by it.

use std::time::Duration;

use millrace::embedded::bigquery::{FaultClass, Settings};
use millrace::pipeline::ConnectorState;

use super::fault_table::{Expected, expected};
use super::rig::{Rig, Running, SOON, json_connector, metric, wait_until};
use crate::machine::Watch;

/// A topic and a table for each class.
fn name(class: FaultClass) -> String {
    serde_json::to_value(class).unwrap().as_str().unwrap().to_owned()
}

fn is_rest(class: FaultClass) -> bool {
    use Expected::{RestHold, RestLongHold, RestLook, RestRetry};
    matches!(expected(class), RestHold(_) | RestLongHold(_) | RestLook | RestRetry)
}

/// One connector with a topic and a table for each class of fault.
fn start<'a>(rig: &'a Rig, name: &str, classes: &[FaultClass]) -> Running<'a> {
    for class in classes {
        rig.topic(&self::name(*class), 1, 1);
    }
    let topics: Vec<String> = classes.iter().map(|class| format!("\"{}\"", self::name(*class))).collect();
    rig.start(name, &json_connector(&topics.join(", "), "${topic}", "faults.dead"))
}

fn table_metric(metric_name: &str, class: FaultClass) -> f64 {
    metric(metric_name, &[("table", &format!("p.d.{}", name(class)))])
}

fn errors(class: FaultClass, of: &str) -> f64 {
    metric("millrace_table_append_errors_total", &[("table", &format!("p.d.{}", name(class))), ("class", of)])
}

fn holds(connector: &str, cause: &str) -> f64 {
    metric("millrace_holds_total", &[("connector", connector), ("cause", cause)])
}

/// Every row once; twice at most as often as was counted.
fn assert_complete(rig: &Rig, class: FaultClass, ids: std::ops::Range<i64>) {
    let found = rig.ids(&name(class));
    assert!(ids.clone().all(|id| found.contains_key(&id)), "{class:?}: {} of {ids:?}", found.len());
    let again: u64 = found.values().map(|copies| u64::from(copies - 1)).sum();
    let counted = table_metric("millrace_possible_duplicate_rows_total", class);
    assert!(again as f64 <= counted, "{class:?}: {again} rows came again, {counted} were counted");
}

#[test]
fn each_fault_of_an_append_alone() {
    let rig = Rig::new(1, Settings::default());
    let classes: Vec<FaultClass> =
        FaultClass::ALL.iter().copied().filter(|class| !is_rest(*class) && !matches!(expected(*class), Expected::NeverMet)).collect();
    assert!(classes.len() > 30, "{}", classes.len());
    let connector = start(&rig, "faults", &classes);
    for class in &classes {
        rig.produce_ids(&name(*class), 0, 0..3);
    }
    for class in &classes {
        rig.wait_for_ids(&name(*class), 0..3);
    }
    // Made a moment ago, a table gets the benefit of the doubt: what write servers say is tried again. That time is over after this.
    std::thread::sleep(Duration::from_millis(1_500));
    for class in classes {
        one_append(&rig, &connector, class);
    }
    connector.wait_for_state(ConnectorState::Running, SOON);
    assert!(connector.status().partitions.iter().all(|partition| partition.hold.is_none()));
    assert!(connector.status().tables.iter().all(|table| table.last_error.is_none()), "{:?}", connector.status().tables);
    assert_eq!(connector.status().dead_letters, 0, "no fault of BigQuery's is a dead letter");
    connector.stop();
}

fn one_append(rig: &Rig, connector: &Running<'_>, class: FaultClass) {
    let faults = rig.bigquery.faults();
    let connects = matches!(class, FaultClass::ConnectionQuota | FaultClass::ConnectUnavailable);
    let causes = |cause| holds("faults", cause);
    let before = match expected(class) {
        Expected::Hold(cause, _) => causes(cause),
        Expected::Stop(_) => causes("unknown_error"),
        _ => 0.0,
    };
    let table = name(class);
    if connects {
        // The next connection is refused: one must be opened.
        faults.fire_next(class, None);
        faults.fire_next(FaultClass::ConnectionDrain, Some(&format!("d.{table}")));
    } else {
        faults.fire_next(class, Some(&format!("d.{table}")));
    }
    rig.produce_ids(&table, 0, 3..10);
    let (mut said, mut looks, begun) = (None, 0, Watch::start());
    loop {
        let status = connector.status();
        let partition = status.partitions.iter().find(|partition| partition.topic == table);
        said = said.take().or_else(|| partition.and_then(|p| p.hold.clone()).filter(|hold| hold.cause != "plan_pending"));
        looks += 1;
        // A hold may last for a tenth of a second only: the table is read now and then, the status all the time.
        if looks % 10 == 0 {
            let found = rig.ids(&table);
            if (3..10).all(|id| found.contains_key(&id)) {
                break;
            }
        }
        assert!(begun.elapsed() < SOON, "{class:?}: not every row within {SOON:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(faults.fired().get(&class).is_some_and(|fired| *fired > 0), "{class:?} did not fire");
    let retries = table_metric("millrace_table_append_retries_total", class);
    match expected(class) {
        Expected::Retry(of) | Expected::Split(of) | Expected::Evolve(of) => {
            assert!(errors(class, of) >= 1.0 && retries >= 1.0, "{class:?}: {} errors of {of}, {retries} retries", errors(class, of));
            assert_eq!(said, None, "{class:?}");
        }
        Expected::RetryLanded(of) => {
            // The rows are there before anybody misses their answer.
            wait_until(&format!("{class:?}: an error of {of}"), SOON, || errors(class, of) >= 1.0);
            wait_until(&format!("{class:?}: counted"), SOON, || table_metric("millrace_possible_duplicate_rows_total", class) >= 1.0);
        }
        Expected::Hold(cause, of) => {
            assert!(errors(class, of) >= 1.0, "{class:?}: no error of {of}");
            assert!(causes(cause) > before, "{class:?}: no hold for {cause}");
            let said = said.unwrap_or_else(|| panic!("{class:?}: status showed no hold"));
            assert!(said.cause == cause && said.message.contains(';'), "{class:?}: {said:?} says what to do");
        }
        Expected::Stop(of) => {
            assert!(errors(class, of) >= 1.0 && causes("unknown_error") > before, "{class:?}");
            let said = said.unwrap_or_else(|| panic!("{class:?}: status showed no hold"));
            assert!(said.message.contains("please report it"), "{class:?}: {said:?}");
        }
        Expected::Nothing => assert!(said.is_none() && retries == 0.0, "{class:?}: {said:?}"),
        other => panic!("{class:?}: {other:?} is none of an append's"),
    }
    assert_complete(rig, class, 0..10);
}

#[test]
fn each_fault_of_a_rest_call_alone() {
    let rig = Rig::new(1, Settings::default());
    let classes: Vec<FaultClass> = FaultClass::ALL.iter().copied().filter(|class| is_rest(*class)).collect();
    assert!(classes.len() > 25, "{}", classes.len());
    let connector = start(&rig, "rest", &classes);
    connector.wait_for_state(ConnectorState::Running, SOON);
    for class in &classes {
        rig.bigquery.faults().fire_next(*class, Some(&format!("d.{}", name(*class))));
        // Not awaited: a hold may last for a tenth of a second only.
        rig.send_ids(&name(*class), 0, 0..5);
    }
    let mut said = std::collections::BTreeMap::new();
    let done = |class: FaultClass| (0..5).all(|id| rig.ids(&name(class)).contains_key(&id));
    let waits_long = |class: FaultClass| matches!(expected(class), Expected::RestLongHold(_));
    let (begun, mut left) = (Watch::start(), classes.clone());
    while let Some(class) = left.first().copied() {
        assert!(begun.elapsed() < Duration::from_secs(60), "every row but those of tables that hold for long: not {left:?}");
        for partition in connector.status().partitions {
            let hold = partition.hold.filter(|hold| hold.cause != "plan_pending");
            hold.map(|hold| said.entry(partition.topic).or_insert(hold));
        }
        // One table a turn: while all are read, a hold comes and goes.
        let over = if waits_long(class) { said.contains_key(&name(class)) } else { done(class) };
        if over {
            left.remove(0);
        } else {
            left.rotate_left(1);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let (mut held, mut seen) = (std::collections::BTreeMap::new(), 0);
    for class in classes {
        assert!(rig.bigquery.faults().fired().get(&class).is_some_and(|fired| *fired > 0), "{class:?} did not fire");
        let said = said.get(&name(class));
        match expected(class) {
            Expected::RestRetry | Expected::RestLook => assert_eq!(said, None, "{class:?}"),
            Expected::RestHold(cause) | Expected::RestLongHold(cause) => {
                *held.entry(cause).or_insert(0.0) += 1.0;
                // A short one may be over before anybody looks: it is counted all the same (below).
                assert!(said.is_some() || !waits_long(class), "{class:?}: status showed no hold");
                seen += usize::from(said.is_some());
                assert!(said.is_none_or(|said| said.cause == cause && said.message.contains(&name(class))), "{class:?}: {said:?}");
            }
            other => panic!("{class:?}: {other:?} is none of a REST call's"),
        }
        if waits_long(class) {
            assert!(rig.ids(&name(class)).is_empty(), "{class:?}");
        } else {
            assert_complete(&rig, class, 0..5);
        }
    }
    for (cause, classes) in held {
        assert!(holds("rest", cause) >= classes, "{classes} classes hold for {cause}, {} holds were counted", holds("rest", cause));
    }
    assert!(seen > 5, "status showed {seen} of the holds");
    assert_eq!(connector.status().dead_letters, 0, "no fault of BigQuery's is a dead letter");
    assert_eq!(connector.status().state, ConnectorState::Holding, "those for long");
}
