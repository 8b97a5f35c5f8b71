//! Dead letters listed, shown and replayed, and a connector that holds because its records die: the real program on the embedded broker.

use std::fs;

use serde_json::Value;

use super::rig::Rig;

/// A rig whose connector writes dead letters.
fn with_letters(more: &str) -> Rig {
    let rig = Rig::new("min = 1\nmax = 1");
    let file = fs::read_to_string(rig.path("connectors/numbers.toml")).unwrap();
    let errors = format!("bad_records = \"dead-letter\"\n{more}");
    fs::write(rig.path("connectors/numbers.toml"), file.replace("bad_records = \"stop\"", &errors)).unwrap();
    rig
}

fn command(rig: &Rig, words: &[&str]) -> Value {
    let (config, connectors) = (rig.path("millrace.toml"), rig.path("connectors"));
    let mut all = words.to_vec();
    all.extend(["--json", "--config", config.to_str().unwrap(), "--connectors", connectors.to_str().unwrap()]);
    let answer = rig.program(&all);
    let (out, error) = (String::from_utf8(answer.stdout).unwrap(), String::from_utf8(answer.stderr).unwrap());
    assert!(answer.status.success(), "{words:?}: {out}{error}");
    serde_json::from_str(&out).unwrap()
}

fn letters(rig: &Rig, number: usize) -> u64 {
    let status: Value = serde_json::from_str(&rig.get(number, "/status").1).unwrap();
    status["connectors"][0]["dead_letters"].as_u64().unwrap()
}

fn of_cause<'a>(list: &'a Value, cause: &str) -> &'a Value {
    list["causes"].as_array().unwrap().iter().find(|of| of["cause"] == cause).unwrap_or(&Value::Null)
}

#[test]
fn letters_are_replayed_once_by_the_present_rules_while_the_fleet_runs() {
    let mut rig = with_letters("");
    rig.start(0);
    for n in 0..3 {
        // The second has a column that is not there yet.
        rig.send(0, &[format!("{{\"n\":{n}}}"), format!("{{\"n\":{},\"m\":{}}}", 100 + n, 200 + n)]);
        rig.send(1, &["{\"n\":\"no number\"}".to_owned()]);
    }
    rig.wait_until("letters and rows", |rig| letters(rig, 0) == 6 && rig.column("n") == [0, 1, 2]);
    let list = command(&rig, &["dead-letters", "list", "numbers"]);
    let unknown = of_cause(&list, "UnknownField");
    assert_eq!((&unknown["letters"], &unknown["replayed"]), (&3.into(), &0.into()), "{list}");
    assert_eq!(unknown["example"]["partition"], 0, "{list}");
    let causes: u64 = list["causes"].as_array().unwrap().iter().map(|of| of["letters"].as_u64().unwrap()).sum();
    assert_eq!(causes, 6);
    let at = unknown["example"]["at"].as_str().unwrap();
    let shown = command(&rig, &["dead-letters", "show", "numbers", at]);
    assert_eq!(shown["record"]["topic"], "numbers");
    assert!(shown["record"]["value"]["text"].as_str().unwrap().contains("\"m\""), "{shown}");

    rig.add_column("m");
    let dry = command(&rig, &["dead-letters", "replay", "numbers", "--dry-run"]);
    assert_eq!((&dry["chosen"], &dry["rows"]), (&6.into(), &Value::Null));
    let one = command(&rig, &["dead-letters", "replay", "numbers", "--cause", "UnknownField", "--offsets", "0-1"]);
    assert_eq!((&one["chosen"], &one["rows"], &one["dead_again"]), (&1.into(), &1.into(), &0.into()), "{one}");
    let rest = command(&rig, &["dead-letters", "replay", "numbers"]);
    assert_eq!(
        (&rest["chosen"], &rest["rows"], &rest["dead_again"], &rest["replayed_before"]),
        (&5.into(), &2.into(), &3.into(), &1.into()),
        "{rest}"
    );
    assert_eq!((rig.column("m"), rig.column("n")), (vec![200, 201, 202], vec![0, 1, 2, 100, 101, 102]));

    let list = command(&rig, &["dead-letters", "list", "numbers"]);
    assert_eq!(
        (&of_cause(&list, "UnknownField")["letters"], &of_cause(&list, "UnknownField")["replayed"]),
        (&3.into(), &3.into()),
        "{list}"
    );
    let again = command(&rig, &["dead-letters", "replay", "numbers", "--cause", "UnknownField"]);
    assert_eq!((&again["chosen"], &again["replayed_before"]), (&0.into(), &3.into()), "{again}");
    // Those that died again are letters of their own, and say how often they were replayed.
    let more = command(&rig, &["dead-letters", "replay", "numbers", "--dry-run"]);
    assert_eq!(more["chosen"], 3, "{more}");
    let again = command(&rig, &["dead-letters", "replay", "numbers"]);
    assert_eq!((&again["rows"], &again["dead_again"]), (&0.into(), &3.into()), "{again}");
    let asked = command(&rig, &["dead-letters", "replay", "numbers", "--cause", "UnknownField", "--again"]);
    assert_eq!(asked["rows"], 3, "{asked}");
    assert_eq!(rig.column("m"), [200, 200, 201, 201, 202, 202], "asked for, and so there twice");

    // The fleet went on meanwhile, and nothing of its own was touched.
    assert_eq!(letters(&rig, 0), 6);
    rig.send(2, &["{\"n\":7}".to_owned()]);
    rig.wait_until("the next record", |rig| rig.column("n").contains(&7));
}

#[test]
fn a_connector_whose_records_die_holds_and_goes_on_when_they_are_good() {
    let mut rig = with_letters("max_dead_share = 0.3");
    let values: Vec<String> = (0..400).map(|n| format!("{{\"n\":{n},\"m\":{n}}}")).collect();
    rig.send(0, &values);
    rig.start(0);
    rig.wait_until("a hold", |rig| {
        let status: Value = serde_json::from_str(&rig.get(0, "/status").1).unwrap();
        let connector = &status["connectors"][0];
        connector["state"] == "holding" && connector["message"].as_str().is_some_and(|why| why.contains("max_dead_share = 0.3"))
    });
    rig.wait_until("the gauge", |rig| {
        rig.metric(0, "millrace_held_partitions{connector=\"numbers\",cause=\"dead_share\"}").is_some_and(|held| held >= 1.0)
    });
    // Those on their way when it began to hold are durable too.
    rig.wait_until("no letter on its way", |rig| {
        let status: Value = serde_json::from_str(&rig.get(0, "/status").1).unwrap();
        let partition = status["connectors"][0]["partitions"].as_array().unwrap().iter().find(|of| of["partition"] == 0).unwrap().clone();
        partition["committed"] == partition["position"]
    });
    let held = letters(&rig, 0);
    assert!((100..400).contains(&held), "{held} letters: not the whole topic");
    std::thread::sleep(std::time::Duration::from_secs(8));
    assert_eq!(letters(&rig, 0), held, "a try costs no letter");
    // The cause is mended: nobody needs to tell the connector.
    rig.add_column("m");
    rig.wait_until("all others", |rig| rig.column("m").len() as u64 + held == 400);
    assert_eq!(letters(&rig, 0), held);
}
