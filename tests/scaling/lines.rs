//! Lines by hand: what a decision must and must not do with what it is told.

use serde_json::{Value, json};

use crate::decider::Decider;

/// A fleet of equal partitions at second `t`: 1,000 records/s in all unless said otherwise, nothing waiting.
pub struct Line {
    pub t: i64,
    pub replicas: u32,
    pub ready: u32,
    pub partitions: usize,
    pub rate: f64,
    pub produced: f64,
    pub backlog: f64,
    pub busy: f64,
    pub sink_wait: f64,
    pub state: &'static str,
}

impl Line {
    pub fn new(t: i64, replicas: u32) -> Self {
        Self {
            t,
            replicas,
            ready: replicas,
            partitions: 12,
            rate: 1000.0,
            produced: t as f64 * 1000.0,
            backlog: 0.0,
            busy: 0.5,
            sink_wait: 0.0,
            state: "stable",
        }
    }

    pub fn value(&self) -> Value {
        let each = self.partitions as f64;
        let partition = |p: usize| {
            let end = (self.produced / each) as i64;
            json!({"topic": "t", "partition": p, "end_offset": end, "committed_offset": end - (self.backlog / each) as i64,
                "produced_records_per_s": self.rate / each, "produced_bytes_per_s": self.rate * 300.0 / each,
                "lag_ms": (self.backlog / self.rate.max(1.0) * 1000.0) as i64})
        };
        let worker = |w: u32| {
            let owned: Vec<Value> =
                (0..self.partitions).filter(|p| *p as u32 % self.ready == w).map(|p| json!({"topic": "t", "partition": p})).collect();
            json!({"id": format!("w-{w}"), "ordinal": w, "busy_fraction": self.busy, "sink_wait_fraction": self.sink_wait,
                "groups": [{"connector": "c", "partitions": owned, "consumed_records_per_s": self.rate.min(1e9) / f64::from(self.ready)}]})
        };
        json!({"now_ms": self.t * 1000, "window_ms": 10000, "replicas": self.replicas, "ready_workers": self.ready,
            "groups": [{"connector": "c", "assignor": "cooperative-sticky", "protocol": "cooperative", "state": self.state,
                "partitions": (0..self.partitions).map(partition).collect::<Vec<_>>()}],
            "workers": (0..self.ready).map(worker).collect::<Vec<_>>(),
            "limits": {"min": 1, "max": 50, "freshness_target_ms": 30000, "recovery_target_ms": 300000}})
    }

    fn ask(&self, decider: &mut Decider) -> Value {
        decider.ask(&self.value().to_string())
    }
}

