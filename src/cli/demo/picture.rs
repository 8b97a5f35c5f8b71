//! What the demo shows at one moment, and its two forms: a screen, a line.

use std::collections::BTreeMap;
use std::time::Duration;

use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Sparkline, Wrap};
use ratatui::{DefaultTerminal, Frame};

use super::decisions::DecisionLine;
use crate::cli::stdout;

/// One moment of the demo.
#[derive(Debug, Clone, Default)]
pub(super) struct Picture {
    /// What is going on: `running`, `draining`, `reconciling`.
    pub(super) phase: &'static str,
    pub(super) elapsed: Duration,
    pub(super) planned: Duration,
    pub(super) rate_asked: u64,
    pub(super) brake: bool,
    pub(super) produced: u64,
    pub(super) produced_per_s: f64,
    pub(super) rows: u64,
    pub(super) rows_per_s: f64,
    /// Records produced and not yet committed.
    pub(super) lag: u64,
    pub(super) freshness_p50_ms: Option<u64>,
    pub(super) freshness_p99_ms: Option<u64>,
    pub(super) workers_alive: usize,
    /// How many there should be.
    pub(super) workers: usize,
    /// The name of the load's shape.
    pub(super) load: &'static str,
    /// Whether the fleet sizes itself.
    pub(super) scales: bool,
    /// The number of the worker that leads the fleet.
    pub(super) leader: Option<usize>,
    /// Why the fleet has the size that it has, in the leader's words.
    pub(super) stands: Option<String>,
    /// The last resizes, the latest first.
    pub(super) decisions: Vec<DecisionLine>,
    pub(super) worker_seconds: f64,
    /// The worker-seconds of one worker per partition.
    pub(super) one_per_partition: f64,
    pub(super) kills: u64,
    pub(super) resident_bytes: u64,
    /// Partitions that hold, by cause.
    pub(super) held: BTreeMap<String, u64>,
    pub(super) bad: u64,
    pub(super) dead_letters: u64,
    /// How often each class of fault fired.
    pub(super) faults: BTreeMap<String, u64>,
    /// The last notable events, oldest first.
    pub(super) events: Vec<String>,
    /// Rows a second over the last seconds.
    pub(super) history: Vec<u64>,
}

impl Picture {
    /// The whole moment in one line, for logs and pipes.
    pub(super) fn line(&self) -> String {
        let fired: u64 = self.faults.values().sum();
        let held: u64 = self.held.values().sum();
        let brake = if self.brake { " BRAKE: unread records fill the broker;" } else { "" };
        format!(
            "{:>5.1}s {}:{brake} in {:.0}/s (asked {}), out {:.0}/s, lag {}, freshness {}/{} ms, workers {}/{}, kills {}, faults {}, held {}, \
             dead letters {}/{}",
            self.elapsed.as_secs_f64(),
            self.phase,
            self.produced_per_s,
            self.rate_asked,
            self.rows_per_s,
            self.lag,
            shown(self.freshness_p50_ms),
            shown(self.freshness_p99_ms),
            self.workers_alive,
            self.workers,
            self.kills,
            fired,
            held,
            self.dead_letters,
            self.bad
        )
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let troubled = !self.faults.is_empty() || !self.held.is_empty();
        let [title, numbers, fleet, graph, detail, events] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(7),
            if self.scales { Constraint::Min(7) } else { Constraint::Length(4) },
            Constraint::Length(if self.scales { 4 } else { 6 }),
            Constraint::Length(if troubled { 8 } else { 0 }),
            Constraint::Min(5),
        ])
        .areas(frame.area());
        let left = self.planned.saturating_sub(self.elapsed).as_secs();
        let head = format!(" millrace demo: {}, {left} s left. Keys: + - rate, * / tenfold and back, q end", self.phase);
        frame.render_widget(Paragraph::new(head).style(Style::new().add_modifier(Modifier::REVERSED)), title);
        frame.render_widget(
            Paragraph::new(self.number_lines()).block(Block::bordered().title(format!(" flow, load: {} ", self.load))),
            numbers,
        );
        frame.render_widget(Paragraph::new(self.fleet_lines()).wrap(Wrap { trim: false }).block(Block::bordered().title(" fleet ")), fleet);
        let rows = Sparkline::default().data(&self.history).style(Style::new().fg(Color::Green));
        frame.render_widget(rows.block(Block::bordered().title(" rows durable a second ")), graph);
        let [faults, holds] = Layout::horizontal([Constraint::Percentage(60), Constraint::Percentage(40)]).areas(detail);
        frame.render_widget(Paragraph::new(counts(&self.faults)).block(Block::bordered().title(" faults fired ")), faults);
        frame.render_widget(Paragraph::new(counts(&self.held)).block(Block::bordered().title(" partitions held ")), holds);
        let room = usize::from(events.height.saturating_sub(2));
        let last: Vec<Line<'_>> = self.events.iter().rev().take(room).rev().map(|e| Line::raw(e.as_str())).collect();
        frame.render_widget(Paragraph::new(last).block(Block::bordered().title(" events ")), events);
    }

    fn number_lines(&self) -> Vec<Line<'_>> {
        let pair = |name: &'static str, value: String| Line::from(vec![Span::raw(format!("{name:<12}")), bold(value)]);
        let brake = if self.brake { "  BRAKE: slowed down, unread records would fall out of the broker" } else { "" };
        vec![
            pair("produced", format!("{:.0}/s of {}/s asked, {} in all{brake}", self.produced_per_s, self.rate_asked, self.produced)),
            pair("durable", format!("{:.0}/s, {} rows in all", self.rows_per_s, self.rows)),
            pair("lag", format!("{} records", self.lag)),
            pair("freshness", format!("p50 {} ms, p99 {} ms", shown(self.freshness_p50_ms), shown(self.freshness_p99_ms))),
            pair("bad records", format!("{} produced, {} dead letters", self.bad, self.dead_letters)),
        ]
    }
}

