//! The way to BigQuery, played at the `Appender` and below the REST client: slow, and with answers that are lost, late, or never come. What
//! arrives stands in `warehouse.rs`.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use millrace::bigquery::{Append, AppendFailure, Appender, ErrorClass, NoAnswer, RestCall, RestTransport, RowError};
use serde_json::{Value, json};

use super::mutants::Mutant;
use super::run::FAULTS;
use super::scene::{ProcessId, Scene};

/// How long an append may stay unanswered.
const APPEND_TIMEOUT: Duration = Duration::from_secs(8);

/// Until when what is wrong.
#[derive(Default, Clone, Copy)]
pub struct Troubles {
    /// Answers take seconds.
    pub slow: Duration,
    /// Appends are not answered.
    pub dead: Duration,
    /// Appends fail, answers are lost.
    pub flaky: Duration,
    /// Rows are refused for a permission.
    pub forbidden: Duration,
    /// REST calls fail, or their answers are lost.
    pub rest: Duration,
}

/// An append that failed.
pub fn failure(class: ErrorClass, maybe_durable: bool) -> AppendFailure {
    AppendFailure { class, message: "as told".to_owned(), row_errors: Vec::new(), maybe_durable }
}

/// A process's way to BigQuery.
#[derive(Clone)]
pub struct Client {
    pub scene: Scene,
    pub process: ProcessId,
}

impl Client {
    /// Of this process.
    pub fn new(scene: &Scene, process: ProcessId) -> Self {
        Self { scene: scene.clone(), process }
    }

    /// What is wrong with BigQuery.
    pub fn troubles(&self) -> Troubles {
        self.scene.warehouse.troubles()
    }

    /// How long one way takes.
    pub fn way(&self) -> Duration {
        let slow = self.troubles().slow > self.scene.world.now();
        self.scene.world.draw_span(Duration::from_millis(if slow { 3000 } else { 60 }))
    }
}

impl Appender for Client {
    fn append(&self, append: Append) -> BoxFuture<'static, Result<(), AppendFailure>> {
        let client = self.clone();
        async move { client.send(append).await }.boxed()
    }
}

impl Client {
    /// The way of an append to the network: room on the connection, then the gate, right before its bytes leave.
    pub async fn leave(&self, append: &Append) -> Result<(), AppendFailure> {
        let Self { scene, process } = self;
        let (world, warehouse) = (&scene.world, &scene.warehouse);
        world.pass(world.draw_span(Duration::from_millis(20))).await;
        if world.now() < FAULTS && warehouse.chance(scene.pause_share) {
            scene.freeze(*process, world.draw_span(Duration::from_secs(12)));
            world.pass(Duration::ZERO).await;
        }
        if append.gate.as_ref().is_some_and(|gate| !gate.is_open()) && scene.mutant != Mutant::NoGate {
            scene.oracle.see(|seen| seen.withheld += 1);
            return Err(failure(ErrorClass::Withheld, false));
        }
        scene.oracle.leaves(*process);
        Ok(())
    }

    async fn send(self, append: Append) -> Result<(), AppendFailure> {
        self.leave(&append).await?;
        let (oracle, process, rows) = (self.scene.oracle.clone(), self.process, append.row_count);
        oracle.on_way(process, rows);
        let outcome = self.answered(append).await;
        oracle.answered(process, rows, outcome.as_ref().is_err_and(|failure| failure.maybe_durable));
        outcome
    }

