//! BigQuery: tables over REST, rows over the Storage Write API, and what each of its errors asks for.
//!
//! Belongs here: requests, answers, credentials, connections, evolution of a table, the match from error class to action.
//! Does not belong here: which records an append carries, when it is sent again (`pipeline/`).

mod seam;

pub use seam::{
    Action, Append, AppendFailure, Appender, ErrorClass, RetryPace, RowError, TableError, TableSpec, TableState, Tables, TimePartition,
};
