//! The tables of `millrace status`. They are made from the JSON, not from this program's types: a worker of another version may answer.

use std::fmt::Write as _;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde_json::Value;

use crate::fleet::JOIN_WAIT_MAX;

/// What is not known.
const UNKNOWN: &str = "–";
/// Decisions that are listed.
const DECISIONS: usize = 5;

/// A fleet, by the answer of `GET /fleet`.
pub(super) fn fleet(fleet: &Value) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(out, "{}", headline(fleet));
    if let Some(reason) = fleet["decided"]["reason"].as_str() {
        let _ = writeln!(out, "reason: {reason}");
    }
    if let Some(outcome) = fleet["decided"]["outcome"].as_str().filter(|outcome| !outcome.is_empty()) {
        let _ = writeln!(out, "outcome: {outcome}");
    }
    if let Some((workers, left_ms)) = waiting(fleet) {
        let _ =
            writeln!(out, "joining: {workers} wait to join together, for {} at most unless the leader says otherwise", time(Some(left_ms)));
    }
    for remark in list(&fleet["remarks"]).iter().filter_map(Value::as_str) {
        let _ = writeln!(out, "note: {remark}");
    }
    if let Some(trouble) = fleet["trouble"].as_str() {
        let _ = writeln!(out, "trouble: {trouble}");
    }
    let _ = writeln!(out, "\n{}", workers(list(&fleet["workers"])));
    let _ = writeln!(out, "\n{}", connectors(fleet));
    let decisions = list(&fleet["decisions"]);
    if !decisions.is_empty() {
        let _ = writeln!(out, "\nlast decisions, newest first:");
        for decision in decisions.iter().take(DECISIONS) {
            let ago = (number(&fleet["now_ms"]).unwrap_or(0.0) - number(&decision["at_ms"]).unwrap_or(0.0)).max(0.0);
            let (from, to) = (count(&decision["replicas_before"]), count(&decision["replicas"]));
            let reason = decision["reason"].as_str().unwrap_or(UNKNOWN);
            // Every term publishes its first decision, also one that changes nothing.
            let change = if from == to { String::new() } else { format!("{from} -> {to} workers: ") };
            let _ = writeln!(out, "  {} ago: {change}{reason}", time(Some(ago)));
        }
    }
    out.trim_end().to_owned()
}

fn headline(fleet: &Value) -> String {
    let live = count(&fleet["live_workers"]);
    let stale = number(&fleet["stale_workers"]).filter(|stale| *stale > 0.0).map(|stale| format!(", {stale} stale")).unwrap_or_default();
    let wanted = number(&fleet["decided"]["replicas"]).map_or_else(|| "not decided yet".to_owned(), |n| n.to_string());
    let leader = match fleet["leader"]["worker"].as_str() {
        None => "nobody yet".to_owned(),
        Some(name) if fleet["leader"]["stale"] == true => format!("{name} (silent for {})", time(number(&fleet["leader"]["age_ms"]))),
        Some(name) => format!("{name} (term {})", count(&fleet["leader"]["term"])),
    };
    let cost = &fleet["decided"]["decision"]["cost_per_hour"];
    let cost = match (number(&cost["now"]), number(&cost["chosen"]), number(&cost["one_per_partition"])) {
        (Some(now), Some(chosen), Some(each)) => {
            format!(" · per hour: {now:.2} now, {chosen:.2} chosen, {each:.2} with a worker for each partition")
        }
        _ => String::new(),
    };
    let mode = fleet["mode"].as_str().unwrap_or(UNKNOWN);
    format!("{live} workers live{stale} · desired: {wanted} · leader: {leader} · mode {mode}{cost}")
}

/// Who waits to join its groups together with others, and how long that may last yet, milliseconds; `None` when nobody does.
fn waiting(fleet: &Value) -> Option<(String, f64)> {
    let waits = |worker: &&Value| list(&worker["report"]["connectors"]).iter().any(|connector| connector["state"] == "waiting");
    let names: Vec<&str> = list(&fleet["workers"]).iter().filter(waits).filter_map(|worker| worker["report"]["worker"].as_str()).collect();
    let left_ms = number(&fleet["joins_held_until_ms"])? - number(&fleet["now_ms"])?;
    (!names.is_empty()).then(|| (names.join(", "), left_ms.clamp(0.0, JOIN_WAIT_MAX.as_millis() as f64)))
}

