//! What the user's files say, and the choices that only he can make.

use millrace::config::{BadRecords, Guarantee, OnLostRange, OnLostStream};
use millrace::flow::HoldCause;
use rand::Rng;

use crate::world::World;

/// The parts of a connector's file that runs differ in. A change comes with a restart of every process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub guarantee: Guarantee,
    pub bad_records: BadRecords,
    pub on_lost_stream: OnLostStream,
    pub on_lost_range: OnLostRange,
}

impl Settings {
    /// Drawn from the seed.
    pub fn draw(world: &World) -> Self {
        world.draw(|random| Self {
            guarantee: if random.random_bool(0.4) { Guarantee::ExactlyOnce } else { Guarantee::AtLeastOnce },
            bad_records: match random.random_range(0..8) {
                0 => BadRecords::Stop,
                1 => BadRecords::Skip,
                _ => BadRecords::DeadLetter,
            },
            on_lost_stream: if random.random_bool(0.5) { OnLostStream::Hold } else { OnLostStream::AtLeastOnce },
            on_lost_range: if random.random_bool(0.5) { OnLostRange::Hold } else { OnLostRange::Continue },
        })
    }

    /// Whether each record's row is promised to be there once.
    pub fn is_exact(self) -> bool {
        self.guarantee == Guarantee::ExactlyOnce
    }

    /// With the other guarantee.
    #[must_use]
    pub fn switched(self) -> Self {
        let guarantee = if self.is_exact() { Guarantee::AtLeastOnce } else { Guarantee::ExactlyOnce };
        Self { guarantee, ..self }
    }

    /// What the user chooses when he sees partitions that hold for this cause; `None`: he need not do anything, or has chosen already.
    pub fn chosen(self, cause: HoldCause) -> Option<Self> {
        let chosen = match cause {
            HoldCause::BadRecord => Self { bad_records: BadRecords::DeadLetter, ..self },
            HoldCause::StreamLost => Self { on_lost_stream: OnLostStream::AtLeastOnce, ..self },
            HoldCause::LostRange => Self { on_lost_range: OnLostRange::Continue, ..self },
            _ => self,
        };
        (chosen != self).then_some(chosen)
    }
}
