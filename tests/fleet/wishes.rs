//! Connectors paused, resumed, restarted and stopped on every worker, by the command and over HTTP; and what HTTP gives away.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use millrace::embedded::bigquery::Stall;
use serde_json::Value;

use super::rig::Rig;
use crate::machine::{Watch, stood_still_between};

/// How soon every worker follows.
const FOLLOWED_WITHIN_MS: i64 = 2_000;
const TOKEN: &str = "token-that-nobody-sees-0123456789";
const SECRETS: [&str; 5] =
    [TOKEN, "kafka-password-nobody-sees", "registry-password-nobody-sees", "key-password-nobody-sees", "connector-password-nobody-sees"];

fn command(rig: &Rig, arguments: &[&str]) -> std::process::Output {
    let (config, connectors) = (rig.path("millrace.toml"), rig.path("connectors"));
    let mut all = vec!["connectors", arguments[0]];
    all.extend(["--config", config.to_str().unwrap(), "--connectors", connectors.to_str().unwrap()]);
    all.extend(&arguments[1..]);
    rig.program(&all)
}

/// Tells by the command; gives when, by this machine's clock, milliseconds since the epoch.
fn tell(rig: &Rig, verb: &str) -> i64 {
    let told = command(rig, &[verb, "numbers", "--json"]);
    let text = String::from_utf8(told.stdout).unwrap();
    assert!(told.status.success(), "{text}{}", String::from_utf8_lossy(&told.stderr));
    let told: Value = serde_json::from_str(&text).unwrap();
    told[0]["wish"]["at_ms"].as_i64().unwrap()
}