    async fn answered(self, append: Append) -> Result<(), AppendFailure> {
        let Self { scene, process } = &self;
        let (world, warehouse) = (&scene.world, &scene.warehouse);
        let (troubles, row_count) = (self.troubles(), append.row_count);
        let now = world.now();
        let server = warehouse.any_server();
        if troubles.dead > now {
            // Whether it lands is known when the servers are back, if it does at all; its sender hears nothing.
            if warehouse.chance(0.5) {
                let (scene, process) = (scene.clone(), *process);
                world.after(troubles.dead - now, move |_| {
                    if scene.warehouse.land(&scene, process, server, &append).is_ok() {
                        scene.oracle.see(|seen| seen.late += 1);
                    }
                });
            }
            world.pass(APPEND_TIMEOUT).await;
            return self.unanswered(failure(ErrorClass::AnswerTimeout, true));
        }
        if scene.mutant == Mutant::AckBeforeDurable && warehouse.chance(0.2) {
            let (scene, process) = (scene.clone(), *process);
            world.after(self.way() * 20, move |_| drop(scene.warehouse.land(&scene, process, server, &append)));
            return Ok(());
        }
        let flaky = troubles.flaky > now;
        if flaky && warehouse.chance(0.3) {
            world.pass(self.way()).await;
            scene.oracle.see(|seen| seen.refused += 1);
            return Err(failure(ErrorClass::Transient, false));
        }
        // The answer is known when the rows are there, and may be lost: then its sender may hear of it before they are.
        let (answer, answered) = tokio::sync::oneshot::channel();
        let (there, here) = (scene.clone(), *process);
        world.after(self.way(), move |_| drop(answer.send(there.warehouse.land(&there, here, server, &append))));
        if flaky && warehouse.chance(0.25) {
            world.pass(self.way()).await;
            scene.oracle.see(|seen| seen.lost_answers += 1);
            return self.unanswered(failure(ErrorClass::Transient, true));
        }
        let outcome = answered.await.unwrap_or_else(|_| Err(failure(ErrorClass::Transient, true)));
        world.pass(self.way()).await;
        if outcome.is_err() {
            scene.oracle.see(|seen| seen.refused += 1);
        }
        self.read(outcome, row_count)
    }

    /// What mutants read in an answer.
    pub fn read(&self, outcome: Result<(), AppendFailure>, row_count: u32) -> Result<(), AppendFailure> {
        let Err(mut failure) = outcome else { return outcome };
        match (self.scene.mutant, failure.class) {
            (Mutant::RejectsWhole, ErrorClass::RowErrors) => {
                failure.row_errors = (0..row_count).map(|index| RowError { index, message: "no".to_owned() }).collect();
                Err(failure)
            }
            (Mutant::RestIsDurable, ErrorClass::RowErrors) => Ok(()),
            (Mutant::ExistsIsSuccess, ErrorClass::OffsetAlreadyExists) | (Mutant::BeyondIsSuccess, ErrorClass::OffsetOutOfRange) => Ok(()),
            _ => Err(failure),
        }
    }

    /// A lost answer, and what mutants make of it.
    pub fn unanswered(&self, failure: AppendFailure) -> Result<(), AppendFailure> {
        match self.scene.mutant {
            Mutant::LostAnswerIsSuccess => Ok(()),
            Mutant::LostAnswerIsRefusal => Err(AppendFailure { maybe_durable: false, ..failure }),
            _ => Err(failure),
        }
    }
}

#[async_trait]
impl RestTransport for Client {
    async fn send(&self, call: RestCall<'_>) -> Result<(u16, Bytes), NoAnswer> {
        let (scene, world) = (&self.scene, &self.scene.world);
        world.pass(self.way()).await;
        let troubled = self.troubles().rest > world.now();
        let away = || NoAnswer::Network("as told".to_owned());
        if troubled && scene.warehouse.chance(0.3) {
            return Err(away());
        }
        if troubled && scene.warehouse.chance(0.3) {
            let reason = if scene.warehouse.chance(0.5) { (503, "backendError") } else { (403, "rateLimitExceeded") };
            let body = json!({ "error": { "message": "as told", "errors": [{ "reason": reason.1 }] } });
            return Ok((reason.0, Bytes::from(body.to_string())));
        }
        let body: Option<Value> = call.body.as_ref().map(|body| serde_json::from_slice(body).expect("JSON"));
        let if_match = call.if_match.filter(|_| scene.mutant != Mutant::PatchAnyVersion);
        let (status, answer) = scene.warehouse.rest(scene, call.method.as_str(), if_match, body.as_ref());
        world.pass(self.way()).await;
        if troubled && scene.warehouse.chance(0.3) {
            return Err(away()); // it was done, and nobody hears of it
        }
        Ok((status, Bytes::from(answer.to_string())))
    }
}
