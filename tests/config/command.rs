//! The program itself: what it prints and how it ends.

use std::process::{Command, Output};

use super::{CONNECTOR, FLEET, write_all};

fn millrace(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millrace")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn schema_prints_the_schema_of_each_file() {
    for (flag, key) in [("--connector", "topics_regex"), ("--fleet", "bigquery")] {
        let output = millrace(&["schema", flag]);
        assert!(output.status.success());
        let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(schema["properties"][key].is_object(), "{schema}");
    }
}

/// `millrace schema --fleet | head -1`: no panic, and the exit code that shells show of a program that the pipe ended.
#[test]
fn a_reader_that_leaves_ends_the_command_quietly() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_millrace")).args(["schema", "--fleet"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(141), ""));
}

#[test]
fn wrong_arguments_end_with_2() {
    for arguments in [&["schema"][..], &["schema", "--connector", "--fleet"], &["rnu"], &[]] {
        assert_eq!(millrace(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

/// Writes the files and runs a command over them.
fn over(command: &[&str], fleet: &str, connectors: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path(), fleet, connectors);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (config, connectors) = (path("millrace.toml"), path("connectors"));
    millrace(&[command, &["--config", &config, "--connectors", &connectors]].concat())
}

#[test]
fn mistakes_end_with_2_and_are_all_on_stderr() {
    for command in ["check", "run"] {
        let output = over(&[command], &FLEET.replace("project", "projekt"), &[("a.toml", &CONNECTOR.replace("topics", "topcs"))]);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains("did you mean `project`?") && errors.contains("did you mean `topics`?"), "{errors}");
    }
}

#[test]
fn files_without_a_mistake_pass() {
    let output = over(&["check", "--files-only"], FLEET, &[("a.toml", CONNECTOR)]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("1 connectors, no mistake found"));
}

/// Nothing listens on port 1: each part is tried, fails, and says so without its password.
#[test]
fn check_names_what_does_not_answer() {
    let fleet = FLEET.replace("9092", "1").replace("8081", "1").replace("urls =", "username = \"u\"\npassword = \"geheim\"\nurls =");
    let fleet = format!("{fleet}credentials = \"none\"\nrest_endpoint = \"http://127.0.0.1:1\"\ngrpc_endpoint = \"http://127.0.0.1:1\"\n");
    let output = over(&["check", "--timeout", "2s"], &fleet, &[("a.toml", CONNECTOR)]);
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{out}{errors}");
    for expected in ["Schema registry\n  ✗ http://127.0.0.1:1", "connector a\n  ", "✗ dataset p.shop"] {
        assert!(out.contains(expected), "no `{expected}` in\n{out}{errors}");
    }
    assert!(!out.contains("geheim") && !errors.contains("geheim"));
}
