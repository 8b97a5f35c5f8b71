//! What becomes of a decision: the fleet is resized, or it is only said and somebody else follows.

use std::sync::Arc;
use std::time::Duration;

use super::replicas::Replicas;

/// Somebody who follows at all has done so by then: an HPA looks every 15 s, and may wait 5 min before it removes pods.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(600);

/// What becomes of a decision.
#[derive(Clone)]
pub enum Sizing {
    /// The leader asks for as many workers as it decides.
    Sets(Arc<dyn Replicas>),
    /// It only says how many it wants (`observe`), and an HPA, KEDA or a person follows. Here stands what was asked for, where that can be
    /// read.
    Says(Option<Arc<dyn Replicas>>),
}

/// How many workers the leader of `observe` wants.
///
/// Decisions go on from this number, never from the workers that happen to be there. Whoever follows comes late, and an HPA takes the
/// highest number of its stabilization window: a leader that fell back on the live workers while they are still too many would keep them
/// for ever, and one that did so while they are still too few would take back what it had just asked for.
#[derive(Debug, Default)]
pub(super) struct Wish {
    wanted: Option<u32>,
    apart_since: Option<Duration>,
}

impl Wish {
    /// The number; the first time the one to begin with.
    pub fn or_begin_with(&mut self, first: u32) -> u32 {
        *self.wanted.get_or_insert(first)
    }

    /// Whether there is one.
    pub fn is_known(&self) -> bool {
        self.wanted.is_some()
    }

    /// What was decided now.
    pub fn decided(&mut self, replicas: u32) {
        self.wanted = Some(replicas);
    }

    /// Holds it against what was asked for, or against who is there. What to say when nobody follows. An HPA leaves differences of up to 10 % of
    /// what is there alone, unless its Kubernetes takes a `tolerance` of 0 (1.35): it follows all the same.
    pub fn remark(&mut self, now: Duration, actual: u32) -> Option<String> {
        let wanted = self.wanted?;
        if u64::from(actual.abs_diff(wanted)) * 10 <= u64::from(actual) {
            self.apart_since = None;
            return None;
        }
        let since = *self.apart_since.get_or_insert(now);
        let apart = now.saturating_sub(since);
        (apart >= FOLLOWED_WITHIN).then(|| {
            format!(
                "the fleet has had {actual} workers instead of the {wanted} wanted for {} min: does anything follow millrace_workers_desired, \
                 and may it go there?",
                apart.as_secs() / 60
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wish_goes_its_own_way_and_says_when_nobody_follows() {
        let mut wish = Wish::default();
        assert!(!wish.is_known());
        assert_eq!(wish.or_begin_with(3), 3);
        wish.decided(5);
        assert_eq!(wish.or_begin_with(2), 5, "who is there changes nothing");
        let at = Duration::from_secs;
        assert_eq!(wish.remark(at(10), 3), None);
        assert_eq!(wish.remark(at(609), 4), None);
        assert!(wish.remark(at(610), 4).is_some_and(|words| words.contains("4 workers instead of the 5 wanted for 10 min")));
        assert_eq!(wish.remark(at(620), 5), None);
        wish.decided(2);
        assert_eq!(wish.remark(at(630), 5), None, "anew");
        assert!(wish.remark(at(1_230), 5).is_some());
        wish.decided(11);
        assert_eq!(wish.remark(at(1_240), 10), None, "an HPA leaves a tenth alone");
        assert_eq!(wish.remark(at(1_250), 9), None);
        assert!(wish.remark(at(1_850), 9).is_some(), "two of nine are more");
    }
}
