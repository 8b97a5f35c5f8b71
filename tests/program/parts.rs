//! Broker and BigQuery embedded.

use millrace::embedded::bigquery::{EmbeddedBigQuery, Settings};
use millrace::embedded::broker::{BrokerSettings, EmbeddedBroker};
use rdkafka::ClientConfig;
use rdkafka::producer::BaseProducer;

/// A broker and a BigQuery with project `p` and dataset `d`.
pub struct Parts {
    pub runtime: tokio::runtime::Runtime,
    pub broker: EmbeddedBroker,
    pub bigquery: EmbeddedBigQuery,
}

impl Parts {
    /// With a topic of so many partitions, and a table with a column `n`, for each name.
    pub fn start(names: &[&str], partitions: i32) -> Self {
        // The second test finds it installed.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (broker, bigquery) = runtime.block_on(async {
            let broker = EmbeddedBroker::start(BrokerSettings::default()).await.unwrap();
            let bigquery = EmbeddedBigQuery::start(Settings::default()).await.unwrap();
            bigquery.create_dataset("p", "d").unwrap();
            for name in names {
                broker.create_topic(name, partitions).await.unwrap();
                let table = serde_json::json!({
                    "tableReference": { "projectId": "p", "datasetId": "d", "tableId": name },
                    "schema": { "fields": [{ "name": "n", "type": "INTEGER" }] },
                });
                let url = format!("{}/projects/p/datasets/d/tables", bigquery.rest_url());
                let answer = reqwest::Client::new().post(url).body(table.to_string()).send().await.unwrap();
                assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
            }
            (broker, bigquery)
        });
        Self { runtime, broker, bigquery }
    }

    /// `millrace.toml` for workers on them: `kafka`, `worker` are more lines of their sections, `rest` are more sections.
    pub fn millrace_toml(&self, kafka: &str, worker: &str, rest: &str) -> String {
        format!(
            "[kafka]\n\"bootstrap.servers\" = \"{}\"\n{kafka}\n[bigquery]\nproject = \"p\"\ncredentials = \"none\"\nrest_endpoint = \"{}\"\n\
             grpc_endpoint = \"{}\"\n[worker]\nlisten = \"127.0.0.1:0\"\nlog = \"json\"\nmemory = \"64 MiB\"\n{worker}\n{rest}\n",
            self.broker.bootstrap_servers(),
            self.bigquery.rest_url(),
            self.bigquery.grpc_url()
        )
    }

    /// The file of a connector: JSON numbers of a topic of its name into a table of its name.
    pub fn connector_toml(name: &str, linger: &str) -> String {
        format!(
            "topics = [\"{name}\"]\n[value]\nformat = \"json\"\n[table]\nname = \"d.{name}\"\n[delivery]\nlinger = \"{linger}\"\n\
             [errors]\nbad_records = \"stop\"\n"
        )
    }

    pub fn producer(&self) -> BaseProducer {
        ClientConfig::new().set("bootstrap.servers", self.broker.bootstrap_servers()).set("linger.ms", "5").create().unwrap()
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        // The parts end their tasks on it.
        let _inside = self.runtime.enter();
    }
}