fn workers(workers: &[Value]) -> Table {
    let heads = ["worker", "state", "heard", "partitions", "records/s", "bytes/s", "busy", "waits for sink", "memory", "connectors"];
    let mut table = table(&heads, 2..9);
    for worker in workers {
        let report = &worker["report"];
        let partitions: Vec<&Value> = list(&report["connectors"]).iter().flat_map(|c| list(&c["partitions"])).collect();
        let sum = |field: &str| partitions.iter().filter_map(|p| number(&p[field])).reduce(|a, b| a + b);
        let unwell = list(&report["connectors"])
            .iter()
            .filter(|c| c["state"] != "running")
            .map(|c| format!("{} {}", c["connector"].as_str().unwrap_or(UNKNOWN), c["state"].as_str().unwrap_or(UNKNOWN)));
        let unwell: Vec<String> = unwell.collect();
        table.add_row([
            report["worker"].as_str().unwrap_or(UNKNOWN).to_owned(),
            worker["presence"].as_str().unwrap_or(UNKNOWN).to_owned(),
            format!("{} ago", time(number(&worker["age_ms"]))),
            partitions.len().to_string(),
            amount(sum("records_per_s")),
            bytes(sum("bytes_per_s")),
            share(&report["busy_fraction"]),
            share(&report["sink_wait_fraction"]),
            bytes(number(&report["memory"]["used_bytes"])),
            if unwell.is_empty() { "all running".to_owned() } else { unwell.join(", ") },
        ]);
    }
    table
}

fn connectors(fleet: &Value) -> Table {
    let heads = [
        "connector",
        "wished",
        "partitions",
        "lag",
        "lag bytes",
        "lag time",
        "produced/s",
        "consumed/s",
        "bytes in/s",
        "bytes out/s",
        "needs",
        "holds",
    ];
    let mut table = table(&heads, 2..11);
    for connector in list(&fleet["connectors"]) {
        let need = list(&fleet["decided"]["decision"]["connectors"]).iter().find(|need| need["connector"] == connector["connector"]);
        let partitions = list(&connector["partitions"]);
        let at_least = partitions.iter().any(|p| p["lag_at_least"] == true && p["lag_ms"] == connector["lag_ms"]);
        let holds = connector["trouble"].as_str().or_else(|| need.and_then(|need| need["holds"].as_str()));
        table.add_row([
            connector["connector"].as_str().unwrap_or(UNKNOWN).to_owned(),
            connector["desired"].as_str().unwrap_or(UNKNOWN).to_owned(),
            partitions.len().to_string(),
            amount(number(&connector["lag_records"])),
            bytes(number(&connector["lag_bytes"])),
            lag_time(&connector["lag_ms"], at_least),
            amount(number(&connector["produced_records_per_s"])),
            amount(number(&connector["consumed_records_per_s"])),
            bytes(number(&connector["produced_bytes_per_s"])),
            bytes(number(&connector["consumed_bytes_per_s"])),
            need.and_then(|need| number(&need["replicas"])).map_or_else(|| UNKNOWN.to_owned(), |n| n.to_string()),
            holds.unwrap_or_default().to_owned(),
        ]);
    }
    table
}

/// Every partition that the leader measured, by the answer of `GET /fleet`.
pub(super) fn partitions(fleet: &Value) -> String {
    let heads = [
        "connector",
        "partition",
        "worker",
        "committed",
        "end",
        "lag",
        "lag bytes",
        "lag time",
        "produced/s",
        "consumed/s",
        "bytes in/s",
        "bytes out/s",
    ];
    let mut table = table(&heads, 3..12);
    for connector in list(&fleet["connectors"]) {
        for partition in list(&connector["partitions"]) {
            let topic = partition["topic"].as_str().unwrap_or(UNKNOWN);
            table.add_row([
                connector["connector"].as_str().unwrap_or(UNKNOWN).to_owned(),
                format!("{topic}[{}]", count(&partition["partition"])),
                partition["owner"].as_str().unwrap_or("nobody").to_owned(),
                amount(number(&partition["committed_offset"])),
                amount(number(&partition["end_offset"])),
                amount(number(&partition["lag_records"])),
                bytes(number(&partition["lag_bytes"])),
                lag_time(&partition["lag_ms"], partition["lag_at_least"] == true),
                amount(number(&partition["produced_records_per_s"])),
                amount(number(&partition["consumed_records_per_s"])),
                bytes(number(&partition["produced_bytes_per_s"])),
                bytes(number(&partition["consumed_bytes_per_s"])),
            ]);
        }
    }
    table.to_string()
}

