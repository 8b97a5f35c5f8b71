//! A worker is killed (SIGKILL) and started again; what the books said at that moment is kept for the judgement.

use anyhow::{Context, Result};
use rand::Rng;

use super::flows::FLOWS;
use super::kills::Kill;
use super::run::{Demo, now_ms};
use super::scrape::WorkerNumbers;

/// Every so many kills the fleet's leader is the victim.
const LEADER_EVERY: u64 = 2;

impl Demo<'_> {
    /// Kills one worker: by chance, every second time the leader of the fleet if there is one.
    pub(super) async fn kill_one(&mut self) -> Result<()> {
        let serving = self.fleet.serving();
        let ports: Vec<(usize, u16)> = self.fleet.ports().into_iter().filter(|(number, _)| serving.contains(number)).collect();
        if ports.is_empty() {
            return Ok(());
        }
        let turn_of_leader = (self.kills.len() as u64 + 1).is_multiple_of(LEADER_EVERY);
        let leader =
            self.fleet_view.leader.filter(|_| turn_of_leader).and_then(|leader| ports.iter().find(|(number, _)| *number == leader));
        let leads = leader.is_some();
        let (number, port) = *leader.unwrap_or(&ports[self.rng.random_range(0..ports.len())]);
        let last = self.scraper.ask(port).await;
        self.fleet.kill(number);
        let kill = self.note_end(last.as_ref()).await?;
        self.kills.push(kill);
        let known = self.forget_numbers(number);
        self.past_possible_duplicates += last.map_or(known, |numbers| numbers.possible_duplicates);
        self.leader_kills += u64::from(leads);
        let alive = self.fleet.alive();
        self.alive.min = self.alive.min.min(alive);
        let what = if leads { "the leader: " } else { "" };
        self.event(&format!("worker {number} killed ({what}SIGKILL) and started again"));
        self.fleet.start_worker(number)
    }

    /// The books at this moment, at which a worker ended that had not committed all that it wrote; `last`: what it said of itself before.
    pub(super) async fn note_end(&self, last: Option<&WorkerNumbers>) -> Result<Kill> {
        let at_ms = now_ms();
        let guard = self.guard.clone();
        let committed =
            tokio::task::spawn_blocking(move || guard.committed_now()).await.context("committed offsets at a worker's end")??;
        let taken_from = last.map(|n| {
            let flow = |connector: &str| FLOWS.iter().position(|f| f.connector == connector);
            n.taken_from.iter().filter_map(|(connector, partition)| Some((flow(connector)?, *partition))).collect()
        });
        Ok(Kill { at_ms, committed, taken_from })
    }
}
