//! Why something that others write too (the lease, the number of workers) could not be read or written, wherever it stands.

/// See the variants. What [`StoreError::Unanswered`] wrote may still take effect; the others wrote nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Somebody changed it since it was read. Nothing was written.
    #[error("it was changed since it was read")]
    Conflict,
    /// It is not there. It is not made here: whoever installs the fleet makes it, so that no right to create is needed.
    #[error("{0}")]
    Missing(String),
    /// It may not be read or written. Nothing was written.
    #[error("{0}")]
    Refused(String),
    /// No answer, or none that says what happened: a write may or may not take effect, also later.
    #[error("{0}")]
    Unanswered(String),
}
