//! Connectors of which nothing is consumed: failed, or held by something that workers cannot lift. They hold the fleet for a stated time, then they
//! count for nothing until somebody consumes them again.

use super::memory::Memory;
use super::observe::View;
use super::snapshot::Snapshot;

/// How long the fleet waits for a connector of which no worker owns a partition, or whose need was never known: it has failed.
pub(super) const NOBODY_MS: i64 = 600_000;
/// How long it waits for one that its workers hold on to and whose need is known: it will need them again when the sink is back.
const NOTHING_MS: i64 = 1_800_000;

/// Notes whether anything of a group is consumed although something waits, or nothing is known of it. Why it counts for nothing, once that has lasted.
pub(super) fn note_still(snapshot: &Snapshot, view: &View, g: usize, memory: &mut Memory) -> Option<String> {
    let (group, now) = (&view.groups[g], snapshot.now_ms);
    let known = memory.groups.get_mut(&group.name)?;
    match group.unknown {
        Some(_) => _ = known.unknown_since_ms.get_or_insert(now),
        None => known.unknown_since_ms = None,
    }
    let owned = snapshot.workers.iter().flat_map(|w| &w.groups).any(|own| own.connector == group.name && !own.partitions.is_empty());
    // Without a worker that says what it owns, nobody knows who consumes.
    let told = snapshot.workers.iter().any(|w| !w.groups.is_empty());
    let commits = known.partitions.values().flat_map(|topic| topic.values()).map(|p| &p.commits);
    let moves = group.consumed != Some(0.0) || commits.filter_map(|c| c.front().zip(c.back())).any(|(first, last)| last.1 > first.1);
    let waits = group.unknown.is_some() || group.total_backlog().is_none_or(|backlog| backlog > 0.0);
    if !told || moves || !waits {
        known.still_since_ms = None;
        return None;
    }
    let for_ms = now - *known.still_since_ms.get_or_insert(now);
    let patience_ms = if owned && known.last_need.is_some() { NOTHING_MS } else { NOBODY_MS };
    let why = match (&group.unknown, owned) {
        (Some(why), _) => why.as_str(),
        (None, true) => "its workers take nothing",
        (None, false) => "no worker owns a partition of it",
    };
    (for_ms >= patience_ms).then(|| format!("nothing of it was consumed for {} min ({why}): it counts for nothing", for_ms / 60_000))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "standstill_tests.rs"]
mod tests;