fn lag_time(ms: &Value, at_least: bool) -> String {
    match number(ms) {
        Some(ms) if at_least => format!("over {}", time(Some(ms))),
        ms => time(ms),
    }
}

/// One worker that knows no fleet, by the answer of `GET /status`.
pub(super) fn worker(worker: &Value) -> String {
    let mut out = String::new();
    let up = number(&worker["now_ms"]).zip(number(&worker["started_ms"])).map(|(now, then)| now - then);
    let used = bytes(number(&worker["memory"]["used_bytes"]));
    let budget = bytes(number(&worker["memory"]["budget_bytes"]));
    let state = worker["state"].as_str().unwrap_or(UNKNOWN);
    // Writing into a String cannot fail.
    let _ = writeln!(out, "one worker ([scaling] mode = \"off\"): {state} · up {} · memory {used} of {budget}\n", time(up));
    let mut table = table(&["connector", "state", "partitions", "lag", "freshness p50", "p99", "dead letters", "message"], 2..7);
    for connector in list(&worker["connectors"]) {
        let partitions = list(&connector["partitions"]);
        let lag = partitions.iter().filter_map(|p| number(&p["lag_records"])).reduce(|a, b| a + b);
        table.add_row([
            connector["name"].as_str().unwrap_or(UNKNOWN).to_owned(),
            connector["state"].as_str().unwrap_or(UNKNOWN).to_owned(),
            partitions.len().to_string(),
            amount(lag),
            time(number(&connector["freshness"]["p50_ms"])),
            time(number(&connector["freshness"]["p99_ms"])),
            amount(number(&connector["dead_letters"])),
            connector["message"].as_str().unwrap_or_default().to_owned(),
        ]);
    }
    let _ = write!(out, "{table}");
    out
}

fn table(heads: &[&str], numbers: std::ops::Range<usize>) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic).set_header(heads);
    for index in numbers {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64()
}

fn count(value: &Value) -> String {
    number(value).map_or_else(|| UNKNOWN.to_owned(), |n| n.to_string())
}

/// Whole numbers with thousands set apart.
fn amount(value: Option<f64>) -> String {
    let Some(value) = value else { return UNKNOWN.to_owned() };
    let digits = format!("{:.0}", value.abs());
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if value < 0.0 { format!("-{out}") } else { out }
}

