//! Examples below the help of commands. `tests` parses each of them, so that none outlives its arguments.

pub(super) const PROGRAM: &str = "Examples:
  millrace demo                                        # everything embedded: see it work
  millrace check --config millrace.toml --connectors connectors
  millrace run --config millrace.toml --connectors connectors
  millrace status --url http://127.0.0.1:8080 --watch";

pub(super) const RUN: &str =
    "The connectors' folder is followed: a connector whose file changes is started, restarted or stopped; one whose file has a mistake goes
on as before. SIGTERM drains and commits; a second one leaves at once. A change of millrace.toml needs a restart.

Examples:
  millrace run --config millrace.toml --connectors connectors
  MILLRACE_LOG=info,millrace::kafka=debug millrace run";

pub(super) const CHECK: &str = "Exit codes: 0 all went well; 1 something that was tried failed; 2 a file has a mistake.

Examples:
  millrace check --config millrace.toml --connectors connectors
  millrace check --files-only                          # in CI: connects to nothing";

pub(super) const DEMO: &str = "Exit codes: 0 all there; 1 something is missing, wrong or there too often; 3 the run proves nothing.

Examples:
  millrace demo
  millrace demo --kill-every 5s --faults heavy
  millrace demo --guarantee exactly-once --kill-every 3s --faults heavy
  millrace demo --load day --for 3m --report json";

pub(super) const EMBEDDED: &str = "It prints the addresses for millrace.toml: `kafka` is [kafka] \"bootstrap.servers\", `registry` [registry] urls, `bigquery` with /bigquery/v2 behind it
[bigquery] rest_endpoint, `bigquery-grpc` [bigquery] grpc_endpoint; and credentials = \"none\". The broker is librdkafka's mock: it keeps everything
in memory, does not say who is in a group, and takes `millrace offsets set` only for a group that has had no member yet.

Example:
  millrace embedded --topic orders:4 --topic orders.dead:1 --dataset my-project.shop";

pub(super) const DATAGEN: &str = "Example:
  millrace datagen --brokers 127.0.0.1:9092 --topic orders --rate 500 --for 30s --bad-records 1%";

pub(super) const DECIDE: &str = "What a line may hold: millrace schema --decide, millrace schema --decision.

Example:
  millrace decide < snapshots.jsonl";

pub(super) const SIMULATE: &str = "Examples:
  millrace simulate --trace flash,day --seeds 10
  millrace simulate --csv load.csv --capacity 8000 --reasons --svg load.svg";

pub(super) const STATUS: &str = "A worker with [worker] api_token wants the token in the environment variable MILLRACE_API_TOKEN.

Examples:
  millrace status
  millrace status --url http://worker:8080 --watch";

pub(super) const SCHEMA: &str = "Examples:
  millrace schema --fleet > millrace.schema.json
  millrace schema --connector > connector.schema.json";

pub(super) const OFFSETS_SET: &str = "Examples:
  millrace offsets set orders --to earliest --dry-run
  millrace offsets set orders --to 2026-03-01T12:00:00Z
  millrace offsets set orders --topic orders --partition 3 --to 4200";

pub(super) const DEAD_LETTERS_LIST: &str = "Examples:
  millrace dead-letters list orders
  millrace dead-letters list orders --since 2h --cause TruncatedData";

pub(super) const DEAD_LETTERS_SHOW: &str = "Example:
  millrace dead-letters show orders 0:42";

pub(super) const DEAD_LETTERS_REPLAY: &str = "Examples:
  millrace dead-letters replay orders --dry-run
  millrace dead-letters replay orders --cause UnknownField --since 2h";

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use clap::{CommandFactory, Parser};

    use crate::cli::Cli;

    /// The help of a command and of those below it.
    fn helps(command: &clap::Command) -> Vec<String> {
        let own = command.get_after_help().map(ToString::to_string);
        own.into_iter().chain(command.get_subcommands().flat_map(helps)).collect()
    }

    #[test]
    fn every_example_is_understood() {
        let mut tried = 0;
        for help in helps(&Cli::command()) {
            for line in help.lines().filter(|line| line.starts_with("  ")) {
                let line = line.split(['#', '<', '>']).next().unwrap();
                let words = line.split_whitespace().skip_while(|word| word.contains('=') && !word.starts_with('-'));
                let parsed = Cli::try_parse_from(words);
                assert!(parsed.is_ok(), "`{line}`: {}", parsed.err().unwrap());
                tried += 1;
            }
        }
        assert!(tried > 20, "only {tried} examples were found");
    }
}
