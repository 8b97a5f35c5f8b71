//! The one way in which a fleet is resized.

use super::replicas::Replicas;
use super::store::StoreError;
use super::term::Term;
use super::timer::{Timer, within};

/// Writes refused because the version moved on while the number did not: a StatefulSet's version rises with each pod that becomes ready.
const TRIES: u32 = 4;

/// What became of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resized {
    /// The fleet was asked for so many workers.
    Done {
        /// Workers before.
        from: u32,
        /// Workers asked for now.
        to: u32,
    },
    /// It had as many already.
    Unchanged,
    /// Somebody else set another number than the one that the decision was made from: the next decision sees it.
    Moved {
        /// Workers that were found to be asked for.
        found: u32,
    },
    /// This worker's term is over: nothing was written.
    NotLeader,
    /// It could not be read or written. After [`StoreError::Unanswered`] a write may still take effect; the next decision reads again.
    Failed(StoreError),
}

/// Asks for `to` workers, decided when the fleet was asked for `from`: read the scale, recheck the term's local deadline, write with the
/// version that was read and a timeout below the margin between two terms.
///
/// Nothing can take back a write that is on its way when the term ends. What is kept: it takes effect only if nobody wrote since this
/// leader read, and of all writes that are on their way at that moment at most one does, for it moves the version on. So a late write is at
/// most one, made from the state that it changes, and the next decision of the next leader repairs it.
pub async fn resize(replicas: &dyn Replicas, term: &Term, timer: &dyn Timer, from: u32, to: u32) -> Resized {
    let timeout = term.write_timeout();
    for _ in 0..TRIES {
        if !term.is_valid() {
            return Resized::NotLeader;
        }
        let scale = match within(timer, timeout, replicas.read(timeout)).await {
            Some(Ok(scale)) => scale,
            Some(Err(error)) => return Resized::Failed(error),
            None => return Resized::Failed(StoreError::Unanswered(format!("reading the scale took longer than {timeout:?}"))),
        };
        if scale.replicas == to {
            return Resized::Unchanged;
        }
        if scale.replicas != from {
            return Resized::Moved { found: scale.replicas };
        }
        if !term.is_valid() {
            return Resized::NotLeader;
        }
        match within(timer, timeout, replicas.write(&scale.version, to, timeout)).await {
            Some(Ok(())) => return Resized::Done { from, to },
            Some(Err(StoreError::Conflict)) => {}
            Some(Err(error)) => return Resized::Failed(error),
            None => return Resized::Failed(StoreError::Unanswered(format!("writing the scale took longer than {timeout:?}"))),
        }
    }
    Resized::Failed(StoreError::Conflict)
}
