//! The one worker that decides: its election, its loop of measuring and deciding, and the resizing of the fleet.
//!
//! What does not belong here: the decision itself, which is arithmetic (`scaling`), and what workers tell each other (`fleet`).
