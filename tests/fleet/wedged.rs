//! Real threads of the real program, stopped one by one as a debugger stops them (ptrace): the process says who stands still and ends by itself.
//! A process that is stopped as a whole, for as long, is not blamed; nor is one whose BigQuery stalls for as long: it says so.

use std::fs;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use millrace::embedded::bigquery::Stall;
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use super::rig::{PARTITIONS, Rig};
use crate::machine::Watch;

/// `watchdog::Limits::default().stand_still`, with what a look, the last words and two busy cores may add.
const DEAD_WITHIN: Duration = Duration::from_secs(45);

/// Threads of a process by their names (the kernel keeps 15 characters).
fn threads(pid: u32, name: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        if fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name) {
            found.push(task.file_name().to_string_lossy().parse().unwrap());
        }
    }
    found
}

/// Stops one thread for good; the others go on.
fn stop_thread(tid: i32) {
    for request in [libc::PTRACE_SEIZE, libc::PTRACE_INTERRUPT] {
        // SAFETY: both requests take no pointers; the kernel checks the thread's number.
        let done = unsafe { libc::ptrace(request, tid, 0_usize, 0_usize) };
        assert_eq!(done, 0, "ptrace {request} of thread {tid}: {}", std::io::Error::last_os_error());
    }
}

/// Takes notice of what a traced thread reports: its process has ended only when its tracer knows of every thread.
fn take_notice(tid: i32) {
    let mut status = 0;
    // SAFETY: `status` is valid for the call, which does not wait.
    unsafe { libc::waitpid(tid, &raw mut status, libc::WNOHANG | libc::__WALL) };
}

/// How it ended, and how long after its threads were stopped at the least.
fn end_of(rig: &mut Rig, number: usize, traced: &[i32], (since, worked): (Instant, Watch)) -> (ExitStatus, Duration) {
    loop {
        traced.iter().for_each(|tid| take_notice(*tid));
        if let Some(status) = rig.ended(number) {
            return (status, since.elapsed());
        }
        assert!(worked.elapsed() < DEAD_WITHIN, "worker {number} still runs; {}", rig.log(number));
        thread::sleep(Duration::from_millis(100));
    }
}

/// Thread's name in the kernel, and what the last words must name.
const VICTIMS: [(&str, &str); 5] = [
    ("shard-0-numbers", "thread shard-0-numbers (connector numbers, "),
    ("kafka-poll-numb", "thread kafka-poll-numbers (connector numbers, group connect-numbers, with "),
    ("commit-numbers", "thread commit-numbers (connector numbers, with "),
    ("fleet-reader", "thread fleet-reader"),
    ("worker", "the tokio runtime"),
];

/// Stopped as a whole.
const SLEEPER: usize = VICTIMS.len();
/// Whose BigQuery answers nothing.
const STALLED: usize = SLEEPER + 1;

#[test]
fn a_thread_that_stands_still_ends_the_process_and_nothing_else_does() {
    let mut rig = Rig::new("");
    (0..=STALLED).for_each(|number| rig.start(number));
    let _flow = rig.produce(40);
    rig.wait_until("every partition has an owner", |rig| (0..=STALLED).map(|number| owned(rig, number)).sum::<f64>() == 4.0);
    let mut traced = Vec::new();
    for (number, (thread, _)) in VICTIMS.iter().enumerate() {
        let found = threads(rig.pid(number).as_raw_nonzero().get().cast_unsigned(), thread);
        assert!(!found.is_empty(), "worker {number} has no thread {thread}");
        assert_eq!(rig.get(number, "/health/live").0, 200);
        found.iter().for_each(|tid| stop_thread(*tid));
        traced.push((found, (Instant::now(), Watch::start())));
    }
    let since = Instant::now();
    kill_process(rig.pid(SLEEPER), Signal::STOP).unwrap();
    rig.stall(Stall::Appends);
    for (number, (thread, words)) in VICTIMS.iter().enumerate() {
        let (found, since) = &traced[number];
        let (status, after) = end_of(&mut rig, number, found, *since);
        let log = rig.log(number);
        println!("{thread}: {status} after {after:?}");
        assert_eq!(status.code(), Some(70), "{thread}: {status}; {log}");
        assert!(after > Duration::from_secs(25), "{thread}: {after:?} is too early");
        let last =
            log.lines().rfind(|line| line.starts_with("millrace: wedged: ")).unwrap_or_else(|| panic!("{thread}: no last words: {log}"));
        assert!(last.contains(words), "{thread}: {last}");
        assert!(log.lines().any(|line| line.starts_with('{') && line.contains("wedged: ")), "{thread}: not in the log: {log}");
    }
    // For longer than any thread may stand still; then it goes on as if nothing had been.
    thread::sleep(Duration::from_secs(33).saturating_sub(since.elapsed()));
    kill_process(rig.pid(SLEEPER), Signal::CONT).unwrap();
    a_stalled_sink_is_said(&rig);
    rig.stall(Stall::Off);
    rig.wait_until("it runs again", |rig| connector(rig, STALLED)["state"] == "running");
    rig.wait_until("two own everything", |rig| owned(rig, SLEEPER) + owned(rig, STALLED) == 4.0);
    for number in [SLEEPER, STALLED] {
        assert_eq!(rig.get(number, "/health/live").0, 200);
        assert!(!rig.log(number).contains("wedged"), "{}", rig.log(number));
        rig.terminate(number);
    }
    [SLEEPER, STALLED].into_iter().for_each(|number| rig.wait_for_end(number));
}

fn owned(rig: &Rig, number: usize) -> f64 {
    assert_eq!(PARTITIONS, 4);
    rig.metric(number, "millrace_assigned_partitions{connector=\"numbers\"}").unwrap_or_default()
}

fn connector(rig: &Rig, number: usize) -> Value {
    let status: Value = serde_json::from_str(&rig.get(number, "/status").1).unwrap();
    status["connectors"][0].clone()
}

/// In status, health and metrics: since when, and why. Nothing of it is a reason for a restart.
fn a_stalled_sink_is_said(rig: &Rig) {
    rig.wait_until("the state is stalled", |rig| connector(rig, STALLED)["state"] == "stalled");
    let now = connector(rig, STALLED);
    let message = now["message"].as_str().unwrap();
    assert!(message.starts_with("records wait, and none was finished since 20"), "{message}");
    assert!(message.contains("BigQuery has not answered ") && message.contains(" bytes of rows for p.d.numbers"), "{message}");
    assert!(now["since_ms"].as_i64().unwrap() > 0);
    let (code, ready) = rig.get(STALLED, "/health/ready");
    assert!(code == 503 && ready.contains("connector `numbers` is stalled: records wait"), "{code}: {ready}");
    rig.wait_until("its gauges", |rig| {
        rig.metric(STALLED, "millrace_connector_stalled{connector=\"numbers\"}") == Some(1.0)
            && rig.metric(STALLED, "millrace_connector_stalled_seconds{connector=\"numbers\"}").is_some_and(|seconds| seconds >= 30.0)
    });
    assert_eq!(rig.get(STALLED, "/health/live").0, 200);
}