fn replicas(answer: &Value) -> u64 {
    answer["replicas"].as_u64().unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn a_bad_line_is_named_and_memory_goes_on() {
    let mut decider = Decider::start();
    for t in [10, 20, 30] {
        assert_eq!(replicas(&Line::new(t, 2).ask(&mut decider)), 2);
    }
    let mut line = Line::new(40, 2).value();
    line["groups"][0]["partitions"][3]["end_offset"] = json!("many");
    let answer = decider.ask(&line.to_string());
    assert_eq!((&answer["line"], &answer["field"]), (&json!(4), &json!("groups[0].partitions[3].end_offset")), "{answer}");
    // What the first lines taught is still there: a worker at half its capacity does 500 records/s.
    let answer = Line::new(50, 2).ask(&mut decider);
    let capacity = answer["connectors"][0]["worker_capacity_records_per_s"].as_f64().unwrap();
    assert!((900.0..1100.0).contains(&capacity), "{answer}");
    assert_eq!(decider.end(), 1);
}

#[test]
fn load_that_stays_brings_workers_and_idleness_takes_them() {
    let mut decider = Decider::start();
    (1..7).for_each(|i| assert_eq!(replicas(&Line::new(i * 10, 2).ask(&mut decider)), 2));
    // Four times the load: 4 workers' worth, the two are full and fall behind.
    let mut answer = Value::Null;
    for i in 0..4 {
        let line = Line {
            rate: 4000.0,
            produced: 60_000.0 + f64::from(i + 1) * 40_000.0,
            backlog: 20_000.0 * f64::from(i + 1),
            busy: 1.0,
            ..Line::new(70 + 10 * i64::from(i), 2)
        };
        let mut value = line.value();
        value["workers"].as_array_mut().unwrap().iter_mut().for_each(|w| w["groups"][0]["consumed_records_per_s"] = json!(1000.0));
        answer = decider.ask(&value.to_string());
        if replicas(&answer) > 2 {
            break;
        }
    }
    assert!((4..=12).contains(&replicas(&answer)), "{answer}");
    assert!(answer["reason"].as_str().unwrap().starts_with("up from 2"), "{answer}");
    // Then nothing for ten minutes.
    let mut now = replicas(&answer) as u32;
    for i in 0..60 {
        let idle = Line { rate: 10.0, produced: 300_000.0 + f64::from(i) * 100.0, busy: 0.0, ..Line::new(200 + i64::from(i) * 10, now) };
        now = replicas(&idle.ask(&mut decider)) as u32;
    }
    assert_eq!(now, 1);
    assert_eq!(decider.end(), 0);
}

#[test]
fn an_unknown_lag_never_shrinks_the_fleet() {
    let mut decider = Decider::start();
    for i in 1..90 {
        let mut line = Line { busy: 0.05, ..Line::new(i * 10, 6) }.value();
        for p in line["groups"][0]["partitions"].as_array_mut().unwrap() {
            p.as_object_mut().unwrap().retain(|k, _| k != "lag_ms" && k != "committed_offset");
        }
        let answer = decider.ask(&line.to_string());
        assert_eq!(replicas(&answer), 6, "{answer}");
    }
}

#[test]
fn nothing_known_changes_nothing() {
    let mut decider = Decider::start();
    for i in 1..90 {
        let answer = decider.ask(
            &json!({"now_ms": i * 10_000, "window_ms": 10000, "replicas": 6, "groups": [{"connector": "c", "partitions": [{"topic": "t", "partition": 0},
                {"topic": "t", "partition": 1}, {"topic": "t", "partition": 2}, {"topic": "t", "partition": 3}, {"topic": "t", "partition": 4},
                {"topic": "t", "partition": 5}]}], "workers": [],
                "limits": {"min": 1, "max": 50, "freshness_target_ms": 30000, "recovery_target_ms": 300000}})
            .to_string(),
        );
        assert_eq!(replicas(&answer), 6, "{answer}");
        assert!(answer["connectors"][0]["holds"].as_str().unwrap().contains("unknown"), "{answer}");
    }
}

#[test]
fn what_workers_cannot_lift_is_said() {
    // The sink takes nothing: lag grows, workers wait.
    let mut decider = Decider::start();
    (1..7).for_each(|i| assert_eq!(replicas(&Line::new(i * 10, 2).ask(&mut decider)), 2));
    let mut said = false;
    for i in 0..12 {
        let line = Line { backlog: 10_000.0 * f64::from(i + 1), busy: 0.0, sink_wait: 0.95, ..Line::new(70 + i64::from(i) * 10, 2) };
        let mut value = line.value();
        value["workers"].as_array_mut().unwrap().iter_mut().for_each(|w| w["groups"][0]["consumed_records_per_s"] = json!(0.0));
        let answer = decider.ask(&value.to_string());
        assert_eq!(replicas(&answer), 2, "{answer}");
        said |= answer["reason"].as_str().unwrap().contains("sink-limited");
    }
    assert!(said);
}

#[test]
fn a_hot_partition_is_named_and_does_not_scale_the_fleet_to_its_partitions() {
    let mut decider = Decider::start();
    let mut answer = Value::Null;
    let mut now = 2;
    for i in 1..60_i64 {
        // A worker can do 1,000; partition 0 alone gets 3,000, the other eleven 500 in all.
        let mut line = Line { rate: 500.0, produced: i as f64 * 5000.0, busy: 1.0, ..Line::new(i * 10, now) }.value();
        let hot = &mut line["groups"][0]["partitions"][0];
        hot["produced_records_per_s"] = json!(3000.0);
        hot["end_offset"] = json!(i * 30_000);
        hot["committed_offset"] = json!(i * 10_000);
        hot["lag_ms"] = json!(i * 6_600);
        for (w, worker) in line["workers"].as_array_mut().unwrap().iter_mut().enumerate() {
            let rest = 500.0 / f64::from(now);
            worker["groups"][0]["consumed_records_per_s"] = json!(if w == 0 { 1000.0 } else { rest });
            worker["busy_fraction"] = json!(if w == 0 { 1.0 } else { rest / 1000.0 });
        }
        answer = decider.ask(&line.to_string());
        now = replicas(&answer) as u32;
    }
    assert!(answer["reason"].as_str().unwrap().contains("hot partition t/0"), "{answer}");
    assert!(now <= 6, "{answer}");
}

#[test]
fn missing_workers_are_awaited_then_counted_as_absent() {
    let mut decider = Decider::start();
    for i in 1..60_i64 {
        let answer = Line { ready: 2, ..Line::new(i * 10, 5) }.ask(&mut decider);
        let (n, absent) = (replicas(&answer), answer["absent"].as_bool().unwrap());
        assert_eq!(answer["missing_workers"], 3);
        assert!(n <= 5, "{answer}");
        assert!(absent || n == 5, "shrunk while workers were starting: {answer}");
        assert_eq!(absent, i * 10 - 10 > 180, "{answer}");
    }
}

#[test]
fn limits_and_partitions_bound_the_number() {
    let mut decider = Decider::start();
    let mut none = Line::new(10, 1).value();
    none["replicas"] = json!(0);
    assert_eq!(decider.ask(&none.to_string())["replicas"], 1);
    // Fewer partitions than there were are believed when they have stayed so for a minute; without a past, at once.
    let four = |t| Line { partitions: 4, ..Line::new(t, 9) };
    for t in [20, 50, 79] {
        assert_eq!(replicas(&four(t).ask(&mut decider)), 9);
    }
    let answer = four(80).ask(&mut decider);
    assert_eq!(replicas(&answer), 4, "{answer}");
    assert_eq!(replicas(&four(20).ask(&mut Decider::start())), 4);
}

#[test]
fn a_group_that_cannot_be_measured_takes_no_worker_away_and_stops_nobody_else() {
    for how in ["trouble", "none listed", "some listed"] {
        let mut decider = Decider::start();
        for i in 1..60 {
            let mut line = Line { busy: 0.05, ..Line::new(i * 10, 9) }.value();
            match how {
                "trouble" => {
                    line["groups"][0]["trouble"] = json!("no answer");
                    line["groups"][0]["partitions"] = json!([]);
                }
                "none listed" => line["groups"][0]["partitions"] = json!([]),
                _ => line["groups"][0]["partitions"].as_array_mut().unwrap().truncate(2),
            }
            let answer = decider.ask(&line.to_string());
            assert_eq!(replicas(&answer), 9, "{how}: {answer}");
            assert!(answer["connectors"][0]["holds"].is_string(), "{how}: {answer}");
        }
    }
    // Another one that needs more gets them.
    let mut decider = Decider::start();
    let dark = json!({"connector": "dark", "trouble": "no answer", "partitions": []});
    let mut ask = |line: Line, consumed: f64| {
        let mut value = line.value();
        value["workers"].as_array_mut().unwrap().iter_mut().for_each(|w| w["groups"][0]["consumed_records_per_s"] = json!(consumed));
        value["groups"].as_array_mut().unwrap().push(dark.clone());
        decider.ask(&value.to_string())
    };
    (1..7).for_each(|i| assert_eq!(replicas(&ask(Line::new(i * 10, 2), 500.0)), 2));
    let mut last = Value::Null;
    for i in 0..4 {
        let n = f64::from(i + 1);
        let t = 70 + 10 * i64::from(i);
        last = ask(Line { rate: 4000.0, produced: 60_000.0 + n * 40_000.0, backlog: 20_000.0 * n, busy: 1.0, ..Line::new(t, 2) }, 1000.0);
        if replicas(&last) > 2 {
            break;
        }
    }
    assert!(replicas(&last) > 2, "{last}");
    assert!(last["connectors"][1]["holds"].as_str().unwrap().contains("no answer"), "{last}");
}

#[test]
fn the_schema_fits_what_is_read_and_written() {
    let schema = |of: &str| -> Value {
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_millrace")).args(["schema", of]).output().unwrap();
        serde_json::from_slice(&out.stdout).unwrap()
    };
    let line = Line::new(10, 2).value();
    let problems = |schema: &Value, value: &Value| -> Vec<String> {
        jsonschema::validator_for(schema).unwrap().iter_errors(value).map(|e| e.to_string()).collect()
    };
    assert_eq!(problems(&schema("--decide"), &line), Vec::<String>::new());
    assert!(!problems(&schema("--decide"), &json!({"now_ms": 1})).is_empty());
    let answer = Decider::start().ask(&line.to_string());
    assert_eq!(problems(&schema("--decision"), &answer), Vec::<String>::new());
}