/// The code, the head and the body of a request with the token, where one is given.
fn ask(rig: &Rig, number: usize, method: &str, path: &str, token: Option<&str>) -> (u16, String) {
    let url = rig.url(number);
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    let header = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: x\r\n{header}Content-Length: 0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

fn connector(rig: &Rig, number: usize) -> Value {
    let (code, answer) = ask(rig, number, "GET", "/status", Some(TOKEN));
    assert_eq!(code, 200, "{answer}");
    let status: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    status["connectors"][0].clone()
}

fn state(rig: &Rig, number: usize) -> String {
    connector(rig, number)["state"].as_str().unwrap().to_owned()
}

fn taken(rig: &Rig, number: usize) -> i64 {
    connector(rig, number)["partitions"].as_array().unwrap().iter().map(|partition| partition["position"].as_i64().unwrap()).sum()
}

/// Waits for the state on these workers; since when they were in it must be within the bound after the wish, by the time in which the
/// machine worked.
fn wait_for(rig: &Rig, numbers: &[usize], wanted: &str, wished_ms: i64) {
    for number in numbers {
        rig.wait_until(wanted, |rig| state(rig, *number) == wanted);
        let since_ms = connector(rig, *number)["since_ms"].as_i64().unwrap();
        let after_ms = since_ms - wished_ms - stood_still_between(wished_ms, since_ms).as_millis() as i64;
        assert!(after_ms <= FOLLOWED_WITHIN_MS, "worker {number} {wanted} {after_ms} ms after the wish");
    }
}

fn starts(rig: &Rig, number: usize) -> usize {
    fs::read_to_string(rig.path(&format!("log.{number}"))).unwrap().matches("connector started").count()
}

fn stands_still(rig: &Rig, numbers: &[usize]) {
    let all = |rig: &Rig| -> Vec<i64> { numbers.iter().map(|number| taken(rig, *number)).collect() };
    // What was taken before the pause reaches the shard's next turn.
    rig.wait_until("a second in which nothing is taken", |rig| {
        let before = all(rig);
        thread::sleep(Duration::from_secs(1));
        before == all(rig)
    });
}

fn moves(rig: &Rig, numbers: &[usize]) {
    for number in numbers {
        rig.wait_until("records taken", |rig| state(rig, *number) == "running");
        let before = taken(rig, *number);
        rig.wait_until("more records taken", |rig| taken(rig, *number) > before);
    }
}

fn with_secrets() -> Rig {
    let more = format!("min = 2\nmax = 2\n[registry]\nurls = [\"http://127.0.0.1:1\"]\nusername = \"u\"\npassword = \"{}\"\n", SECRETS[2]);
    let rig = Rig::new(&more);
    let text = fs::read_to_string(rig.path("millrace.toml")).unwrap();
    // Over plaintext neither is used; both are part of what must not be shown.
    let kafka = format!("[kafka]\n\"sasl.password\" = \"{}\"\n\"ssl.key.password\" = \"{}\"\n", SECRETS[1], SECRETS[3]);
    let text = text.replace("[kafka]\n", &kafka).replace("[worker]\n", &format!("[worker]\napi_token = \"{TOKEN}\"\n"));
    fs::write(rig.path("millrace.toml"), text).unwrap();
    let file = fs::read_to_string(rig.path("connectors/numbers.toml")).unwrap();
    let kafka = format!("[kafka]\n\"sasl.password\" = \"{}\"\n[value]\n", SECRETS[4]);
    fs::write(rig.path("connectors/numbers.toml"), file.replace("[value]\n", &kafka)).unwrap();
    rig
}

#[test]
fn every_worker_follows_within_two_seconds_and_after_restarts() {
    let mut rig = with_secrets();
    let _flow = rig.produce(400);
    rig.start(0);
    rig.start(1);
    moves(&rig, &[0, 1]);

    let wished = tell(&rig, "pause");
    wait_for(&rig, &[0, 1], "paused", wished);
    stands_still(&rig, &[0, 1]);
    assert_eq!(ask(&rig, 0, "GET", "/health/ready", None).0, 200, "what was told to rest does what it should");
    rig.wait_until("the gauge", |rig| rig.metric(0, "millrace_connector_asked_to_rest{connector=\"numbers\"}") == Some(1.0));

    // A worker that starts later reads it before it starts the connector.
    rig.kill(1);
    rig.start(1);
    rig.wait_until("a paused start", |rig| state(rig, 1) == "paused");
    rig.wait_until("its partitions", |rig| connector(rig, 1)["partitions"].as_array().is_some_and(|all| all.len() == 2));
    assert_eq!(connector(&rig, 1)["partitions"].as_array().unwrap().iter().map(|p| p["records"].as_i64().unwrap()).sum::<i64>(), 0);
    stands_still(&rig, &[0, 1]);

    tell(&rig, "resume");
    moves(&rig, &[0, 1]);

    // Once on every worker, and not again when a worker comes later.
    let before = [starts(&rig, 0), starts(&rig, 1)];
    tell(&rig, "restart");
    rig.wait_until("both restarted", |rig| starts(rig, 0) == before[0] + 1 && starts(rig, 1) == before[1] + 1);
    moves(&rig, &[0, 1]);
    rig.kill(1);
    rig.start(1);
    moves(&rig, &[1]);
    assert_eq!((starts(&rig, 0), starts(&rig, 1)), (before[0] + 1, 1));

    // Over HTTP, by one worker for both.
    let (code, answer) = ask(&rig, 1, "POST", "/connectors/numbers/stop", Some(TOKEN));
    assert_eq!(code, 202, "{answer}");
    let answer: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    wait_for(&rig, &[0, 1], "stopped", answer["wish"]["at_ms"].as_i64().unwrap());
    assert_eq!(ask(&rig, 0, "POST", "/connectors/numbers/restart", Some(TOKEN)).0, 409, "what is stopped cannot restart");
    assert_eq!(ask(&rig, 0, "POST", "/connectors/nobody/stop", Some(TOKEN)).0, 404);
    assert_eq!(ask(&rig, 0, "POST", "/connectors/numbers/resume", None).0, 401);
    rig.terminate(0);
    rig.wait_for_end(0);
    rig.start(0);
    rig.wait_until("it stays stopped", |rig| state(rig, 0) == "stopped");
    assert_eq!(starts(&rig, 0), 0);

    let listed = command(&rig, &["list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((&listed[0]["connector"], &listed[0]["desired"]), (&"numbers".into(), &"stopped".into()), "{listed}");
    rig.wait_until("both in the list", |rig| {
        let listed: Value = serde_json::from_slice(&command(rig, &["list", "--json"]).stdout).unwrap();
        let workers = listed[0]["workers"].as_object().unwrap();
        workers.len() == 2 && workers.values().all(|worker| worker["state"] == "stopped")
    });
    let table = String::from_utf8(command(&rig, &["list"]).stdout).unwrap();
    assert!(["numbers", "stopped", "worker-0", "worker-1"].iter().all(|part| table.contains(part)), "{table}");

    tell(&rig, "resume");
    moves(&rig, &[0, 1]);

    let unknown = command(&rig, &["pause", "nubmers"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("there are numbers"));
}

/// Tells over HTTP, again where the topic of wishes took too long; gives the code, and the wished state and restart.
fn told(rig: &Rig, number: usize, verb: &str) -> (u16, String, u64) {
    let mut last = (0, String::new());
    rig.wait_until("an answer that is not 503", |rig| {
        last = ask(rig, number, "POST", &format!("/connectors/numbers/{verb}"), Some(TOKEN));
        last.0 != 503
    });
    let (code, answer) = last;
    let answer: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let wish = &answer["wish"];
    (code, wish["state"].as_str().unwrap_or_default().to_owned(), wish["restart"].as_u64().unwrap_or_default())
}

#[test]
fn what_is_told_builds_on_what_was_told_before_whichever_worker_is_asked() {
    let mut rig = with_secrets();
    rig.start(0);
    rig.start(1);
    for number in [0, 1] {
        rig.wait_until("a running connector", |rig| state(rig, number) == "running");
        rig.wait_until("a worker that can be told", |rig| told(rig, number, "resume").0 == 202);
    }
    // What one has written comes to the others, and to itself, a while later.
    rig.slow_fetches();
    let paused = |restart| (202, "paused".to_owned(), restart);
    assert_eq!(told(&rig, 0, "pause"), paused(0));
    let (code, state, restart) = told(&rig, 1, "restart");
    assert!((code, state.as_str()) == (202, "paused") && restart > 0, "it stays paused: {code} {state} {restart}");
    assert_eq!(told(&rig, 1, "pause"), paused(restart), "or it would restart once more");
    assert_eq!(told(&rig, 0, "stop"), (202, "stopped".to_owned(), restart));
    assert_eq!(told(&rig, 0, "restart").0, 409, "what is stopped cannot restart");
    assert_eq!(told(&rig, 1, "resume").0, 202);
    assert_eq!(told(&rig, 1, "restart").0, 202, "it is stopped no more");
}

/// What a worker knows of the wishes about the connector: the state and the restart.
fn known(rig: &Rig, number: usize) -> (String, u64) {
    let (_, answer) = ask(rig, number, "GET", "/fleet", Some(TOKEN));
    let fleet: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let wish = &fleet["wishes"]["numbers"];
    (wish["state"].as_str().unwrap_or_default().to_owned(), wish["restart"].as_u64().unwrap_or_default())
}

#[test]
fn of_what_two_workers_are_told_at_the_same_moment_nothing_is_lost() {
    let mut rig = with_secrets();
    rig.start(0);
    rig.start(1);
    for number in [0, 1] {
        rig.wait_until("a running connector", |rig| state(rig, number) == "running");
        rig.wait_until("a worker that can be told", |rig| told(rig, number, "resume").0 == 202);
    }
    rig.slow_fetches();
    let both = |first: &str, second: &str| {
        let rig = &rig;
        thread::scope(|scope| {
            let other = scope.spawn(move || told(rig, 1, second));
            (told(rig, 0, first), other.join().unwrap())
        })
    };
    let mut restarted = 0;
    for round in 0..6 {
        // What came last, so that both wait for it and write in the same moment.
        let (before, verb) = if round % 2 == 0 { ("resume", "pause") } else { ("pause", "resume") };
        assert_eq!(told(&rig, round % 2, before).0, 202);
        let ((code, state, _), (restart_code, _, restart)) = both(verb, "restart");
        assert_eq!((code, restart_code), (202, 202), "neither hinders the other");
        assert!(restart != restarted && state == if verb == "pause" { "paused" } else { "running" }, "{state}");
        restarted = restart;
        for number in [0, 1] {
            rig.wait_until("both orders on every worker", |rig| known(rig, number) == (state.clone(), restart));
        }
        // Of two states one holds, and whoever was told so.
        let ((first_code, first, _), (second_code, second, _)) = both("pause", "resume");
        let answers = [(first_code, first, "paused"), (second_code, second, "running")];
        let holds = answers.iter().filter(|(code, ..)| *code == 202).map(|(_, state, _)| state.clone()).collect::<Vec<_>>();
        assert!(!holds.is_empty() && answers.iter().all(|(code, ..)| [202, 409].contains(code)), "{answers:?}");
        assert!(answers.iter().all(|(code, state, asked)| *code == 409 || state == asked), "{answers:?}");
        rig.wait_until("one state everywhere", |rig| known(rig, 0) == known(rig, 1));
        assert!(holds.contains(&known(&rig, 0).0), "{answers:?}");
    }
}

#[test]
fn a_worker_that_is_told_to_end_before_it_knows_the_wishes_starts_nothing() {
    let mut rig = with_secrets();
    rig.brokers_down();
    rig.start(0);
    rig.wait_until("it waits for the wishes", |rig| rig.log(0).contains("waiting for the fleet's state topic"));
    rig.terminate(0);
    rig.wait_for_end(0);
    let log = rig.log(0);
    assert!(!log.contains("connector started"), "it would join its group and leave it again: {log}");
    assert!(log.contains("worker stopped"), "{log}");
}

#[test]
fn what_is_wished_while_a_stop_drains_is_done_after_it() {
    let mut rig = with_secrets();
    let _flow = rig.produce(400);
    rig.start(0);
    moves(&rig, &[0]);
    // The stop drains for as long as BigQuery does not answer; it is shown as stopped since it was told.
    rig.stall(Stall::Appends);
    rig.wait_until("rows on their way", |rig| {
        rig.metric(0, "millrace_memory_used_bytes{kind=\"in_flight\"}").is_some_and(|bytes| bytes > 0.0)
    });
    tell(&rig, "stop");
    let asked_to_rest = |rig: &Rig| rig.metric(0, "millrace_connector_asked_to_rest{connector=\"numbers\"}");
    rig.wait_until("the stop", |rig| state(rig, 0) == "stopped" && asked_to_rest(rig) == Some(1.0));
    let told_ms = tell(&rig, "resume");
    rig.wait_until("the worker knows", |rig| asked_to_rest(rig) == Some(0.0));
    assert!(!rig.log(0).contains("connector stopped"), "the stop still drains: else this shows nothing");
    rig.stall(Stall::Off);
    moves(&rig, &[0]);
    assert_eq!(starts(&rig, 0), 2);
    assert!(connector(&rig, 0)["since_ms"].as_i64().unwrap() > told_ms);
}

#[test]
fn no_answer_holds_a_secret() {
    let mut rig = with_secrets();
    // A file with a mistake and a secret is shown with its place, not with its text.
    let wrong = "topics = [\"numbers\"]\n[kafka]\n\"sasl.password\" = \"connector-password-nobody-sees\"\n\"sasl.pasword\" = \"key-password-nobody-sees\"\n";
    fs::write(rig.path("connectors/wrong.toml"), wrong).unwrap();
    rig.start(0);
    rig.wait_until("a running connector", |rig| state(rig, 0) == "running");
    let mut seen = BTreeSet::new();
    let paths =
        ["/", "/status", "/fleet", "/metrics", "/health/live", "/health/ready", "/nothing", "/connectors/numbers/pause", "/connectors/x/y"];
    for path in paths {
        for method in ["GET", "POST"] {
            for token in [None, Some(TOKEN), Some("wrong-token-0123456789")] {
                let (code, answer) = ask(&rig, 0, method, path, token);
                seen.insert(code);
                for secret in SECRETS {
                    assert!(!answer.contains(secret), "{method} {path} shows {secret}: {answer}");
                }
            }
        }
    }
    assert!([200, 202, 401, 404, 405].iter().all(|code| seen.contains(code)), "{seen:?}");
    // It listens where it was told to, and nowhere else.
    let port = rig.url(0).rsplit(':').next().unwrap().to_owned();
    assert!(rig.url(0).starts_with("http://127.0.0.1:"));
    let begun = Watch::start();
    assert!(TcpStream::connect(format!("127.0.0.2:{port}")).is_err() && begun.elapsed() < Duration::from_secs(5));
    for secret in SECRETS {
        assert!(!fs::read_to_string(rig.path("log.0")).unwrap().contains(secret), "the log shows {secret}");
    }
}
