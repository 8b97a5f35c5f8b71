//! `millrace decide`: snapshots in, decisions out, a JSON object a line each; anyone can drive the policy with a simulator of their own.

use std::io::{BufRead, Read, Write};

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::Exit;
use crate::scaling::{Decision, Memory, Snapshot, decide as decision};

/// A longer line is no snapshot: memory has a limit.
const LINE_LIMIT: u64 = 64 << 20;

/// No time is later: about the year 33,000.
const LATEST_MS: u64 = 1_000_000_000_000_000;

/// No fleet has more: each worker that is missing is remembered, and Kafka has fewer partitions than that to give.
const WORKERS_MAX: u32 = 100_000;

/// Arguments of `millrace decide`: none. The schema of a line: `millrace schema --decide`; of an answer: `millrace schema --decision`.
#[derive(Debug, Args)]
pub struct DecideArgs {}

/// What stands on stdout for a line of stdin.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer {
    Decided {
        #[serde(flatten)]
        decision: Box<Decision>,
        /// Fields of the line that no snapshot has: nothing was made of them.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        ignored_fields: Vec<String>,
    },
    Wrong {
        error: String,
        line: u64,
        /// The field's path; none when the line is no JSON.
        field: Option<String>,
    },
}

/// Answers every line of stdin at once, until it ends. A line that is no snapshot is answered with an `error` that names line and field,
/// changes nothing in memory, and makes the exit code 1 at the end.
pub fn decide(_: &DecideArgs) -> Exit {
    match answer_all(&mut std::io::stdin().lock(), &mut std::io::stdout().lock(), &mut std::io::stderr().lock()) {
        Ok(0) => Exit::Fine,
        Ok(_) => Exit::Failed,
        // Who read the answers has left: there is nobody to tell.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Fine,
        Err(error) => {
            eprintln!("millrace decide: {error}");
            Exit::Failed
        }
    }
}

