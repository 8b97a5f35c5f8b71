//! Tasks that last as long as the worker: one that panics would be missed by nobody, and what it did would never be done again. So its panic ends the
//! worker, in order, and a new process does what it did.

use tokio::task::JoinSet;

use crate::telemetry::panics::join_words;

/// The tasks. Dropping it ends them.
#[derive(Default)]
pub(super) struct Lasting {
    tasks: JoinSet<()>,
    names: Vec<(tokio::task::Id, &'static str)>,
}

impl Lasting {
    /// Starts one; `name` is for people. One that ends by itself is done.
    pub(super) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.names.push((id, name));
    }

    /// Is ready when one of them panicked: which, and its words.
    pub(super) async fn broken(&mut self) -> String {
        while let Some(ended) = self.tasks.join_next_with_id().await {
            let Err(error) = ended else { continue };
            let name = self.names.iter().find(|(id, _)| *id == error.id()).map_or("a task", |(_, name)| name);
            return format!("{name} panicked ({})", join_words(error));
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_noticed_and_an_end_is_none() {
        let mut lasting = Lasting::default();
        lasting.spawn("the first", async {});
        lasting.spawn("the second", std::future::pending());
        assert!(tokio::time::timeout(Duration::from_millis(50), lasting.broken()).await.is_err(), "nobody panicked");
        lasting.spawn("the third", async { std::panic::panic_any("on purpose") });
        assert_eq!(lasting.broken().await, "the third panicked (on purpose)");
    }
}
