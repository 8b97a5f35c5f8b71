//! Junk: lines with holes, with numbers that no fleet has, with clocks that stand or jump. Whatever stands in a line, its answer comes at once, is an error that names the
//! line or a number within the limits, and the lines after it are answered as well.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::decider::Decider;
use crate::lines::Line;

/// Sessions of one process each, and the lines of each.
const SESSIONS: u64 = 24;
const LINES: i64 = 60;

/// Calls `change` with every place of a JSON value, some of them: a place is an object or list and the key or index in it.
fn somewhere(value: &mut Value, rng: &mut StdRng, chance: f64, change: &mut impl FnMut(&mut Value, &mut StdRng)) {
    match value {
        Value::Object(fields) => {
            let names: Vec<String> = fields.keys().cloned().collect();
            for name in names {
                if rng.random_bool(chance) {
                    change(&mut fields[&name], rng);
                }
                somewhere(&mut fields[&name], rng, chance, change);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|v| somewhere(v, rng, chance, change)),
        _ => {}
    }
}

/// What somebody's program may write where a number belongs.
fn odd(rng: &mut StdRng) -> Value {
    let odds = [
        json!(null),
        json!(-1),
        json!(0),
        json!(-0.0),
        json!(1e-300),
        json!(1e300),
        json!(-1e18),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(4_294_967_295_u64),
        json!(0.5),
        json!("NaN"),
        json!([]),
        json!({}),
    ];
    odds.choose(rng).cloned().unwrap_or(Value::Null)
}

/// Lists lose, double and shuffle what is in them.
fn relist(value: &mut Value, rng: &mut StdRng) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(|v| relist(v, rng)),
        Value::Array(list) => {
            list.iter_mut().for_each(|v| relist(v, rng));
            match rng.random_range(0..12) {
                0 => list.clear(),
                1 => list.truncate(list.len() / 2),
                2 => list.extend(list.first().cloned()),
                3 => list.reverse(),
                _ => {}
            }
        }
        _ => {}
    }
}

fn broken(rng: &mut StdRng, t: i64, replicas: u32) -> Value {
    let rate = 10_f64.powf(rng.random_range(0.0..6.0));
    let line = Line {
        partitions: rng.random_range(1..40),
        ready: rng.random_range(1..=replicas.clamp(1, 60)),
        rate,
        backlog: rate * rng.random_range(0.0..200.0),
        busy: rng.random_range(0.0..1.2),
        sink_wait: rng.random_range(0.0..1.0),
        state: if rng.random_bool(0.2) { "rebalancing" } else { "stable" },
        ..Line::new(t, replicas)
    };
    let mut value = line.value();
    let chance = [0.0, 0.02, 0.2].choose(rng).copied().unwrap_or(0.0);
    if rng.random_bool(0.3) {
        relist(&mut value, rng);
    }
    let limits = value["limits"].clone();
    if rng.random_bool(0.5) {
        // What is required stays, everything else may be gone.
        somewhere(&mut value["groups"], rng, chance, &mut |v, _| *v = Value::Null);
        somewhere(&mut value["workers"], rng, chance, &mut |v, _| *v = Value::Null);
    } else {
        somewhere(&mut value, rng, chance, &mut |v, rng| *v = odd(rng));
        if rng.random_bool(0.7) {
            value["limits"] = limits;
        }
    }
    value
}

#[test]
fn whatever_stands_in_a_line_it_is_answered_within_the_limits() {
    for seed in 0..SESSIONS {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut decider = Decider::start();
        let (mut t, mut replicas, mut decided) = (1_000_000, 3_u32, 0);
        for number in 0..LINES {
            t += [0, 1, 5, 5, 10, 60, 3600, -30, 86_400 * 365].choose(&mut rng).copied().unwrap_or(5);
            let value = broken(&mut rng, t, replicas);
            let answer = decider.ask(&value.to_string());
            let told = format!("seed {seed}, line {}: {value}\n{answer}", number + 1);
            if let Some(error) = answer.get("error") {
                assert!(error.as_str().is_some_and(|e| !e.is_empty()) && answer["line"] == json!(number + 1), "{told}");
                continue;
            }
            let n = answer["replicas"].as_u64().unwrap_or_else(|| panic!("{told}"));
            let limit = |name: &str| value["limits"][name].as_f64().unwrap_or(0.0).round();
            let before = value["replicas"].as_f64().unwrap_or(0.0).round();
            let within = n as f64 >= limit("min") && n as f64 <= limit("max").max(1.0);
            // A snapshot that is not newer is no reason to change anything.
            assert!(within || n as f64 == before, "{told}");
            assert!(answer["reason"].as_str().is_some_and(|r| !r.is_empty()), "{told}");
            replicas = (n as u32).clamp(1, 60);
            decided += 1;
        }
        assert!(decided > 10, "seed {seed}: {decided} lines were snapshots");
    }
}

#[test]
fn steady_load_seen_through_holes_does_not_make_the_fleet_swing() {
    for protocol in ["cooperative", "eager"] {
        let mut rng = StdRng::seed_from_u64(7);
        let mut decider = Decider::start();
        let (mut t, mut replicas, mut resizes) = (0, 3, 0);
        while t < 7200 {
            t += rng.random_range(2..40);
            // 2.2 workers' worth, a little more and less.
            let rate = 2200.0 * rng.random_range(0.95..1.05);
            let busy = rate / 1000.0 / f64::from(replicas);
            let line = Line { rate, produced: t as f64 * 2200.0, busy: busy.min(1.0), ..Line::new(t, replicas) };
            let mut value = line.value();
            value["groups"][0]["protocol"] = json!(protocol);
            value["window_ms"] = json!(rng.random_range(1..60) * 1000);
            match rng.random_range(0..5) {
                0 => somewhere(&mut value["groups"], &mut rng, 0.1, &mut |v, _| {
                    if v.is_number() {
                        *v = Value::Null
                    }
                }),
                1 => value["workers"] = json!([]),
                2 => value["groups"] = json!([]),
                3 => somewhere(&mut value["workers"], &mut rng, 0.2, &mut |v, _| {
                    if v.is_f64() {
                        *v = json!(-1.0)
                    }
                }),
                _ => {}
            }
            let answer = decider.ask(&value.to_string());
            let Some(n) = answer["replicas"].as_u64() else { continue };
            resizes += u32::from(n != u64::from(replicas));
            replicas = n as u32;
            assert!((2..=12).contains(&replicas), "{protocol}, second {t}: {value}\n{answer}");
        }
        assert!(resizes <= 20, "{protocol}: {resizes} resizes in two hours of a load that stays");
    }
}
