//! What workers cannot lift: unknown data, rebalances, the sink, things that more workers did not help.

use super::capacity::{NOT_BUSY, SINK_WAIT};
use super::memory::{Memory, Saturated};
use super::observe::View;
use super::snapshot::Snapshot;
use super::standstill::note_still;

/// A group that waits for longer than this is behind, seconds.
const BEHIND_S: f64 = 6.0;
/// One that does not fall further behind is limited only when it is this share of the freshness target behind.
const FAR_BEHIND: f64 = 0.5;
/// How long more workers are known not to help.
const FUTILE_MS: i64 = 600_000;

/// Why a group has no say, or half a say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hold {
    pub words: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing is known.
    Unknown,
    /// What is produced is known, what is consumed is not.
    Moving,
    /// More workers would not help.
    Limited,
    /// It has no partitions, or nothing of it has been consumed for long: not running.
    Nothing,
}

impl Hold {
    /// The group says nothing at all.
    pub(super) fn blind(&self) -> bool {
        self.kind != Kind::Moving
    }

    /// It does not run: it neither asks for workers nor keeps them.
    pub(super) fn counts_for_nothing(&self) -> bool {
        self.kind == Kind::Nothing
    }

    /// What it produces may still ask for workers.
    pub(super) fn may_grow(&self) -> bool {
        self.kind == Kind::Moving
    }
}

/// Whether a group holds, and why.
pub(super) fn hold(snapshot: &Snapshot, view: &View, g: usize, ready: u32, memory: &mut Memory) -> Option<Hold> {
    let (group, now) = (&view.groups[g], snapshot.now_ms);
    let made = |kind, words: String| Some(Hold { words, kind });
    if let Some(why) = note_still(snapshot, view, g, memory) {
        return made(Kind::Nothing, why);
    }
    if let Some(why) = &group.unknown {
        return made(Kind::Unknown, why.clone());
    }
    if group.rates.is_empty() {
        return made(Kind::Nothing, "has no partitions".to_owned());
    }
    let known = memory.groups.get_mut(&group.name)?;
    let Some(total) = group.total else {
        return made(Kind::Unknown, "what is produced is unknown".to_owned());
    };
    if group.rebalancing {
        let since = known.rebalancing_since_ms.map_or(0, |at| (now - at) / 1000);
        return made(Kind::Moving, format!("rebalancing for {since} s"));
    }
    if known.cost_s.or(known.rough_cost_s).is_none() && known.proven_per_s == 0.0 && total > 0.0 {
        return made(Kind::Unknown, "what a worker can do is not known yet".to_owned());
    }
    let lag = group.known_lag_s()?;
    let behind = lag > BEHIND_S;
    if !behind {
        // Whatever limited it is lifted: the next time that it is behind is looked at anew.
        (known.sink_limited_ms, known.futile_until_ms) = (None, None);
        return None;
    }
    let at_work: Vec<usize> = (0..view.workers.len()).filter(|w| group.owners.contains(&Some(*w))).collect();
    // The newest commits tell sooner than the window that a limit is lifted.
    let recent: Option<f64> = known
        .partitions
        .values()
        .flat_map(|t| t.values())
        .map(|p| p.commits.len().checked_sub(2).map(|i| (p.commits[i], p.commits[i + 1])))
        .try_fold(0.0, |sum, pair| pair.filter(|(a, b)| b.0 > a.0).map(|(a, b)| sum + (b.1 - a.1) as f64 * 1000.0 / (b.0 - a.0) as f64));
    let able = known.cost_s.filter(|c| *c > 0.0).map(|c| f64::from(ready.max(1)) / c);
    let flows = matches!((recent, able), (Some(r), Some(a)) if r > 0.75 * a);
    if !flows && group.settled {
        let wait = sink_wait(view, g);
        if wait >= SINK_WAIT {
            known.sink_limited_ms = Some(now);
            return made(
                Kind::Limited,
                format!("sink-limited: its workers wait {:.0} % of their time for the sink, {lag:.0} s behind", wait * 100.0),
            );
        }
        // Between two looks that follow each other closely no commit may have come, although records flow.
        let consumed = recent.filter(|r| *r > 0.0).or(group.consumed).or(recent);
        if consumed == Some(0.0) && total > 0.0 {
            return made(Kind::Limited, format!("consumes nothing and is {lag:.0} s behind: more workers would not change that"));
        }
        // What was busy or not over a window of which most was before the lag says nothing about it; and what is only not committed yet is not behind.
        let behind_for_long = lag * 1000.0 >= snapshot.window_ms as f64;
        let target_s = snapshot.limits.freshness_target_ms as f64 / 1000.0;
        let falls_behind = |c: f64| c < total * 0.95 || (lag > FAR_BEHIND * target_s && c < total * 1.02);
        let busiest = at_work.iter().map(|w| view.workers[*w].busy).try_fold(0.0_f64, |most, b| b.map(|b| most.max(b)));
        if let Some(busiest) = busiest
            && !at_work.is_empty()
            && busiest < NOT_BUSY
            && behind_for_long
            && consumed.is_some_and(falls_behind)
        {
            return made(
                Kind::Limited,
                format!(
                    "{lag:.0} s behind, but its busiest worker is busy only {:.0} % of the time: something else limits it",
                    busiest * 100.0
                ),
            );
        }
    }
    if flows {
        // They consume what they can: whatever it was, it does not limit them now.
        known.futile_until_ms = None;
    } else if known.futile_until_ms.is_some_and(|until| now < until) {
        return made(Kind::Limited, format!("{lag:.0} s behind, but more workers did not consume more: something else limits it"));
    }
    None
}

/// The share of their time that a group's workers wait for the sink, in the mean of those that tell.
fn sink_wait(view: &View, g: usize) -> f64 {
    let at_work = (0..view.workers.len()).filter(|w| view.groups[g].owners.contains(&Some(*w)));
    let (sum, count) = at_work.filter_map(|w| view.workers[w].sink_wait).fold((0.0, 0.0), |(sum, count), wait| (sum + wait, count + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}

/// Remembers what was consumed when records waited, and sees whether more workers consumed more.
pub(super) fn note_futile(snapshot: &Snapshot, view: &View, g: usize, ready: u32, memory: &mut Memory) {
    let (group, now) = (&view.groups[g], snapshot.now_ms);
    let Some(known) = memory.groups.get_mut(&group.name) else { return };
    let (Some(lag), Some(consumed), Some(total)) = (group.known_lag_s(), group.consumed, group.total) else { return };
    // What the sink held up says nothing about workers.
    let sink_holds = sink_wait(view, g) >= SINK_WAIT;
    if lag < BEHIND_S || consumed > total || sink_holds {
        known.saturated = None;
        return;
    }
    if !group.settled || group.rebalancing {
        return;
    }
    let busy = view.workers.iter().filter_map(|w| w.busy).reduce(f64::max);
    match known.saturated {
        None => known.saturated = Some(Saturated { workers: ready.max(1), consumed_per_s: consumed, since_ms: now }),
        Some(before) if f64::from(ready) >= 1.4 * f64::from(before.workers) && now - before.since_ms > 20_000 => {
            if consumed < before.consumed_per_s * 1.12 && busy.is_none_or(|b| b < 0.9) {
                known.futile_until_ms = Some(now + FUTILE_MS);
            }
            known.saturated = Some(Saturated { workers: ready, consumed_per_s: consumed, since_ms: now });
        }
        Some(_) => {}
    }
}
