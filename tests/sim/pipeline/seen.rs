//! What happened how often: a simulation that never meets what it is for proves nothing.

macro_rules! seen {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What happened how often.
        #[derive(Debug, Default, Clone)]
        pub struct Seen {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Seen {
            /// Adds up.
            pub fn add(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

seen! {
    /// Runs.
    runs,
    /// Offsets that somebody tried to commit.
    commits,
    /// Appends that landed.
    landed,
    /// Appends that were refused.
    refused,
    /// Answers that were lost.
    lost_answers,
    /// Appends that landed after their sender had given up.
    late,
    /// Rows beyond the first of their record.
    copies,
    /// How many of those were expected at most.
    counted,
    /// Dead letters.
    letters,
    /// Times that a process learned that its partitions are gone.
    losses,
    /// Times that a process stood still for longer than its session.
    freezes,
    /// Processes that were killed.
    crashes,
    /// Processes that ended in order.
    stops,
    /// Appends that a fence kept back.
    withheld,
    /// Changes of targets in the group.
    rebalances,
    /// Columns added.
    columns,
    /// Patches refused for their version.
    conflicts,
    /// Streams that were ended and counted.
    takeovers,
    /// Streams that BigQuery forgot.
    forgotten,
    /// Calls for a stream that is gone.
    not_found,
    /// Tables deleted.
    deleted,
    /// Rows that were acknowledged for a table that was deleted already.
    swallowed,
    /// Records that retention took unread, and those of them that millrace told of.
    lost,
    /// Offsets that were out of range.
    out_of_range,
    /// Partitions that began again where a shard asked for it.
    asked,
    /// Requests to begin again that came when their assignment was over.
    asked_late,
    /// Partitions that rested for want of memory, as seen by somebody who looks now and then.
    rests,
    /// Turns of a shard that took nothing for want of memory.
    full,
    /// Turns of a shard while plans alone took more memory than there is.
    plans_large,
    /// Rows that are refused alone, unnamed in the appends that they stood in.
    poison,
    /// Records that were skipped by the user's rule.
    skipped,
    /// Choices that the user made about partitions that held for him.
    choices,
    /// Times that the user's files changed the guarantee.
    switches,
}
