//! Apicurio's schema registry with its Confluent API, in memory, over HTTP and HTTPS.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use millrace::embedded::ports::free_ports;
use serde_json::{Value, json};

use super::certificates::Certificates;
use super::process::{Process, STARTS_WITHIN, wait_for};

/// A running registry.
pub struct Registry {
    port: u16,
    tls_port: u16,
    _process: Process,
}

impl Registry {
    /// Starts it and waits until it answers.
    pub fn start(parts: &Path, folder: &Path, certificates: &Certificates) -> anyhow::Result<Self> {
        let [port, tls_port, management_port] = free_ports()?;
        let mut process = Process::start("the schema registry", parts.join("jre/bin/java"), &folder.join("out.log"), |command| {
            command
                .args(["-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xss512k", "-jar"])
                .arg(parts.join("registry/quarkus-run.jar"))
                .current_dir(folder)
                .env("QUARKUS_HTTP_HOST", "127.0.0.1")
                .env("QUARKUS_HTTP_PORT", port.to_string())
                .env("QUARKUS_HTTP_SSL_PORT", tls_port.to_string())
                .env("QUARKUS_HTTP_SSL_CERTIFICATE_FILES", &certificates.server_cert)
                .env("QUARKUS_HTTP_SSL_CERTIFICATE_KEY_FILES", &certificates.server_key)
                .env("QUARKUS_HTTP_INSECURE_REQUESTS", "enabled")
                .env("QUARKUS_HTTP_ACCESS_LOG_ENABLED", "false")
                .env("QUARKUS_MANAGEMENT_HOST", "127.0.0.1")
                .env("QUARKUS_MANAGEMENT_PORT", management_port.to_string())
                .env("APICURIO_STORAGE_KIND", "sql")
                .env("APICURIO_STORAGE_SQL_KIND", "h2")
                .env("QUARKUS_LOG_LEVEL", "WARN");
        })?;
        wait_for("the registry answers", STARTS_WITHIN, || {
            process.check_running()?;
            Ok(get(&format!("{}/subjects", address(port))).ok().filter(|(status, _)| *status == 200))
        })?;
        Ok(Self { port, tls_port, _process: process })
    }

    /// Its address, path included.
    pub fn url(&self) -> String {
        address(self.port)
    }

    /// Its address over TLS, with a certificate of the private authority.
    pub fn tls_url(&self) -> String {
        format!("https://127.0.0.1:{}/apis/ccompat/v7", self.tls_port)
    }

    /// Its plain port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Registers an Avro schema; `references` are (name, subject, version). Returns the schema's id.
    pub fn register(&self, subject: &str, schema: &Value, references: &[(&str, &str, u32)]) -> anyhow::Result<u32> {
        let references: Vec<Value> =
            references.iter().map(|(name, subject, version)| json!({"name": name, "subject": subject, "version": version})).collect();
        let body = json!({"schema": schema.to_string(), "schemaType": "AVRO", "references": references});
        let url = format!("{}/subjects/{subject}/versions", self.url());
        let (status, answer) = block(async {
            let answer = reqwest::Client::new().post(&url).json(&body).send().await?;
            Ok((answer.status().as_u16(), answer.text().await?))
        })?;
        if status != 200 {
            bail!("{url} answered {status}: {answer}");
        }
        let id = serde_json::from_str::<Value>(&answer)?["id"].as_u64().with_context(|| format!("no id in {answer}"))?;
        Ok(u32::try_from(id)?)
    }
}

fn address(port: u16) -> String {
    format!("http://127.0.0.1:{port}/apis/ccompat/v7")
}

/// GET: status and body. An error when nobody answers within five seconds.
pub fn get(url: &str) -> anyhow::Result<(u16, String)> {
    block(async {
        let answer = reqwest::Client::new().get(url).timeout(Duration::from_secs(5)).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    })
}

/// As [`get`], of a server that is there: asked again when its answer is late, for a busy machine's sake. Whoever hangs up or refuses is not.
pub fn get_again(url: &str) -> anyhow::Result<(u16, String)> {
    const TIMES: usize = 6;
    let late = |error: &anyhow::Error| error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout);
    for _ in 1..TIMES {
        match get(url) {
            Err(error) if late(&error) => {}
            answer => return answer,
        }
    }
    get(url).with_context(|| format!("asked {TIMES} times"))
}

/// Runs a future on this thread.
pub fn block<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}
