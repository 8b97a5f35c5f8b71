//! The dead-letter topic, played, and whoever reads records again for it.

use std::time::Duration;

use async_trait::async_trait;
use millrace::pipeline::{Letter, LetterBox, LetterError, Rereader};
use millrace::record::{OwnedRecord, TopicPartition};
use parking_lot::Mutex;
use rand::Rng;

use super::mutants::Mutant;
use super::scene::{ProcessId, Scene};

/// The topic's state.
#[derive(Default)]
pub struct Topic {
    refuses_until: Mutex<Duration>,
    silent_until: Mutex<Duration>,
}

impl Topic {
    /// It refuses letters until then, or (`silent`) does not answer.
    pub fn down(&self, until: Duration, silent: bool) {
        let mut down = if silent { self.silent_until.lock() } else { self.refuses_until.lock() };
        *down = until.max(*down);
    }
}

/// A process's way to the topic.
pub struct Post {
    pub scene: Scene,
    pub process: ProcessId,
}

impl Post {
    fn chance(&self, share: f64) -> bool {
        self.scene.world.draw(|random| random.random_bool(share))
    }

    async fn way(&self) {
        let world = &self.scene.world;
        world.pass(world.draw_span(Duration::from_millis(40))).await;
    }
}

#[async_trait]
impl LetterBox for Post {
    async fn put(&self, _topic: &str, letter: Letter) -> Result<(), LetterError> {
        let (scene, world) = (&self.scene, &self.scene.world);
        self.way().await;
        while *scene.letters.silent_until.lock() > world.now() {
            world.pass(Duration::from_millis(500)).await;
        }
        let down = *scene.letters.refuses_until.lock() > world.now();
        if down && self.chance(0.8) {
            return if scene.mutant == Mutant::ForgetLetter { Ok(()) } else { Err(LetterError::Refused("as told".to_owned())) };
        }
        let text = |name: &str| {
            let value = letter.headers.iter().rev().find(|(header, _)| header == name).and_then(|(_, value)| value.clone());
            value.and_then(|value| String::from_utf8(value.to_vec()).ok())
        };
        let number = |name: &str| text(name).and_then(|text| text.parse::<i64>().ok());
        match (number("__connect.errors.partition"), number("__connect.errors.offset")) {
            (Some(partition), Some(offset)) => {
                let (partition, value) = (partition as i32, letter.value.as_deref());
                // Retention may have taken the record: then its row, and a word that it is one.
                let row = offset < scene.log.low(partition) && text("__millrace.errors.value").as_deref() == Some("row-json");
                if scene.log.value(partition, offset) != value && !row {
                    scene.oracle.complain(format!("the dead letter of {partition}:{offset} does not hold its record"));
                }
                world.note(|| format!("letter of {partition}:{offset}"));
                scene.oracle.letter(self.process, partition, offset);
            }
            _ => scene.oracle.complain(format!("a dead letter without its record's place: {:?}", letter.headers)),
        }
        self.way().await;
        if down { Err(LetterError::Refused("the answer is lost".to_owned())) } else { Ok(()) }
    }
}

#[async_trait]
impl Rereader for Post {
    async fn reread(&self, partition: &TopicPartition, offsets: &[i64]) -> Result<Vec<Option<OwnedRecord>>, String> {
        self.way().await;
        if *self.scene.letters.refuses_until.lock() > self.scene.world.now() && self.chance(0.5) {
            if self.scene.mutant == Mutant::UnreadIsGone {
                return Ok(Vec::new());
            }
            return Err("as told".to_owned());
        }
        Ok(offsets.iter().map(|offset| self.scene.log.reread(partition.partition, *offset)).collect())
    }
}
