//! Whole demos, judged by their exit code and their report.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::{Running, millrace, processes_in, text, turn};

/// Runs a demo with these arguments, which spaces separate, to its end; gives its exit code, the JSON object of the last line, and all it
/// printed.
pub fn demo(arguments: &str) -> (i32, Value, String) {
    let arguments: Vec<&str> = ["demo", "--report", "json"].into_iter().chain(arguments.split(' ')).collect();
    let output = millrace(&arguments).output().unwrap();
    let all = text(&output);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let report = stdout.lines().last().and_then(|l| serde_json::from_str(l).ok()).unwrap_or_else(|| panic!("no report:\n{all}"));
    (output.status.code().unwrap(), report, all)
}

pub fn number(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap_or_else(|| panic!("{key} is no number in {report}"))
}

/// What every complete run must show.
pub fn assert_complete(exit: i32, report: &Value, all: &str) {
    assert_eq!(exit, 0, "{all}");
    assert_eq!(report["verdict"], "complete", "{all}");
    assert_eq!(number(report, "missing"), 0, "{all}");
    assert_eq!(number(report, "wrong_content"), 0, "{all}");
    assert_eq!(number(report, "dead_letters"), number(report, "bad_records"), "{all}");
    assert_eq!(number(report, "produced"), number(report, "durable_distinct") + number(report, "dead_letters"), "{all}");
    assert!(number(report, "duplicates") <= number(report, "duplicates_bound"), "{all}");
    assert!(report["freshness_ms"]["p50"].as_u64() <= report["freshness_ms"]["p99"].as_u64(), "{all}");
    assert!(report["freshness_ms"]["p50"].is_u64(), "{all}");
}

#[test]
fn a_plain_demo_delivers_every_record_once() {
    let _turn = turn();
    let (exit, report, all) = demo("--for 8s --scale off --load steady --rate 4000 --partitions 4 --bad-records 1%");
    assert_complete(exit, &report, &all);
    assert_eq!(number(&report, "duplicates"), 0, "{all}");
    assert!(number(&report, "produced") > 8_000, "{all}");
    assert!(number(&report, "dead_letters") > 50, "{all}");
    assert_eq!((report["workers"]["min"].as_u64(), report["workers"]["max"].as_u64()), (Some(2), Some(2)), "{all}");
    assert_eq!(report["decisions"].as_array().map(Vec::len), Some(0), "{all}");
    // Two workers for eight seconds and the drain; four partitions.
    let (paid, each) = (report["worker_seconds"].as_f64().unwrap(), report["worker_seconds_one_per_partition"].as_f64().unwrap());
    assert!(paid > 16.0 && (each / paid - 2.0).abs() < 0.1, "{all}");
}

#[test]
fn killed_workers_lose_nothing_and_double_no_more_than_the_bound() {
    let _turn = turn();
    let (exit, report, all) = demo("--for 16s --scale off --load steady --rate 3000 --partitions 4 --workers 2 --kill-every 5s --seed 3");
    assert_complete(exit, &report, &all);
    assert!(number(&report, "kills") >= 2, "{all}");
    assert_eq!((report["workers"]["min"].as_u64(), report["workers"]["max"].as_u64()), (Some(1), Some(2)), "{all}");
}

/// Ten seeds of the whole command stand in `docs/durability.md`.
#[test]
fn exactly_once_doubles_nothing_when_workers_are_killed_with_landed_appends_on_their_way() {
    let _turn = turn();
    let arguments = "--for 15s --scale off --load steady --rate 1500 --partitions 8 --workers 2 --guarantee exactly-once --kill-every 3s --faults heavy \
                     --landed-takeovers 5 --seed 4";
    let (exit, report, all) = demo(arguments);
    assert_complete(exit, &report, &all);
    assert_eq!((number(&report, "duplicates"), number(&report, "duplicates_bound")), (0, 0), "{all}");
    assert!(number(&report, "kills") >= 4, "{all}");
    let takeovers = &report["takeovers"];
    assert!(number(takeovers, "with_landed_appends") >= 5 && number(takeovers, "all") >= number(takeovers, "with_landed_appends"), "{all}");
    assert!(number(takeovers, "landed_appends") >= number(takeovers, "with_landed_appends"), "{all}");
}

#[test]
fn heavy_faults_lose_nothing_and_every_class_fires() {
    let _turn = turn();
    let (exit, report, all) =
        demo("--for 12s --scale off --load steady --rate 3000 --partitions 4 --faults heavy --bad-records 1% --seed 5");
    assert_complete(exit, &report, &all);
    let faults = report["faults"].as_object().unwrap();
    assert!(faults.len() > 15, "{faults:?}");
    assert!(faults.values().all(|n| n.as_u64() > Some(0)), "{faults:?}");
}

#[test]
fn an_interrupt_ends_with_the_reconciliation_and_leaves_nothing_running() {
    let _turn = turn();
    let mut demo = Running::start(&[
        "demo",
        "--for",
        "10m",
        "--scale",
        "off",
        "--load",
        "steady",
        "--rate",
        "1000",
        "--partitions",
        "2",
        "--report",
        "json",
    ]);
    let lines = demo.lines_until(|l| l.contains(" running: ") && !l.contains("out 0/s"));
    let folder = folder(&lines);
    assert_eq!(processes_in(&folder).len(), 2, "two workers run in {folder}");
    demo.signal(Signal::INT);
    let last = demo.lines_until(|l| l.starts_with('{')).pop().unwrap();
    assert_eq!(demo.0.wait().unwrap().code(), Some(0), "{last}");
    let report: Value = serde_json::from_str(&last).unwrap();
    assert!(number(&report, "produced") > 0 && number(&report, "missing") == 0, "{last}");
    assert!(processes_in(&folder).is_empty(), "workers outlived the demo");
    assert!(!std::path::Path::new(&folder).exists(), "{folder} is left");
}

#[test]
fn workers_do_not_outlive_a_demo_that_is_killed() {
    let _turn = turn();
    let mut demo = Running::start(&["demo", "--for", "10m", "--scale", "off", "--load", "steady", "--rate", "100", "--partitions", "2"]);
    let folder = folder(&demo.lines_until(|l| l.contains(" starting: ")));
    assert!(!processes_in(&folder).is_empty());
    demo.signal(Signal::KILL);
    let until = Instant::now() + Duration::from_secs(10);
    while !processes_in(&folder).is_empty() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
    }
    let left = processes_in(&folder);
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(left.is_empty(), "{left:?} run on without their demo");
}

#[test]
fn wrong_arguments_are_refused_with_code_2() {
    for arguments in [&["--bad-records", "101%"], &["--for", "soon"], &["--faults", "many"], &["--workers", "0"]] {
        let output = millrace(&[&["demo"], &arguments[..]].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
    }
}

/// The folder of the workers' files, from the demo's first lines.
fn folder(lines: &[String]) -> String {
    let line = lines.iter().find(|l| l.contains("workers' files ")).unwrap();
    line.split("workers' files ").nth(1).unwrap().trim().to_owned()
}
