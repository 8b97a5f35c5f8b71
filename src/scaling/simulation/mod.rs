//! The simulation that judges the decision: traces, a model of the fleet, the scalers of others, and somebody who knows the trace.
//!
//! Here belongs what is needed to try a policy without a fleet. Pure and seeded: equal arguments give equal results, byte for byte. What does not belong here: files,
//! charts, tables (`cli::simulate`), and anything that `decide` needs.

mod clairvoyant;
mod compare;
mod look;
mod prompt;
mod rivals;
mod run;
mod setting;
mod trace;
mod variety;
mod world;

pub use clairvoyant::{Plan, STEP_S, plan};
pub use compare::{Figure, Row, compare};
pub use prompt::{Prompt, prompt};
pub use rivals::{Flink, Keda};
pub use run::{Outcome, Policy, run};
pub use setting::{Hidden, Setting};
pub use trace::{Shape, Size, Trace};
pub use variety::{Case, Fixed};
