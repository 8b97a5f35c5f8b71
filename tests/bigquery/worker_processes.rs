//! A fleet as its user has it: real `millrace run` processes of one group, and what they say of themselves together.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::future::join_all;

/// Running workers; dropping them kills them.
pub struct Workers {
    processes: Vec<(Child, PathBuf)>,
    urls: Vec<String>,
    http: reqwest::Client,
    _folder: tempfile::TempDir,
}

impl Workers {
    /// Starts `count` workers with these files (`millrace.toml` without `[worker] listen`) and waits until they share `partitions` of each
    /// connector.
    pub async fn start(count: usize, fleet: &str, connectors: &[(&str, String)], partitions: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = folder.path().join("connectors");
        std::fs::create_dir(&files).unwrap();
        for (name, text) in connectors {
            std::fs::write(files.join(format!("{name}.toml")), text).unwrap();
        }
        let (mut processes, mut urls) = (Vec::new(), Vec::new());
        for number in 0..count {
            let [port] = millrace::embedded::ports::free_ports().unwrap();
            let config = folder.path().join(format!("{number}.toml"));
            std::fs::write(&config, format!("{fleet}[worker]\nmemory = \"32 MiB\"\nlisten = \"127.0.0.1:{port}\"\n")).unwrap();
            let log = folder.path().join(format!("{number}.log"));
            let output = std::fs::File::create(&log).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
            command.arg("run").arg("--config").arg(config).arg("--connectors").arg(&files);
            // Should this test be killed, they end too.
            command.env("MILLRACE_EXIT_WITH_PARENT", "1").stdin(Stdio::null());
            command.stdout(output.try_clone().unwrap()).stderr(output);
            processes.push((command.spawn().unwrap(), log));
            urls.push(format!("http://127.0.0.1:{port}/metrics"));
        }
        let mut workers = Self { processes, urls, http: reqwest::Client::new(), _folder: folder };
        let names: Vec<&str> = connectors.iter().map(|(name, _)| *name).collect();
        workers.wait_for_partitions(&names, partitions).await;
        workers
    }

    /// Until every partition of every connector belongs to a worker, and every worker has some.
    async fn wait_for_partitions(&mut self, connectors: &[&str], partitions: usize) {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let each = self.scraped().await;
            let of = |worker: &Metrics, name: &str| worker.sum("millrace_assigned_partitions", &format!("connector=\"{name}\"")) as usize;
            let settled = connectors.iter().all(|name| {
                each.iter().map(|worker| of(worker, name)).sum::<usize>() == partitions && each.iter().all(|worker| of(worker, name) > 0)
            });
            if settled {
                return;
            }
            self.check_running();
            assert!(Instant::now() < deadline, "the partitions are not shared: {}", self.logs());
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// None of them has ended.
    pub fn check_running(&mut self) {
        for at in 0..self.processes.len() {
            if let Some(status) = self.processes[at].0.try_wait().unwrap() {
                panic!("worker {at} ended with {status}: {}", std::fs::read_to_string(&self.processes[at].1).unwrap());
            }
        }
    }

    /// What they print, each at most its last 2,000 characters.
    pub fn logs(&self) -> String {
        let log = |(_, path): &(Child, PathBuf)| {
            let text = std::fs::read_to_string(path).unwrap();
            let cut = text.char_indices().rev().nth(2000).map_or(0, |(at, _)| at);
            format!("--- {}\n{}\n", path.display(), &text[cut..])
        };
        self.processes.iter().map(log).collect()
    }

    async fn scraped(&self) -> Vec<Metrics> {
        join_all(self.urls.iter().map(|url| async move {
            let Ok(answer) = self.http.get(url).send().await else { return Metrics::default() };
            Metrics(answer.text().await.unwrap_or_default())
        }))
        .await
    }

    /// A metric's series with this label in them, summed over all workers.
    pub async fn sum(&self, name: &str, label: &str) -> f64 {
        self.scraped().await.iter().map(|worker| worker.sum(name, label)).sum()
    }

    /// A connector's freshness so far: how many records stayed within each bound (milliseconds).
    pub async fn freshness(&self, connector: &str) -> Freshness {
        let mut all = BTreeMap::new();
        for worker in self.scraped().await {
            for line in worker.0.lines().filter(|line| line.starts_with("millrace_freshness_seconds_bucket{")) {
                let (Some((_, bound)), Some((_, count))) = (line.split_once("le=\""), line.rsplit_once(' ')) else { continue };
                if line.contains(&format!("connector=\"{connector}\"")) {
                    let bound = bound.split('"').next().unwrap();
                    let bound_ms = if bound == "+Inf" { u64::MAX } else { (bound.parse::<f64>().unwrap() * 1000.0) as u64 };
                    *all.entry(bound_ms).or_default() += count.parse::<u64>().unwrap();
                }
            }
        }
        Freshness(all)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for (process, _) in &mut self.processes {
            // One that has ended is fine.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

#[derive(Default)]
struct Metrics(String);

impl Metrics {
    fn sum(&self, name: &str, label: &str) -> f64 {
        let series = self.0.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
        series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }
}

/// Records within each bound in milliseconds: cumulative, as Prometheus counts.
pub struct Freshness(BTreeMap<u64, u64>);

impl Freshness {
    /// The bound that 99 of 100 of the records since `earlier` stayed within, and how many records these are.
    pub fn p99_since(&self, earlier: &Self) -> (Duration, u64) {
        let since = |bound: u64| self.0.get(&bound).unwrap_or(&0) - earlier.0.get(&bound).unwrap_or(&0);
        let count = since(u64::MAX);
        let within = self.0.keys().find(|bound| since(**bound) * 100 >= count * 99).expect("the last bound holds all");
        (Duration::from_millis(*within), count)
    }
}
