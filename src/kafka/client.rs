//! A consumer handle that is dropped where that may take its time, and a client that only asks questions.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use tracing::subscriber::{NoSubscriber, with_default};

use super::context::ClientEvents;
use super::error::KafkaError;
use super::properties::{self, Purpose};
use super::queue::{NativeClient, Unanswered};
use super::settings::ClusterSettings;

/// A librdkafka consumer. Destroying one waits for brokers and for every queue and list that refers to it, so the last owner's drop only
/// hands it to a thread of its own: nobody waits for it.
pub(super) struct ConsumerHandle<C: ConsumerContext + 'static>(Option<BaseConsumer<C>>, Mutex<Option<Unanswered>>);

impl<C: ConsumerContext + 'static> ConsumerHandle<C> {
    pub fn new(consumer: BaseConsumer<C>) -> Self {
        Self(Some(consumer), Mutex::default())
    }
}

impl<C: ConsumerContext + 'static> Deref for ConsumerHandle<C> {
    type Target = BaseConsumer<C>;
    fn deref(&self) -> &BaseConsumer<C> {
        match &self.0 {
            Some(consumer) => consumer,
            None => unreachable!("taken only by drop"),
        }
    }
}

impl<C: ConsumerContext + 'static> NativeClient for ConsumerHandle<C> {
    fn native(&self) -> *mut rdkafka_sys::RDKafka {
        self.client().native_ptr()
    }

    fn unanswered(&self) -> &Mutex<Option<Unanswered>> {
        &self.1
    }
}

impl<C: ConsumerContext + 'static> Drop for ConsumerHandle<C> {
    fn drop(&mut self) {
        drop(self.1.lock().take());
        let consumer = self.0.take();
        let close = move || match consumer {
            // rust-rdkafka closes it once more and logs the refusal as an error: it is none.
            Some(consumer) if consumer.closed() => with_default(NoSubscriber::default(), move || drop(consumer)),
            consumer => drop(consumer),
        };
        if let Err(error) = thread::Builder::new().name("kafka-drop".to_owned()).spawn(close) {
            tracing::warn!("no thread for closing a Kafka client, closed in place: {error}");
        }
    }
}

/// A client that asks questions and is no member of any group. A thread of its own serves librdkafka's logs and requests for tokens.
pub(super) struct Outsider {
    consumer: Arc<ConsumerHandle<ClientEvents>>,
    stop: Arc<AtomicBool>,
}

impl Outsider {
    /// `name` goes into `client.id` and the thread's name.
    pub fn new(cluster: &ClusterSettings, group_id: &str, name: &'static str) -> Result<Self, KafkaError> {
        let properties = properties::merge(cluster, &Purpose::Outsider { group_id, name })?;
        let consumer: BaseConsumer<ClientEvents> =
            properties.config.create_with_context(properties.events).map_err(properties::creation_error)?;
        let consumer = Arc::new(ConsumerHandle::new(consumer));
        let stop = Arc::new(AtomicBool::new(false));
        let (served, stopped) = (Arc::clone(&consumer), Arc::clone(&stop));
        thread::Builder::new()
            .name(format!("kafka-{name}"))
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    // An outsider has no assignment in its main queue: what comes here are errors, kept by the context for whoever asks.
                    if let Some(Err(error)) = served.poll(Duration::from_millis(100)) {
                        tracing::debug!(target: "librdkafka", %error, "while asking");
                    }
                }
            })
            .map_err(|error| KafkaError::Stopped(format!("no thread for a Kafka client: {error}")))?;
        Ok(Self { consumer, stop })
    }

    /// The consumer itself, for questions.
    pub fn consumer(&self) -> &Arc<ConsumerHandle<ClientEvents>> {
        &self.consumer
    }

    /// librdkafka's last complaint, such as why no broker could be reached.
    pub fn last_reason(&self) -> Option<String> {
        self.consumer.context().take_reason()
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
