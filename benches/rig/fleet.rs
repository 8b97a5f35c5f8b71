//! millrace as its user starts it: `millrace.toml`, connector files, `millrace run`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use millrace::datagen::STOCK_UPDATE_SCHEMA;
use millrace::embedded::ports::free_ports;
use millrace::embedded::registry::{EmbeddedRegistry, RegistrySettings};

use super::process::{Process, wait_for};

/// `[errors]` for records that are all good.
pub const SKIP: &str = "bad_records = \"skip\"";

/// The registry that the records' schema is in. It is asked once a worker.
pub struct Registry {
    runtime: tokio::runtime::Runtime,
    registry: EmbeddedRegistry,
    pub schema_id: u32,
}

impl Registry {
    pub fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let registry = runtime.block_on(EmbeddedRegistry::start(RegistrySettings::default()))?;
        let schema_id = registry.register("stock-value", STOCK_UPDATE_SCHEMA, Vec::new())?;
        Ok(Self { runtime, registry, schema_id })
    }
}

/// A folder with the files of one fleet.
#[derive(Clone)]
pub struct Fleet {
    folder: PathBuf,
    listen: u16,
}

impl Fleet {
    /// `more` is added to the end of `millrace.toml`.
    pub fn new(folder: &Path, bootstrap: &str, registry: &Registry, sink: &str, memory: &str, more: &str) -> Result<Self> {
        std::fs::create_dir_all(folder.join("connectors"))?;
        let [listen] = free_ports()?;
        let text = format!(
            "[kafka]\n\"bootstrap.servers\" = \"{bootstrap}\"\n\n[registry]\nurls = [\"{}\"]\n\n\
             [bigquery]\nproject = \"bench\"\ncredentials = \"none\"\nrest_endpoint = \"{sink}/bigquery/v2\"\ngrpc_endpoint = \"{sink}\"\n\n\
             [worker]\nmemory = \"{memory}\"\nlisten = \"127.0.0.1:{listen}\"\n{more}",
            registry.registry.url()
        );
        std::fs::write(folder.join("millrace.toml"), text)?;
        Ok(Self { folder: folder.to_owned(), listen })
    }

    /// `connectors/<name>.toml`: a topic to a table. `metadata` is a TOML array, `errors` what stands under `[errors]`.
    pub fn connector(&self, name: &str, topic: &str, table: &str, metadata: &str, errors: &str) -> Result<()> {
        self.promising_connector(name, topic, table, metadata, errors, "at-least-once")
    }

    /// The same with a `guarantee`.
    pub fn promising_connector(&self, name: &str, topic: &str, table: &str, metadata: &str, errors: &str, guarantee: &str) -> Result<()> {
        let text = format!(
            "topics = [\"{topic}\"]\n\n[value]\nformat = \"avro\"\n\n[table]\nname = \"{table}\"\ncreate = true\nmetadata = {metadata}\n\n\
             [table.columns]\ntimestamp = {{ type = \"TIMESTAMP\", unit = \"ms\" }}\n\n\
             [delivery]\nguarantee = \"{guarantee}\"\n\n[errors]\n{errors}\n"
        );
        Ok(std::fs::write(self.folder.join("connectors").join(format!("{name}.toml")), text)?)
    }

    /// Starts a worker.
    pub fn start(&self) -> Result<Process> {
        let arguments = [
            "run".to_owned(),
            "--config".to_owned(),
            self.folder.join("millrace.toml").display().to_string(),
            "--connectors".to_owned(),
            self.folder.join("connectors").display().to_string(),
        ];
        Process::start(Path::new(env!("CARGO_BIN_EXE_millrace")), &arguments, &self.folder.join("worker.log"))
    }

    /// Another worker of the same fleet, for its own folder and port: the same connectors.
    pub fn second(&self) -> Result<Self> {
        let folder = self.folder.join("second");
        std::fs::create_dir_all(&folder)?;
        let [listen] = free_ports()?;
        let text = std::fs::read_to_string(self.folder.join("millrace.toml"))?;
        std::fs::write(
            folder.join("millrace.toml"),
            text.replace(&format!("127.0.0.1:{}\"", self.listen), &format!("127.0.0.1:{listen}\"")),
        )?;
        if !folder.join("connectors").exists() {
            std::os::unix::fs::symlink(self.folder.join("connectors"), folder.join("connectors"))?;
        }
        Ok(Self { folder, listen })
    }

    /// How many series `/metrics` has.
    pub fn series(&self) -> Result<u64> {
        let text = get(&format!("http://127.0.0.1:{}/metrics", self.listen))?;
        Ok(text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count() as u64)
    }

    /// The sum of a metric's series.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = get(&format!("http://127.0.0.1:{}/metrics", self.listen))?;
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        Ok(text.lines().filter(of_name).filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }

    pub fn wait_until_live(&self, worker: &mut Process) -> Result<()> {
        wait_for("a live worker", Duration::from_secs(30), || {
            worker.check_running()?;
            Ok(get(&format!("http://127.0.0.1:{}/health/live", self.listen)).ok().map(drop))
        })
    }
}

/// The body of a GET that answers 200.
pub fn get(url: &str) -> Result<String> {
    send("GET", url)
}

/// The body of a POST that answers 200.
pub fn post(url: &str) -> Result<String> {
    send("POST", url)
}

/// By hand, for it is asked often while two cores are measured: a client with TLS would cost milliseconds each time.
fn send(method: &str, url: &str) -> Result<String> {
    let (host, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).context("an http:// address with a path")?;
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "{method} /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("{url} answers {}: {body}", head.lines().next().unwrap_or_default());
    }
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return Ok(body.to_owned());
    }
    let (mut whole, mut rest) = (String::new(), body);
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16)?;
        whole.push_str(after.get(..size).context("a chunk that ends early")?);
        rest = after.get(size + 2..).unwrap_or_default();
        if size == 0 {
            break;
        }
    }
    Ok(whole)
}
