//! One turn of the demo: ask the workers, follow the load and the leader, look at everything, show it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::dead_letters::DeadLetterReader;
use super::faults;
use super::flows::FLOWS;
use super::report::Workers;
use super::run::Demo;
use super::scrape::WorkerNumbers;
use crate::cli::keys::Key;

const TICK: Duration = Duration::from_millis(200);

impl Demo<'_> {
    /// One turn: ask, look, show.
    pub(super) async fn tick(&mut self) -> Result<()> {
        let turn = Instant::now();
        for (number, port) in self.fleet.ports() {
            if let Some(numbers) = self.scraper.ask(port).await {
                if self.numbers.len() <= number {
                    self.numbers.resize_with(number + 1, WorkerNumbers::default);
                }
                self.numbers[number] = numbers;
            }
        }
        self.look_at_fleet().await;
        let crashes = self.fleet.crashes.len();
        self.fleet.replace_crashed()?;
        let new: Vec<String> = self.fleet.crashes.iter().skip(crashes).cloned().collect();
        for crash in new {
            self.event(&crash);
        }
        self.resize().await?;
        let alive = self.fleet.alive();
        if self.picture.phase != "starting" {
            self.meter.add(alive, turn.saturating_duration_since(self.metered));
            self.metered = turn;
        }
        self.alive = Workers { min: self.alive.min.min(alive), max: self.alive.max.max(alive) };
        if self.brake.is_on() && !self.picture.brake {
            self.event("slowing down: unread records take half of what the broker keeps");
        }
        self.follow_load();
        self.look();
        let whole_second = self.seconds.back().is_none_or(|(at, ..)| at.elapsed() >= Duration::from_secs(1));
        if whole_second {
            self.count_second();
        }
        self.display.show(&self.picture, whole_second);
        self.listen();
        tokio::time::sleep_until((turn + TICK).into()).await;
        Ok(())
    }

    /// The shape's share of the rate that keys and arguments ask for, spread over the flows.
    pub(super) fn follow_load(&self) {
        let share = self.args.load.share(self.started.elapsed(), self.args.duration);
        let asked = (self.full_rate.get() as f64 * share).round() as u64;
        self.rate.set(asked.div_ceil(FLOWS.len() as u64));
    }

    /// Any worker answers for all: the first one that does is enough.
    async fn look_at_fleet(&mut self) {
        if self.follower.is_none() {
            return;
        }
        let known = self.fleet_view.resizes().count();
        for (_, port) in self.fleet.ports() {
            if self.fleet_view.ask(port, self.began_ms).await {
                break;
            }
        }
        // A screen shows them all the time.
        for decision in self.fleet_view.resizes().skip(known) {
            self.display.line(&format!("{:>5.1}s {} decides: {}", decision.at_s, decision.leader, decision.reason));
        }
    }

    /// Drops what a worker that is no more said of itself; gives the rows that it may have doubled by its own account.
    pub(super) fn forget_numbers(&mut self, number: usize) -> u64 {
        self.numbers.get_mut(number).map_or(0, |numbers| std::mem::take(numbers).possible_duplicates)
    }

    fn look(&mut self) {
        let rows = self.landing.rows();
        let (p50, p99) = self.landing.freshness();
        let held = self.numbers.iter().flat_map(|n| n.held.iter()).fold(BTreeMap::new(), |mut all, (cause, count)| {
            *all.entry(cause.clone()).or_insert(0) += count;
            all
        });
        let faults = self.fired();
        let picture = &mut self.picture;
        picture.elapsed = self.started.elapsed();
        picture.rate_asked = self.rate.get() * FLOWS.len() as u64;
        picture.brake = self.brake.is_on();
        picture.produced = self.journals.iter().map(|j| j.records()).sum();
        picture.bad = self.journals.iter().map(|j| j.bad()).sum();
        picture.rows = rows;
        picture.lag = self.guard.lag();
        (picture.freshness_p50_ms, picture.freshness_p99_ms) = (p50, p99);
        picture.workers_alive = self.fleet.alive();
        picture.workers = self.follower.as_ref().map_or(usize::from(self.args.workers), |follower| follower.desired);
        picture.leader = self.fleet_view.leader;
        picture.stands = self.fleet_view.stands.clone();
        picture.decisions = self.fleet_view.resizes().rev().take(5).cloned().collect();
        (picture.worker_seconds, picture.one_per_partition) = (self.meter.worker_seconds(), self.meter.one_per_partition());
        picture.kills = self.kills.len() as u64;
        picture.resident_bytes = self.numbers.iter().map(|n| n.resident_bytes).sum();
        picture.held = held;
        picture.dead_letters = self.letters.as_ref().map_or(0, DeadLetterReader::read);
        picture.faults = faults;
    }

    pub(super) fn fired(&self) -> BTreeMap<String, u64> {
        let stage = &self.stage;
        faults::fired(
            self.args.faults,
            self.args.is_exact(),
            stage.broker.fired(),
            stage.registry.fired(),
            &stage.bigquery.faults().fired(),
        )
    }

    /// Rates over the last three seconds.
    fn count_second(&mut self) {
        self.seconds.push_back((Instant::now(), self.picture.produced, self.picture.rows));
        if self.seconds.len() > 4 {
            self.seconds.pop_front();
        }
        if let (Some(first), Some(last)) = (self.seconds.front(), self.seconds.back())
            && last.0 > first.0
        {
            let time = last.0.duration_since(first.0).as_secs_f64();
            self.picture.produced_per_s = (last.1 - first.1) as f64 / time;
            self.picture.rows_per_s = (last.2 - first.2) as f64 / time;
        }
        self.picture.history.push(self.picture.rows_per_s as u64);
        if self.picture.history.len() > 200 {
            self.picture.history.remove(0);
        }
    }

    fn listen(&mut self) {
        while let Some(key) = self.keys.as_ref().and_then(|k| k.next(Duration::ZERO)) {
            match key {
                Key::Faster => self.full_rate.faster(),
                Key::Slower => self.full_rate.slower(),
                Key::Tenfold => self.full_rate.tenfold(),
                Key::Tenth => self.full_rate.tenth(),
                Key::Quit => self.stop.store(true, Ordering::Relaxed),
            }
        }
    }

    pub(super) fn event(&mut self, what: &str) {
        let line = format!("{:>5.1}s {what}", self.started.elapsed().as_secs_f64());
        self.display.line(&line);
        self.picture.events.push(line);
        if self.picture.events.len() > 50 {
            self.picture.events.remove(0);
        }
    }
}
