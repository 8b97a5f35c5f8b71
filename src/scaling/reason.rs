//! The decision in words.

use super::grow::Stays;
use super::limits::Hold;
use super::round::Round;

fn thousands(n: f64) -> String {
    let digits = format!("{:.0}", n.max(0.0));
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// What the connectors produce and what workers can do.
fn facts(round: &Round<'_>) -> String {
    let mut parts = Vec::new();
    for (standing, group) in round.groups.iter().zip(&round.view.groups) {
        if standing.hold.as_ref().is_some_and(Hold::blind) {
            continue;
        }
        let Some(total) = group.total else { continue };
        let mut text = format!("{} gets {} records/s", group.name, thousands(total));
        if standing.outlook.peak() > total * 1.05 {
            text += &format!(" (heading for {}", thousands(standing.outlook.peak()));
            text += &standing.outlook.period_s.map_or_else(|| ")".to_owned(), |s| format!(", it recurs every {s:.0} s)"));
        }
        if let (Some(cost), false) = (standing.cost_s.filter(|c| *c > 0.0), standing.proven_only) {
            text += &format!(", a worker can do {}", thousands(1.0 / cost));
        }
        if let Some(lag) = standing.lag_s.filter(|l| *l >= 1.0) {
            text += &format!(", {lag:.0} s behind");
        }
        parts.push(text);
    }
    parts.join("; ")
}

/// What holds, is hot, is open.
fn remarks(round: &Round<'_>) -> String {
    let mut out = String::new();
    for (standing, group) in round.groups.iter().zip(&round.view.groups) {
        if let Some(hold) = &standing.hold {
            // What it gets still asks for workers while it rebalances.
            out += &format!("; {} {} {}", group.name, if hold.blind() { "holds:" } else { "is" }, hold.words);
        }
        if let Some(hot) = standing.hot.first() {
            let share = group.rates[*hot] * standing.cost_s.unwrap_or(0.0) * 100.0;
            out +=
                &format!("; hot partition {}: it alone asks for {share:.0} % of a worker, more workers do not help it", group.labels[*hot]);
        }
        if let Some(open) = &group.open_transaction {
            out += &format!("; open transaction on {open}: what lies behind it cannot be read yet");
        }
    }
    for (place, speed) in round.speeds.iter().enumerate().filter(|(_, s)| **s < 1.0) {
        out += &format!("; {} is slow: {:.0} % of the others", round.view.workers[place].id, speed * 100.0);
    }
    out
}

fn joined(head: String, round: &Round<'_>) -> String {
    let facts = facts(round);
    let sep = if facts.is_empty() { "" } else { ": " };
    format!("{head}{sep}{facts}{}", remarks(round))
}

pub(super) fn up(round: &Round<'_>, n: u32) -> String {
    let models = round.models();
    let percent = |n: u32| round.at(&models, n).demand * 100.0;
    let (now, then) = (percent(round.ready.clamp(1, round.snapshot.replicas.max(1))), percent(n));
    joined(format!("up from {} to {n}", round.snapshot.replicas), round)
        + &format!("; with what is expected the fullest worker then has {then:.0} % of what it can do, instead of {now:.0} %")
}

pub(super) fn down(round: &Round<'_>, n: u32) -> String {
    let text = format!("down from {} to {n}, which would have done for the last minutes", round.snapshot.replicas);
    // What comes later is answered later: by now's load.
    let fullest = round.at(&round.present_models(), n).demand * 100.0;
    joined(text, round) + &format!("; the fullest worker then has {fullest:.0} % of what it can do")
}

pub(super) fn stays(round: &Round<'_>, why: &str, stays: Stays) -> String {
    let behind_s = round.tuning.lag_trigger * round.snapshot.limits.freshness_target_ms as f64 / 1000.0;
    let behind = round.groups.iter().any(|g| g.hold.is_none() && g.lag_s.is_some_and(|lag| lag > behind_s));
    let more = match stays {
        Stays::Most if behind && round.snapshot.replicas >= round.snapshot.limits.max => "; more are not allowed",
        Stays::Most if behind => "; there are no more partitions for more workers",
        Stays::Useless if behind => "; more workers would not take anything from the one that is furthest behind",
        _ => "",
    };
    let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
    let starting = if round.missing > 0 && why.is_empty() { format!(", {} still starting", round.missing) } else { String::new() };
    joined(format!("stays at {}{starting}{why}", round.snapshot.replicas), round) + more
}

pub(super) fn absent(round: &Round<'_>, why: &str) -> String {
    let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
    let head = format!(
        "stays at {}: {} not started within {} s and {} as absent, asking for more would not help{why}",
        round.snapshot.replicas,
        if round.overdue == 1 { "1 worker has".to_owned() } else { format!("{} workers have", round.overdue) },
        round.snapshot.limits.startup_deadline_ms() / 1000,
        if round.overdue == 1 { "counts" } else { "count" }
    );
    joined(head, round)
}

pub(super) fn all_hold(round: &Round<'_>) -> String {
    format!("stays at {}: nothing to decide on{}", round.snapshot.replicas, remarks(round))
}

pub(super) fn nothing_runs(round: &Round<'_>, wanted: u32, wait_s: f64) -> String {
    let replicas = round.snapshot.replicas;
    let (head, later) = match wanted {
        _ if wanted < replicas => (format!("down from {replicas} to {wanted}"), String::new()),
        _ if wait_s > 0.0 => (format!("stays at {replicas}"), format!(", the least will do in {wait_s:.0} s")),
        _ => (format!("stays at {replicas}"), String::new()),
    };
    format!("{head}: no connector is running{later}{}", remarks(round))
}

pub(super) fn over_ceiling(round: &Round<'_>, n: u32) -> String {
    let why = if n >= round.snapshot.limits.max { "the most that is allowed" } else { "there are no more partitions to work on" };
    format!("down from {} to {n}: {why}", round.snapshot.replicas)
}
