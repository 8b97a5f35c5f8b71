//! What is known of the whole fleet: every worker's reports and the leader's decisions, carried by two Kafka topics, and the view that is put together from them.
//!
//! What does not belong here: asking the broker what only the leader asks (`leader`), and what follows from the numbers (`scaling`).
