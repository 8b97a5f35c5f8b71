//! `millrace simulate`: equal arguments print equal bytes, the goal holds on seeds that the policy was not tuned on.

use std::process::Command;

use serde_json::Value;

fn simulate(args: &[&str]) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_millrace")).arg("simulate").args(args).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn rows(args: &[&str]) -> Vec<Value> {
    let report: Value = serde_json::from_str(&simulate(&[args, &["--json"]].concat())).unwrap();
    report["rows"].as_array().unwrap().clone()
}

fn figure(rows: &[Value], policy: &str, class: &str, name: &str, kind: &str) -> f64 {
    let row = rows.iter().find(|r| r["policy"] == policy && r["class"] == class).unwrap_or_else(|| panic!("{policy}, {class}: {rows:?}"));
    row[name][kind].as_f64().unwrap()
}

#[test]
fn equal_seeds_print_equal_bytes_and_others_do_not() {
    let args = ["--trace", "flash,saw", "--seeds", "1", "--length", "20m", "--partitions", "8"];
    let with = |seed: &str| simulate(&[&args[..], &["--seed", seed, "--reasons"]].concat());
    assert_eq!(with("7"), with("7"));
    assert_ne!(with("7"), with("8"));
}

#[test]
fn a_trace_from_a_file_is_followed_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let (csv, svg) = (folder.path().join("t.csv"), folder.path().join("t.svg"));
    let mut text = "second,partition,records/s\n".to_owned();
    for second in [0, 600, 1200] {
        for partition in 0..6 {
            text += &format!("{second},{partition},{}\n", if second == 600 { 500 } else { 100 });
        }
    }
    std::fs::write(&csv, text).unwrap();
    let args = ["--csv", csv.to_str().unwrap(), "--capacity", "1000", "--seeds", "1", "--interval", "5s", "--protocol", "cooperative"];
    let text = simulate(&[&args[..], &["--svg", svg.to_str().unwrap(), "--reasons"]].concat());
    assert!(text.contains("up from 1 to"), "{text}");
    let drawn = std::fs::read_to_string(&svg).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("lag in seconds") && drawn.contains("KEDA"), "{}", &drawn[..200]);
    std::fs::write(&csv, "0,0,1\n1,zero,1\n").unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_millrace"))
        .args(["simulate", "--csv", csv.to_str().unwrap(), "--capacity", "1000"])
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("row 2"));
}

/// Shapes whose records are late because of the load alone.
const LOADS: &str = "step,ramp,day,flash,saw,burst";

fn ours(rows: &[Value], name: &str, kind: &str) -> f64 {
    figure(rows, "millrace", "all without faults", name, kind)
}

/// A few held-out seeds; the goal on many is the next test. So few cases vary more than their mean allows for: hence a little more room for the cost.
#[test]
fn a_few_seeds_that_were_not_tuned_on() {
    let fixed = [
        "--trace",
        LOADS,
        "--seed",
        "5000",
        "--seeds",
        "2",
        "--policy",
        "millrace",
        "--protocol",
        "cooperative",
        "--length",
        "1h",
        "--interval",
        "5s",
    ];
    let rows = rows(&fixed);
    assert!(ours(&rows, "worker_hours_ratio", "mean") <= 1.35, "{rows:?}");
    assert!(ours(&rows, "late_percent", "mean") <= 0.1, "{rows:?}");
    assert!(ours(&rows, "resizes_per_hour", "mean") <= 25.0, "{rows:?}");
}

/// The goal on held-out seeds, decisions every 5 s: minutes in a debug build. `cargo test --release --test scaling -- --ignored`
#[test]
#[ignore = "minutes in a debug build"]
fn the_goal_holds_on_seeds_that_were_not_tuned_on() {
    let fixed = ["--seed", "1000", "--seeds", "10", "--policy", "millrace", "--protocol", "cooperative", "--interval", "5s"];
    let rows = rows(&fixed);
    assert!(ours(&rows, "worker_hours_ratio", "mean") <= 1.3, "{rows:?}");
    assert!(ours(&rows, "late_percent", "mean") <= 0.1, "{rows:?}");
    assert!(ours(&rows, "late_percent", "worst") <= 0.5, "{rows:?}");
    assert!(ours(&rows, "resizes_per_hour", "mean") <= 25.0, "{rows:?}");
    assert!(figure(&rows, "millrace", "all with faults", "late_percent", "mean") <= 1.0, "{rows:?}");
}