/// Answers every line of `input` in turn, from one memory that begins empty; gives how many were no snapshots. What is wrong goes to `log`
/// as well.
///
/// # Errors
/// Reading or writing failed, or a line is longer than 64 MiB.
pub fn answer_all(input: &mut impl BufRead, output: &mut impl Write, log: &mut impl Write) -> std::io::Result<u64> {
    let (mut memory, mut wrong, mut number, mut line) = (Memory::default(), 0, 0, Vec::new());
    let mut warned = Vec::new();
    loop {
        line.clear();
        if input.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line)? == 0 {
            return Ok(wrong);
        }
        number += 1;
        if line.len() as u64 == LINE_LIMIT && line.last() != Some(&b'\n') {
            return Err(std::io::Error::other(format!("line {number} is longer than {LINE_LIMIT} bytes")));
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let answer = match parse(&line) {
            Ok((snapshot, ignored_fields)) => {
                if !ignored_fields.is_empty() && warned != ignored_fields {
                    writeln!(log, "millrace decide: line {number}: ignored, no snapshot has: {}", ignored_fields.join(", "))?;
                    warned.clone_from(&ignored_fields);
                }
                Answer::Decided { decision: Box::new(decision(&snapshot, &mut memory)), ignored_fields }
            }
            Err((field, error)) => {
                wrong += 1;
                let at = field.as_ref().map_or_else(String::new, |f| format!(": field `{f}`"));
                writeln!(log, "millrace decide: line {number}{at}: {error}")?;
                Answer::Wrong { error, line: number, field }
            }
        };
        serde_json::to_writer(&mut *output, &answer)?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
}

/// A snapshot and the fields that it does not know, or the field that is wrong and why.
fn parse(line: &[u8]) -> Result<(Snapshot, Vec<String>), (Option<String>, String)> {
    let value: Value = serde_json::from_slice(line).map_err(|e| (None, format!("no JSON: {e}")))?;
    let snapshot: Snapshot = serde_path_to_error::deserialize(&value).map_err(|error| {
        let path = error.path().to_string();
        let text = error.into_inner().to_string();
        // A missing field is named by the text, not by the path.
        let missing = text.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
        let field = match (path.as_str(), missing) {
            (".", Some(name)) => name.to_owned(),
            (_, Some(name)) => format!("{path}.{name}"),
            _ => path,
        };
        (Some(field), text)
    })?;
    let limits = snapshot.limits;
    if snapshot.now_ms.unsigned_abs() > LATEST_MS || snapshot.window_ms > LATEST_MS {
        return Err((Some("now_ms".to_owned()), format!("now_ms and window_ms must be milliseconds, at most {LATEST_MS}")));
    }
    let counts = [("replicas", snapshot.replicas), ("ready_workers", snapshot.ready_workers.unwrap_or(0)), ("limits.min", limits.min)];
    if let Some((name, count)) = counts.into_iter().find(|(_, count)| *count > WORKERS_MAX) {
        return Err((Some(name.to_owned()), format!("{count} workers: at most {WORKERS_MAX}")));
    }
    if limits.min > limits.max {
        return Err((Some("limits.min".to_owned()), format!("min {} is above max {}", limits.min, limits.max)));
    }
    for (name, target) in [("freshness_target_ms", limits.freshness_target_ms), ("recovery_target_ms", limits.recovery_target_ms)] {
        if target == 0 {
            return Err((Some(format!("limits.{name}")), "a target of 0 cannot be kept".to_owned()));
        }
    }
    let known = serde_json::to_value(&snapshot).map_err(|e| (None, e.to_string()))?;
    let mut ignored = Vec::new();
    unknown_fields(&value, &known, "", &mut ignored);
    ignored.sort();
    ignored.dedup();
    Ok((snapshot, ignored))
}

/// Fields of `given` that reading did not keep. `null` is unknown, as if it were not there. Of a list the elements are not told apart.
fn unknown_fields(given: &Value, known: &Value, path: &str, out: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match known.get(name) {
                    Some(known) => unknown_fields(value, known, &path, out),
                    None => out.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            let path = format!("{path}[]");
            given.iter().zip(known).for_each(|(given, known)| unknown_fields(given, known, &path, out));
        }
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    const LIMITS: &str = r#""limits":{"min":1,"max":4,"freshness_target_ms":30000,"recovery_target_ms":300000}"#;

    fn answers(input: &str) -> (u64, Vec<Value>, String) {
        let (mut out, mut log) = (Vec::new(), Vec::new());
        let wrong = answer_all(&mut input.as_bytes(), &mut out, &mut log).unwrap();
        let lines = String::from_utf8(out).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        (wrong, lines, String::from_utf8(log).unwrap())
    }

    #[test]
    fn a_wrong_line_is_named_and_the_next_one_answered() {
        let good = format!(r#"{{"now_ms":5.0e3,"window_ms":10000,"replicas":2,{LIMITS}}}"#);
        let input = format!("nonsense\n{{\"now_ms\":1}}\n{}\n{good}\n", good.replace("\"min\":1", "\"min\":\"one\""));
        let (wrong, lines, log) = answers(&input);
        assert_eq!((wrong, lines.len()), (3, 4));
        assert_eq!(lines[0]["line"], 1);
        assert_eq!(lines[1]["field"], "window_ms");
        assert_eq!((&lines[2]["field"], &lines[2]["line"]), (&Value::from("limits.min"), &Value::from(3)));
        assert_eq!(lines[3]["replicas"], 2);
        assert!(log.contains("line 3: field `limits.min`"), "{log}");
    }

    #[test]
    fn unknown_fields_are_told_and_null_is_unknown() {
        let line = format!(
            r#"{{"now_ms":1,"window_ms":1,"replicas":9,"ready_workers":null,"colour":"red","groups":[{{"connector":"a","assigner":"range"}}],{LIMITS}}}"#
        );
        let (wrong, lines, log) = answers(&line);
        assert_eq!(wrong, 0);
        assert_eq!(lines[0]["ignored_fields"], serde_json::json!(["colour", "groups[].assigner"]));
        assert_eq!(lines[0]["replicas"], 4);
        assert!(log.contains("colour"), "{log}");
    }

    #[test]
    fn limits_that_cannot_be_kept_are_named() {
        let line = format!(r#"{{"now_ms":1,"window_ms":1,"replicas":1,{}}}"#, LIMITS.replace("\"min\":1", "\"min\":5"));
        assert_eq!(answers(&line).1[0]["field"], "limits.min");
    }

    /// Found by the fuzzer's first input: each of four thousand million missing workers got a clock of its own.
    #[test]
    fn a_fleet_beyond_all_fleets_is_refused() {
        let line = format!(r#"{{"now_ms":1,"window_ms":1,"replicas":4294967295,{LIMITS}}}"#);
        assert_eq!(answers(&line).1[0]["field"], "replicas");
        let line = line.replace("4294967295", "1").replace("\"min\":1,\"max\":4", "\"min\":4294967295,\"max\":4294967295");
        assert_eq!(answers(&line).1[0]["field"], "limits.min");
    }
}