fn bytes(value: Option<f64>) -> String {
    let Some(mut value) = value else { return UNKNOWN.to_owned() };
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{value:.0} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// A length of time in milliseconds, in one unit.
fn time(ms: Option<f64>) -> String {
    match ms {
        None => UNKNOWN.to_owned(),
        Some(ms) if ms < 1_000.0 => format!("{ms:.0} ms"),
        Some(ms) if ms < 120_000.0 => format!("{:.1} s", ms / 1_000.0),
        Some(ms) if ms < 7_200_000.0 => format!("{:.0} min", ms / 60_000.0),
        Some(ms) => format!("{:.0} h", ms / 3_600_000.0),
    }
}

fn share(value: &Value) -> String {
    number(value).map_or_else(|| UNKNOWN.to_owned(), |share| format!("{:.0} %", share * 100.0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!((amount(Some(1_234_567.4)), amount(Some(12.0)), amount(None)), ("1,234,567".into(), "12".into(), UNKNOWN.into()));
        assert_eq!(
            (bytes(Some(1023.0)), bytes(Some(1536.0)), bytes(Some(3.0 * 1e12))),
            ("1023 B".into(), "1.5 KiB".into(), "2.7 TiB".into())
        );
        assert_eq!((time(Some(90.0)), time(Some(4_500.0)), time(Some(600_000.0))), ("90 ms".into(), "4.5 s".into(), "10 min".into()));
        assert_eq!((share(&json!(0.254)), share(&Value::Null)), ("25 %".into(), UNKNOWN.into()));
    }

    #[test]
    fn a_fleet_in_a_table() {
        let answer = json!({
            "now_ms": 100_000, "mode": "local", "trouble": null, "live_workers": 2, "stale_workers": 1,
            "leader": {"worker": "worker-0", "term": 3, "age_ms": 400, "stale": false},
            "decided": {"replicas": 4, "reason": "load rises", "outcome": "asked for 4",
                "decision": {"connectors": [{"connector": "stock", "replicas": 4}], "cost_per_hour": {"now": 0.2, "chosen": 0.4, "one_per_partition": 1.6}}},
            "workers": [{"presence": "stale", "age_ms": 9_000, "report": {"worker": "worker-1", "busy_fraction": 0.5,
                "connectors": [{"connector": "stock", "state": "holding", "partitions": [{"records_per_s": 1500.0}, {"records_per_s": null}]}]}}],
            "connectors": [{"connector": "stock", "desired": "running", "lag_records": 12_345, "lag_ms": 61_000, "lag_bytes": null,
                "consumed_bytes_per_s": 2_048.0, "partitions": [{"topic": "t", "partition": 3, "owner": "worker-1", "committed_offset": 5,
                "end_offset": 12_350, "lag_records": 12_345, "lag_ms": 61_000, "lag_at_least": true, "produced_records_per_s": 77.0}]}],
            "remarks": ["open transaction in t[3]"],
            "decisions": [{"at_ms": 40_000, "replicas_before": 2, "replicas": 4, "reason": "load rises"},
                {"at_ms": 30_000, "replicas_before": 2, "replicas": 2, "reason": "stays at 2"}],
        });
        let text = fleet(&answer);
        for part in [
            "2 workers live, 1 stale · desired: 4 · leader: worker-0 (term 3) · mode local · per hour: 0.20 now, 0.40 chosen, 1.60",
            "reason: load rises",
            "outcome: asked for 4",
            "note: open transaction in t[3]",
            "worker-1",
            "stock holding",
            "1,500",
            "50 %",
            "12,345",
            "over 61.0 s",
            "2.0 KiB",
            "60.0 s ago: 2 -> 4 workers: load rises",
            "70.0 s ago: stays at 2",
        ] {
            assert!(text.contains(part), "no `{part}` in\n{text}");
        }
        assert!(!text.contains("trouble") && !text.contains("joining"));
        let each = partitions(&answer);
        for part in ["t[3]", "worker-1", " 5 ", "12,350", "12,345", "over 61.0 s", " 77 ", UNKNOWN] {
            assert!(each.contains(part), "no `{part}` in\n{each}");
        }
        let report =
            |worker: &str, state: &str| json!({"report": {"worker": worker, "connectors": [{"connector": "stock", "state": state}]}});
        let waiting = json!({ "now_ms": 100_000, "joins_held_until_ms": 123_400,
            "workers": [report("worker-1", "running"), report("worker-2", "waiting"), report("worker-3", "waiting")] });
        let text = fleet(&waiting);
        assert!(text.contains("joining: worker-2, worker-3 wait to join together, for 23.4 s at most"), "{text}");
        assert!(text.contains("stock waiting"), "{text}");
        // Nothing of a later version's or a broken answer breaks the table.
        assert!(fleet(&json!({})).contains("nobody yet"));
    }

    #[test]
    fn a_worker_alone_in_a_table() {
        let text = worker(&json!({"state": "running", "now_ms": 5_000, "started_ms": 1_000,
            "connectors": [{"name": "stock", "state": "running", "partitions": [{"lag_records": 7}]}]}));
        assert!(text.contains("mode = \"off\"") && text.contains("up 4.0 s") && text.contains("stock"), "{text}");
    }
}
