//! What is shipped for Kubernetes and Prometheus: the chart, what is rendered from it, alerts and the dashboard.
//!
//! helm comes from `tests/deploy/install` (network, once).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod chart;
mod platform;
mod queries;
mod values;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs helm over the chart.
fn helm(arguments: &[&str]) -> Output {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        let installed = Command::new(root().join("tests/deploy/install")).output().unwrap();
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        Path::new(String::from_utf8(installed.stdout).unwrap().lines().last().unwrap()).join("helm")
    });
    Command::new(program).args(arguments).current_dir(root()).output().unwrap()
}

/// `helm template`, as it must come out: one document an object.
fn rendered(arguments: &[&str]) -> String {
    let output = helm(&[&["template", "millrace", "deploy/chart", "--namespace", "millrace"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Why helm refuses these values.
fn refusal(arguments: &[&str]) -> String {
    let output = helm(&[&["template", "millrace", "deploy/chart"], arguments].concat());
    assert!(!output.status.success(), "helm took {arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}
