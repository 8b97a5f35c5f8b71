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

#[test]
fn wrong_arguments_end_with_2() {
    for arguments in [&["schema"][..], &["schema", "--connector", "--fleet"], &["rnu"], &[]] {
        assert_eq!(millrace(arguments).status.code(), Some(2), "{arguments:?}");
    }
}
