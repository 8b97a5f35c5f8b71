//! A panic's words as far as they can hold no data of records: a text without arguments. What was formatted stands in the process's error
//! output only.

use std::any::Any;

use tokio::task::JoinError;

/// What is said instead of words that were formatted.
const ELSEWHERE: &str = "its words are in the worker's error output";

/// The words of a panic that was caught.
pub fn panic_words(panic: &(dyn Any + Send)) -> &'static str {
    panic.downcast_ref::<&'static str>().copied().unwrap_or(ELSEWHERE)
}

/// Why a task has no result. (The error's own words would hold the panic's.)
pub fn join_words(error: JoinError) -> &'static str {
    match error.try_into_panic() {
        Ok(panic) => panic_words(panic.as_ref()),
        Err(_cancelled) => "it was cancelled",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_formatted_is_not_told() {
        let plain = tokio::spawn(async { std::panic::panic_any("a plain text") }).await.unwrap_err();
        assert_eq!(join_words(plain), "a plain text");
        let formatted = tokio::spawn(async { std::panic::panic_any(String::from("a customer's name")) }).await.unwrap_err();
        assert!(formatted.to_string().contains("customer"), "the error's own words tell");
        assert_eq!(join_words(formatted), ELSEWHERE);
        let task = tokio::spawn(std::future::pending::<()>());
        task.abort();
        assert_eq!(join_words(task.await.unwrap_err()), "it was cancelled");
    }
}
