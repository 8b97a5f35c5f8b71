//! `millrace status`: the fleet as any of its workers sees it, as a table or as JSON.

use std::time::Duration;

use clap::Args;

use super::Exit;
use super::status_table;
use super::stdout::say;

/// Holds the token of a worker that wants one: a command line would show it to everybody on the machine.
const TOKEN: &str = "MILLRACE_API_TOKEN";

/// How long a worker may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Which worker is asked, and how the answer is shown. A worker with `[worker] api_token` wants it in the variable MILLRACE_API_TOKEN.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Where a worker of the fleet serves its status: any one answers for all.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Print the answer as JSON (one line each with --watch): that of `GET /fleet`, or of `GET /status` where the worker knows no fleet.
    #[arg(long)]
    json: bool,
    /// Also a row for each partition: owner, offsets, lag, what is produced and consumed each second.
    #[arg(long)]
    partitions: bool,
    /// Ask again every two seconds until interrupted.
    #[arg(long)]
    watch: bool,
}

/// What a worker answered.
enum Answer {
    /// `GET /fleet`.
    Fleet(serde_json::Value),
    /// `GET /status` of a worker with `[scaling] mode = "off"`.
    Worker(serde_json::Value),
}

/// Shows the status.
pub fn status(args: &StatusArgs) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("millrace: {error}");
            return Exit::Failed;
        }
    };
    runtime.block_on(show(args))
}

async fn show(args: &StatusArgs) -> Exit {
    let client = match reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build() {
        Ok(client) => client,
        Err(error) => {
            eprintln!("millrace: {error}");
            return Exit::Failed;
        }
    };
    loop {
        let answer = ask(&client, args.url.trim_end_matches('/')).await;
        let shown = match &answer {
            Ok(answer) => {
                let text = if args.json { as_json(answer, args.watch) } else { as_table(answer, args.partitions) };
                // Clears the screen and goes to its corner (ECMA-48: ED, CUP).
                let begin = if args.watch && !args.json { "\x1b[2J\x1b[H" } else { "" };
                say!("{begin}{text}");
                true
            }
            Err(why) => {
                eprintln!("millrace: {why}");
                false
            }
        };
        if !args.watch {
            return if shown { Exit::Fine } else { Exit::Failed };
        }
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Exit::Fine,
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
        }
    }
}

async fn ask(client: &reqwest::Client, url: &str) -> Result<Answer, String> {
    if let Some(fleet) = get(client, &format!("{url}/fleet")).await? {
        return Ok(Answer::Fleet(fleet));
    }
    match get(client, &format!("{url}/status")).await? {
        Some(worker) => Ok(Answer::Worker(worker)),
        None => Err(format!("{url} is no worker of millrace: it has neither /fleet nor /status")),
    }
}

/// The JSON at an address; `None` where there is nothing.
async fn get(client: &reqwest::Client, url: &str) -> Result<Option<serde_json::Value>, String> {
    let failed = |error: reqwest::Error| {
        // reqwest names the address twice and hides the cause.
        let cause = std::iter::successors(std::error::Error::source(&error), |error| error.source()).last();
        let words = cause.map_or_else(|| error.to_string(), ToString::to_string);
        let advice =
            if error.is_connect() { ": is a worker running there? --url names another; the address is its [worker] listen" } else { "" };
        format!("{url}: {words}{advice}")
    };
    let mut request = client.get(url);
    if let Ok(token) = std::env::var(TOKEN) {
        request = request.bearer_auth(token.trim());
    }
    let answer = request.send().await.map_err(failed)?;
    match answer.status() {
        reqwest::StatusCode::NOT_FOUND => Ok(None),
        code if code.is_success() => answer.json().await.map(Some).map_err(failed),
        reqwest::StatusCode::UNAUTHORIZED => Err(format!("{url}: the worker wants its token: put [worker] api_token into {TOKEN}")),
        code => Err(format!("{url}: {code}")),
    }
}

fn as_json(answer: &Answer, one_line: bool) -> String {
    let (Answer::Fleet(value) | Answer::Worker(value)) = answer;
    let text = if one_line { serde_json::to_string(value) } else { serde_json::to_string_pretty(value) };
    // A value that was just parsed can be written.
    text.unwrap_or_default()
}

fn as_table(answer: &Answer, partitions: bool) -> String {
    match answer {
        Answer::Fleet(fleet) if partitions => format!("{}\n\n{}", status_table::fleet(fleet), status_table::partitions(fleet)),
        Answer::Fleet(fleet) => status_table::fleet(fleet),
        Answer::Worker(worker) => status_table::worker(worker),
    }
}
