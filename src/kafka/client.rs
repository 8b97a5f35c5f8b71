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
use super::properties;
use super::purpose::{Errand, Purpose};
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

impl ConsumerHandle<ClientEvents> {
    /// A consumer that carries a group's name, for its rights, and never joins it.
    ///
    /// # Errors
    /// Properties that librdkafka or millrace's promises refuse.
    pub fn outside(cluster: &ClusterSettings, group_id: &str, errand: Errand) -> Result<Self, KafkaError> {
        let properties = properties::merge(cluster, &Purpose::Outsider { group_id, errand })?;
        let consumer = properties.config.create_with_context(properties.events).map_err(properties::creation_error)?;
        Ok(Self::new(consumer))
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
    /// A client for this errand, with the rights of this group.
    ///
    /// # Errors
    /// As [`ConsumerHandle::outside`]; no thread.
    pub fn new(cluster: &ClusterSettings, group_id: &str, errand: Errand) -> Result<Self, KafkaError> {
        let consumer = Arc::new(ConsumerHandle::outside(cluster, group_id, errand)?);
        let stop = Arc::new(AtomicBool::new(false));
        let (served, stopped) = (Arc::clone(&consumer), Arc::clone(&stop));
        thread::Builder::new()
            .name(format!("kafka-{}", errand.name()))
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

    /// librdkafka's last complaint in parentheses, such as why no broker could be reached; nothing without one.
    pub fn because(&self) -> String {
        self.consumer.context().because()
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
