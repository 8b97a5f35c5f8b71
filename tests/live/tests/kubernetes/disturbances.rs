//! What Kubernetes and its machines do to a leader.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use chrono::{DateTime, FixedOffset};
use millrace::leader::Timing;

use super::fleet::{Life, MANY, MIN, SEEN_WITHIN, by_hand};
use crate::harness::process::wait_for;

/// The lease's duration, and some turns of the election.
const ELECTED_WITHIN: Duration = Duration::from_secs(60);

/// SIGSTOP between recheck and write: another leads and resizes, and the write that comes after all is refused.
pub fn stopped_before_its_write(life: &Life<'_>) -> anyhow::Result<()> {
    life.gate.arm();
    life.release.scale_by_hand(2)?; // something to repair
    life.gate.wait_until_caught(SEEN_WITHIN)?;
    let stopped = life.release.leader()?.context("somebody leads, for it writes")?;
    life.release.kubelet.signal(stopped.pod(), "STOP")?;
    let next = life.release.wait_for_another_leader(&stopped, ELECTED_WITHIN)?;
    let replicas = life.release.wait_for_replicas("the next leader to resize", SEEN_WITHIN, |n| n > 2)?;
    let answer = life.gate.release()?;
    life.release.kubelet.signal(stopped.pod(), "CONT")?;
    ensure!(answer == 409, "the late write of {stopped:?} was answered with {answer}");
    ensure!(life.release.leader()?.as_ref() == Some(&next), "{next:?} leads no more");
    let now = life.release.replicas()?;
    ensure!(now >= replicas, "{replicas} workers were asked for before the late write, and {now} after it");
    life.release.wait_for_replicas("as many as the load needs", SEEN_WITHIN, |n| n >= MANY)?;
    life.release.wait_until_ready(SEEN_WITHIN).map(drop)
}

/// SIGKILL: another leads within the lease's duration, and decides: another pod, or the killed one's next process.
pub fn leader_is_killed(life: &Life<'_>) -> anyhow::Result<()> {
    let killed = life.release.leader()?.context("somebody leads")?;
    life.release.kubelet.signal(killed.pod(), "KILL")?;
    // By the Lease itself: how long before its death a busy machine let the leader renew it is its own affair.
    let said = |field: &str| -> anyhow::Result<DateTime<FixedOffset>> {
        let lease = life.plane.get(&["lease", "fleet-leader"])?;
        Ok(DateTime::parse_from_rfc3339(lease["spec"][field].as_str().context("a time in the Lease")?)?)
    };
    let renewed = said("renewTime")?;
    life.release.wait_for_another_leader(&killed, ELECTED_WITHIN)?;
    let after = said("acquireTime")?.signed_duration_since(renewed).to_std()?;
    ensure!(after >= Timing::default().lease_duration, "the Lease of a killed leader was taken {after:?} after it was renewed last");
    by_hand(life, 3, MANY)
}

/// Pods that stay Pending count as absent after `startup_deadline`, are said to be, and do not freeze the fleet.
pub fn pods_that_never_start(life: &Life<'_>) -> anyhow::Result<()> {
    life.release.kubelet.hold_from(Some(3))?;
    life.release.scale_by_hand(2)?;
    life.release.wait_for_replicas("more workers than can start", SEEN_WITHIN, |n| n >= MANY)?;
    let mut said = String::new();
    let absent = wait_for("the fleet says that workers are absent", SEEN_WITHIN, || {
        let fleet = life.release.fleet()?;
        said = fleet["decided"].to_string();
        Ok((fleet["decided"]["decision"]["absent"] == true).then_some(()))
    });
    absent.with_context(|| format!("it says {said}"))?;
    ensure!(said.contains("absent"), "the reason does not say it: {said}");
    // They start after all: the fleet takes them in.
    life.release.kubelet.hold_from(None)?;
    life.release.wait_until_ready(SEEN_WITHIN)?;
    wait_for("nobody absent", SEEN_WITHIN, || Ok((life.release.fleet()?["decided"]["decision"]["absent"] != true).then_some(())))
}

/// Without an API server nobody leads and nobody resizes, and records flow on. When it is back, with another key for tokens, every old
/// token is refused: the workers read theirs again, and one leads.
pub fn api_server_is_away(life: &Life<'_>) -> anyhow::Result<()> {
    let replicas = life.release.replicas()?;
    life.plane.kill_api_server()?;
    let away = Instant::now();
    std::thread::sleep(Duration::from_secs(30));
    // Who has left does not come back; whose report is late does.
    let mut said = String::new();
    let all = wait_for("all workers live without an API server", Duration::from_secs(25), || {
        let fleet = life.release.fleet()?;
        said = format!("{} of {replicas}: {}", fleet["live_workers"], fleet["workers"]);
        Ok((fleet["live_workers"].as_u64() == Some(replicas)).then_some(()))
    });
    all.with_context(|| format!("workers left: {said}"))?;
    std::thread::sleep(Duration::from_secs(60).saturating_sub(away.elapsed()));
    life.plane.replace_signing_key()?;
    life.plane.start_api_server()?;
    let renewed = |life: &Life<'_>| life.plane.get(&["lease", "fleet-leader"]).map(|lease| lease["spec"]["renewTime"].to_string());
    let before = renewed(life)?;
    std::thread::sleep(Duration::from_secs(8));
    ensure!(renewed(life)? == before, "a token of the old key was taken");
    life.release.kubelet.rotate_tokens()?;
    wait_for("a leader with a new token", Duration::from_secs(120), || Ok((renewed(life)? != before).then_some(())))?;
    ensure!(life.release.replicas()? >= MIN, "fewer than min");
    Ok(())
}
