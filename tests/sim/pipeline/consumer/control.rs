//! What shards and committer may ask of the member.

use std::time::Duration;

use millrace::kafka::{Epoch, GroupControl, GroupError, NextOffset};
use millrace::record::TopicPartition;
use rand::Rng;

use super::super::group::SESSION;
use super::super::mutants::Mutant;
use super::Consumer;

/// How long after a request to begin again another one may come to the poll thread.
const ASKED_AGAIN: std::ops::Range<Duration> = Duration::from_millis(100)..Duration::from_secs(6);

impl GroupControl for Consumer {
    fn commit(&self, offsets: &[NextOffset], _timeout: Duration) -> Result<Vec<(TopicPartition, GroupError)>, GroupError> {
        let owns = |next: &NextOffset| self.shared.lock().owned.contains_key(&next.partition.partition);
        let (mut owned, gone): (Vec<NextOffset>, Vec<NextOffset>) =
            offsets.iter().cloned().partition(|next| self.scene.mutant == Mutant::DeafToLoss || owns(next));
        if self.scene.mutant == Mutant::CommitTaken {
            for next in &mut owned {
                next.offset = self.fetch_of(&next.partition).map_or(next.offset, |fetch| fetch.lock().position);
            }
        }
        let mut failed = self.commit_as_member(&owned)?;
        failed.extend(gone.into_iter().map(|next| (next.partition, GroupError::Fenced("not this worker's".to_owned()))));
        Ok(failed)
    }

    fn pause(&self, partition: &TopicPartition) -> Result<(), GroupError> {
        self.fetch_of(partition)?.lock().paused = true;
        Ok(())
    }

    fn seek_and_resume(&self, partition: &TopicPartition, offset: i64, _timeout: Duration) -> Result<(), GroupError> {
        let fetch = self.fetch_of(partition)?;
        if self.scene.world.draw(|random| random.random_bool(0.03)) {
            // Either passes by itself, or librdkafka has stopped fetching.
            return Err(if self.scene.world.draw(|random| random.random_bool(0.7)) {
                GroupError::TimedOut("as told".to_owned())
            } else {
                GroupError::Other("as told".to_owned())
            });
        }
        let mut fetch = fetch.lock();
        if fetch.stopped {
            return Err(GroupError::Other("its fetching has stopped".to_owned()));
        }
        fetch.paused = false;
        if self.scene.mutant != Mutant::ResumeWithoutSeek {
            fetch.position = offset;
        }
        Ok(())
    }

    fn restart_at(&self, partition: &TopicPartition, epoch: Epoch, offset: Option<i64>) -> Result<(), GroupError> {
        self.fetch_of(partition)?;
        let offset = offset.filter(|_| self.scene.mutant != Mutant::RestartsAtFirst);
        let restart = (partition.partition, epoch, offset);
        let mut shared = self.shared.lock();
        shared.restarts.push_back(restart);
        // The shard asks again when nothing came of it in time; then both are served.
        if self.scene.world.draw(|random| random.random_bool(0.2)) {
            shared.again.push((self.tasks.now() + self.scene.world.draw(|random| random.random_range(ASKED_AGAIN)), restart));
        }
        Ok(())
    }

    fn watermarks(&self, partition: &TopicPartition, _timeout: Duration) -> Result<(i64, i64), GroupError> {
        if self.scene.world.draw(|random| random.random_bool(0.03)) {
            return Err(GroupError::TimedOut("as told".to_owned()));
        }
        let (log, partition) = (&self.scene.log, partition.partition);
        Ok((log.low(partition), log.high(partition, self.scene.world.now())))
    }

    fn since_last_poll(&self) -> Duration {
        self.turns.since()
    }

    fn session_timeout(&self) -> Duration {
        if self.scene.mutant == Mutant::NoFence { Duration::from_secs(1 << 30) } else { SESSION }
    }

    fn close(&self, _timeout: Duration) -> Result<(), GroupError> {
        Consumer::close(self);
        Ok(())
    }
}
