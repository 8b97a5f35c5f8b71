//! Processes that die, stand still, or do not know what time it is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};

use super::stage::{Stage, WORKERS};
use crate::harness::process::wait_for;
use crate::machine::Watch;

/// `session.timeout.ms` of the installation: how long a broker waits for a member that says nothing.
const SESSION: Duration = Duration::from_secs(10);
/// From a session's end until records flow again.
const REJOINED_WITHIN: Duration = Duration::from_secs(5);
/// What is promised after a worker's death.
const MOVED_WITHIN: Duration = SESSION.saturating_add(REJOINED_WITHIN);
const DEATHS: u32 = 3;
const JUMP_S: i64 = 3600;

/// Compiles `parts/clock_jump.c` for preloading.
pub fn clock_shim(folder: &Path) -> anyhow::Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live/parts/clock_jump.c");
    let shim = folder.join("clock_jump.so");
    let made = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(source).arg("-ldl").output().context("no cc")?;
    if !made.status.success() {
        bail!("cc: {}", String::from_utf8_lossy(&made.stderr));
    }
    Ok(shim)
}

/// One worker's wall clock goes an hour ahead, then an hour behind, then right again.
pub fn a_clock_that_jumps(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let clock_of =
        |stage: &Stage<'_>| -> anyhow::Result<i64> { stage.fleet[0].status()?["now_ms"].as_i64().context("no clock in /status") };
    for (seconds, what) in [(JUMP_S, "a clock an hour ahead"), (-JUMP_S, "a clock an hour behind"), (0, "a clock that is right again")] {
        stage.set_clock(seconds)?;
        let asked_ms = now_ms();
        let apart_ms = clock_of(stage)? - asked_ms;
        let took_ms = now_ms() - asked_ms;
        let right = seconds * 1000 - 1_000..=seconds * 1000 + took_ms + 1_000;
        ensure!(right.contains(&apart_ms), "its clock is {apart_ms} ms apart, not {seconds} s");
        std::thread::sleep(Duration::from_secs(2));
        stage.flows(what, Watch::start(), Duration::from_secs(10))?;
        stage.all_live()?;
        stage.fleet[0].process().check_running()?;
    }
    ensure!(stage.sum("millrace_self_fences_total", &[])? == 0.0, "a clock that jumped was taken for a pause");
    Ok(())
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// SIGKILL to a worker and to the leader, each while the group is at rest, each started again at once.
pub fn a_worker_and_the_leader_killed_alone(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    for leads in [false, true] {
        stage.at_rest()?;
        let victim = one_that(stage, leads)?;
        let died = Watch::start();
        stage.kill(victim)?;
        stage.join(victim)?;
        stage.flows(if leads { "the leader killed" } else { "a worker killed" }, died, MOVED_WITHIN)?;
    }
    Ok(())
}

/// SIGKILL to a worker, the leader, a worker: 4 s apart, each started again at once.
///
/// A broker counts the session of a member that dies while it waits for a rebalance (or for the assignment that a dead member was to
/// make) from the end of that rebalance on, so deaths in a row can cost a session each. Apache Kafka:
/// `ClassicGroupMember.hasSatisfiedHeartbeat`, and `GroupMetadataManager.propagateAssignment`, which begins the sessions anew.
pub fn workers_and_the_leader_killed_every_few_seconds(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.at_rest()?;
    let first = Watch::start();
    for turn in 0..DEATHS {
        let died = Watch::start();
        let victim = if turn == 1 { one_that(stage, true)? } else { turn as usize };
        stage.kill(victim)?;
        stage.join(victim)?;
        std::thread::sleep(Duration::from_secs(4).saturating_sub(died.elapsed()));
    }
    stage.flows("workers and the leader killed", first, SESSION * DEATHS + REJOINED_WITHIN)
}

/// A worker that leads, or one that does not.
fn one_that(stage: &Stage<'_>, leads: bool) -> anyhow::Result<usize> {
    wait_for("a leader", Duration::from_secs(20), || {
        let led: Vec<bool> =
            stage.fleet.iter().map(|worker| worker.metric("millrace_leader", &[]).is_ok_and(|value| value == 1.0)).collect();
        Ok(if led.contains(&true) { led.iter().position(|found| *found == leads) } else { None })
    })
}

/// SIGSTOP until others have its partitions; then it wakes and believes that they are its own.
pub fn a_worker_stopped_for_longer_than_its_session(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.at_rest()?;
    let zombie =
        (0..WORKERS).find(|number| stage.fleet[*number].metric("millrace_assigned_partitions", &[]).is_ok_and(|count| count > 0.0));
    let zombie = zombie.context("nobody owns anything")?;
    let awake = stage.fleet.remove(zombie);
    let mut sleeper = awake;
    sleeper.process().signal("STOP")?;
    let stopped = Watch::start();
    // What others append again while it is away: as after a death.
    stage.gone_duplicates += stage.comes_again()?;
    let outcome = stage.flows("a worker stopped", stopped, MOVED_WITHIN);
    std::thread::sleep(Duration::from_secs(14).saturating_sub(stopped.elapsed()));
    let woke_ms = now_ms();
    sleeper.process().signal("CONT")?;
    stage.fleet.insert(zombie, sleeper);
    outcome?;
    std::thread::sleep(Duration::from_secs(5));
    stage.fleet[zombie].process().check_running()?;
    let fences = stage.fleet[zombie].metric("millrace_self_fences_total", &[])?;
    ensure!(fences >= 1.0, "the zombie did not notice that it was one");
    let late: Vec<_> =
        stage.rows()?.iter().filter(|(_, copies)| copies.len() > 1 && copies.iter().any(|(_, at)| *at >= woke_ms)).take(5).collect();
    ensure!(late.is_empty(), "the zombie appended what others had appended already: {late:?}");
    stage.settled()?;
    stage.flows("a zombie that woke", Watch::start(), MOVED_WITHIN)
}
