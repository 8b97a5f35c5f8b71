//! Who is away: BigQuery, the network to the brokers, one broker, all of them.

use std::time::Duration;

use anyhow::ensure;

use super::stage::{Stage, TOPIC};
use crate::harness::process::wait_for;
use crate::harness::wire::Mode;
use crate::machine::Watch;

/// What is promised after a broker's return, and holds for the network to it too.
const BACK_WITHIN: Duration = Duration::from_secs(10);
/// Longer than the session of 10 s.
const LONGER_THAN_A_SESSION: Duration = Duration::from_secs(13);

/// Packets to BigQuery are dropped, for longer than an append may take; then its connections are reset.
pub fn bigquery_cut_off(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    for (mode, span, what) in [(Mode::Stall, 8, "packets to BigQuery dropped"), (Mode::Reset, 3, "connections to BigQuery reset")] {
        stage.sink.set(mode);
        std::thread::sleep(Duration::from_secs(span));
        stage.all_live()?;
        stage.sink.set(Mode::Pass);
        stage.flows(what, Watch::start(), BACK_WITHIN)?;
    }
    Ok(())
}

/// Packets to the brokers are dropped for longer than the session: every worker has lost its partitions when they come again.
pub fn brokers_cut_off(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.brokers.set(Mode::Stall);
    std::thread::sleep(LONGER_THAN_A_SESSION);
    stage.all_live()?;
    stage.brokers.set(Mode::Pass);
    stage.flows("packets to the brokers dropped", Watch::start(), BACK_WITHIN)
}

pub fn a_broker_killed(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let victim = stage.kafka.leader(TOPIC, 0)?;
    stage.kafka.kill_broker(victim)?;
    std::thread::sleep(Duration::from_secs(5));
    stage.all_live()?;
    stage.kafka.restart_broker(victim)?;
    stage.flows("a broker killed and started again", Watch::start(), BACK_WITHIN)
}

/// As workers see it when all brokers are gone: connections break, new ones are refused. Said meanwhile, and no reason for a restart.
pub fn all_brokers_away_for_a_minute(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.brokers.set(Mode::Reset);
    let away = Watch::start();
    wait_for("every worker says that the brokers are unreachable", Duration::from_secs(20), || {
        for worker in &stage.fleet {
            let (code, body) = worker.get("/health/ready")?;
            if code != 503 || !body.contains("is unreachable: brokers unreachable since") {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    eprintln!("    said by every worker after {:.1} s", away.elapsed().as_secs_f64());
    std::thread::sleep(Duration::from_secs(60).saturating_sub(away.elapsed()));
    stage.all_live()?;
    for worker in &mut stage.fleet {
        worker.process().check_running()?;
    }
    stage.brokers.set(Mode::Pass);
    stage.flows("all brokers away for a minute", Watch::start(), BACK_WITHIN)?;
    ensure!(stage.sum("millrace_connector_stalled", &[])? == 0.0, "a connector stalls");
    Ok(())
}
