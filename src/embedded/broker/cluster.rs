//! librdkafka's mock cluster on a thread of its own (its handle may not move between threads), asked through a bounded queue.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::error::KafkaResult;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::sync::oneshot;

use crate::embedded::EmbeddedError;

type Mock = MockCluster<'static, DefaultProducerContext>;
type Job = Box<dyn FnOnce(&Mock) + Send>;

/// The mock cluster's owner.
pub(super) struct Cluster {
    jobs: Mutex<Option<SyncSender<Job>>>,
    ports: Vec<u16>,
}

impl Cluster {
    /// Starts so many brokers on ports of their own choice.
    pub(super) async fn start(brokers: u16) -> Result<Self, EmbeddedError> {
        let (jobs, queue) = sync_channel::<Job>(64);
        let (ready, started) = oneshot::channel();
        std::thread::Builder::new()
            .name("mock-cluster".to_owned())
            .spawn(move || own(brokers, ready, &queue))
            .map_err(|e| EmbeddedError::Broker(format!("no thread for the mock cluster: {e}")))?;
        let servers = started.await.map_err(|_| EmbeddedError::Broker("the mock cluster's thread ended".to_owned()))??;
        let ports = servers
            .split(',')
            .map(|s| s.rsplit(':').next().and_then(|p| p.parse().ok()))
            .collect::<Option<Vec<u16>>>()
            .ok_or_else(|| EmbeddedError::Broker(format!("the mock cluster's addresses are not understood: {servers}")))?;
        Ok(Self { jobs: Mutex::new(Some(jobs)), ports })
    }

    /// The brokers' own ports, in the order of their numbers.
    pub(super) fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Ends the thread and with it the cluster.
    pub(super) fn stop(&self) {
        self.jobs.lock().take();
    }

    pub(super) async fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), EmbeddedError> {
        let name = topic.to_owned();
        self.ask(format!("create topic {topic}"), move |mock| mock.create_topic(&name, partitions, 1)).await
    }

    pub(super) async fn broker_down(&self, broker: i32) -> Result<(), EmbeddedError> {
        self.ask(format!("broker {broker} down"), move |mock| mock.broker_down(broker)).await
    }

    pub(super) async fn broker_up(&self, broker: i32) -> Result<(), EmbeddedError> {
        self.ask(format!("broker {broker} up"), move |mock| mock.broker_up(broker)).await
    }

    pub(super) async fn round_trip_time(&self, broker: i32, time: Duration) -> Result<(), EmbeddedError> {
        self.ask(format!("round trip time of broker {broker}"), move |mock| mock.broker_round_trip_time(broker, time)).await
    }

    pub(super) async fn request_errors(&self, api: RDKafkaApiKey, errors: Vec<RDKafkaRespErr>) -> Result<(), EmbeddedError> {
        self.ask("request errors".to_owned(), move |mock| {
            mock.request_errors(api, &errors);
            Ok(())
        })
        .await
    }

    async fn ask(&self, what: String, job: impl FnOnce(&Mock) -> KafkaResult<()> + Send + 'static) -> Result<(), EmbeddedError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |mock| {
            // The asker may be gone; then nobody waits for the answer.
            let _ = answer.send(job(mock));
        });
        let sent = self.jobs.lock().as_ref().map(|jobs| jobs.try_send(job));
        match sent {
            Some(Ok(())) => {}
            Some(Err(_)) => return Err(EmbeddedError::Broker(format!("{what}: the mock cluster's queue is full"))),
            None => return Err(EmbeddedError::Broker(format!("{what}: the cluster is stopped"))),
        }
        match answered.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(EmbeddedError::Broker(format!("{what}: {e}"))),
            Err(_) => Err(EmbeddedError::Broker(format!("{what}: the mock cluster's thread ended"))),
        }
    }
}

fn own(brokers: u16, ready: oneshot::Sender<Result<String, EmbeddedError>>, queue: &Receiver<Job>) {
    let mock = match MockCluster::new(i32::from(brokers)) {
        Ok(mock) => mock,
        Err(e) => {
            let _ = ready.send(Err(EmbeddedError::Broker(format!("librdkafka's mock cluster does not start: {e}"))));
            return;
        }
    };
    let _ = ready.send(Ok(mock.bootstrap_servers()));
    while let Ok(job) = queue.recv() {
        job(&mock);
    }
}