impl Picture {
    /// Who runs, who leads, what it costs, what was decided.
    fn fleet_lines(&self) -> Vec<Line<'_>> {
        let share = if self.one_per_partition > 0.0 { 100.0 * self.worker_seconds / self.one_per_partition } else { 0.0 };
        let leader = match (self.scales, self.leader) {
            (false, _) => String::new(),
            (true, Some(number)) => format!(", worker {number} leads"),
            (true, None) => ", nobody leads".to_owned(),
        };
        let mut lines = vec![Line::from(vec![
            bold(format!("{} workers now, {} wanted", self.workers_alive, self.workers)),
            Span::raw(format!("{leader}; {} kills, {} MiB; ", self.kills, self.resident_bytes >> 20)),
            bold(format!("{:.0} worker-seconds", self.worker_seconds)),
            Span::raw(format!(", {share:.0} % of what one worker per partition takes ({:.0})", self.one_per_partition)),
        ])];
        lines.extend(self.stands.as_ref().map(|why| Line::raw(format!("   now {why}"))));
        lines.extend(self.decisions.iter().map(|decision| Line::raw(decision.to_string())));
        lines
    }
}

fn bold(text: String) -> Span<'static> {
    Span::styled(text, Style::new().add_modifier(Modifier::BOLD))
}

fn shown(ms: Option<u64>) -> String {
    ms.map_or_else(|| "-".to_owned(), |ms| ms.to_string())
}

fn counts(map: &BTreeMap<String, u64>) -> Vec<Line<'_>> {
    map.iter().map(|(name, count)| Line::raw(format!("{count:>8}  {name}"))).collect()
}

/// Where pictures go.
pub(super) enum Display {
    /// A screen that is drawn anew each time.
    Screen(Box<DefaultTerminal>),
    /// A line a second.
    Lines,
}

impl Display {
    /// The screen when stdout is a terminal, else lines.
    pub(super) fn open(terminal: bool) -> Self {
        match terminal.then(ratatui::try_init) {
            Some(Ok(screen)) => Self::Screen(Box::new(screen)),
            Some(Err(_)) | None => Self::Lines,
        }
    }

    /// Shows a moment. `whole_second`: lines appear at these only.
    pub(super) fn show(&mut self, picture: &Picture, whole_second: bool) {
        match self {
            // A terminal that went away is no reason to stop the demo.
            Self::Screen(screen) => drop(screen.draw(|frame| picture.draw(frame))),
            Self::Lines if whole_second => self.line(&picture.line()),
            Self::Lines => {}
        }
    }

    /// A line, where lines are shown. Whoever read them may have left: no reason to stop either.
    pub(super) fn line(&self, line: &str) {
        if matches!(self, Self::Lines) {
            let _ = stdout::try_write(format_args!("{line}\n"));
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if matches!(self, Self::Screen(_)) {
            ratatui::restore();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    #[test]
    fn the_screen_shows_every_number() {
        let picture = Picture {
            phase: "running",
            rate_asked: 20_000,
            produced: 123_456,
            rows: 98_765,
            lag: 4_321,
            freshness_p50_ms: Some(234),
            freshness_p99_ms: Some(876),
            workers_alive: 1,
            workers: 2,
            load: "flash",
            scales: true,
            leader: Some(1),
            stands: Some("stays at 4: all is well".to_owned()),
            decisions: vec![DecisionLine {
                at_s: 12.34,
                from: 2,
                to: 4,
                leader: "worker-1".to_owned(),
                term: 3,
                reason: "up from 2 to 4: 9 s behind".to_owned(),
            }],
            worker_seconds: 120.0,
            one_per_partition: 480.0,
            kills: 3,
            brake: true,
            bad: 17,
            dead_letters: 16,
            faults: BTreeMap::from([("broker_fetch_error".to_owned(), 55)]),
            held: BTreeMap::from([("plan_pending".to_owned(), 2)]),
            events: vec!["worker 1 killed".to_owned()],
            ..Picture::default()
        };
        let mut terminal = Terminal::new(TestBackend::new(140, 40)).unwrap();
        terminal.draw(|frame| picture.draw(frame)).unwrap();
        let screen = terminal.backend().to_string();
        for part in [
            "20000/s asked",
            "123456",
            "98765",
            "4321",
            "p50 234",
            "p99 876",
            "1 workers now, 2 wanted, worker 1 leads",
            "3 kills",
            "BRAKE",
            "17 produced",
        ] {
            assert!(screen.contains(part), "{part} is not on the screen:\n{screen}");
        }
        for part in [
            "120 worker-seconds, 25 % of what one worker per partition takes (480)",
            " 12.3s up from 2 to 4: 9 s behind",
            "now stays at 4: all is well",
            "load: flash",
        ] {
            assert!(screen.contains(part), "{part} is not on the screen:\n{screen}");
        }
        for part in ["55  broker_fetch_error", "2  plan_pending", "worker 1 killed"] {
            assert!(screen.contains(part), "{part} is not on the screen:\n{screen}");
        }
        assert!(picture.line().contains("BRAKE") && picture.line().contains("234/876 ms"));
    }
}
