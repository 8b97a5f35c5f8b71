//! The group's coordinator, played: members with sessions, targets and what they own, committed offsets. Broker-side assignment as in
//! KIP-848: a partition is given when its former owner has let go of it, or was thrown out; under the eager protocol, when everybody has
//! let go of everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use millrace::kafka::{GroupError, NextOffset};
use millrace::record::TopicPartition;
use parking_lot::Mutex;
use rand::Rng;
use rand::seq::SliceRandom;

use super::oracle::Oracle;
use crate::world::World;

/// How long a member may be silent.
pub const SESSION: Duration = Duration::from_secs(6);
/// How long letting go may take before a member is thrown out.
const REBALANCE: Duration = Duration::from_secs(10);
/// How often sessions are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// A member's id: never given twice.
pub type MemberId = u64;

#[derive(Default)]
struct Membership {
    heard_at: Duration,
    target: BTreeSet<i32>,
    owned: BTreeSet<i32>,
}

#[derive(Default)]
struct State {
    members: BTreeMap<MemberId, Membership>,
    joined: MemberId,
    owner: BTreeMap<i32, MemberId>,
    committed: BTreeMap<i32, Committed>,
    /// Everybody lets go of everything, since then.
    syncing: Option<Duration>,
    changed_at: Duration,
    away_until: Duration,
    refuses_until: Duration,
    rebalances: u64,
    /// Commits whose senders gave up, still on their way: applied in the order of their sending.
    late: Vec<(MemberId, Vec<NextOffset>)>,
}

/// The coordinator.
pub struct Group {
    world: World,
    oracle: Arc<Oracle>,
    partitions: i32,
    eager: bool,
    state: Mutex<State>,
}

/// What a group has of a partition: the offset, and what stands beside it.
pub type Committed = (i64, Option<Arc<str>>);

/// The coordinator does not know the member (any more).
pub struct Unknown;

impl Group {
    /// A group without members or offsets.
    pub fn new(world: &World, oracle: &Arc<Oracle>, partitions: i32) -> Arc<Self> {
        let eager = world.draw(|random| random.random_bool(0.25));
        let group = Arc::new(Self { world: world.clone(), oracle: oracle.clone(), partitions, eager, state: Mutex::default() });
        group.clone().look_later();
        group
    }

    fn look_later(self: Arc<Self>) {
        self.world.clone().after(LOOK_EVERY, move |_| {
            self.expire();
            self.look_later();
        });
    }

    /// It does not answer until then.
    pub fn away(&self, until: Duration) {
        let mut state = self.state.lock();
        state.away_until = state.away_until.max(until);
    }

    /// It refuses commits until then.
    pub fn refuse(&self, until: Duration) {
        let mut state = self.state.lock();
        state.refuses_until = state.refuses_until.max(until);
    }

    /// Throws somebody out, or only shuffles partitions.
    pub fn disturb(&self, throw_out: bool) {
        let mut state = self.state.lock();
        let members: Vec<MemberId> = state.members.keys().copied().collect();
        if throw_out && !members.is_empty() {
            let victim = members[self.world.draw(|random| random.random_range(0..members.len()))];
            self.remove(&mut state, victim, "thrown out");
        }
        self.rebalance(&mut state);
    }

    /// How often targets changed.
    pub fn rebalances(&self) -> u64 {
        self.state.lock().rebalances
    }

    /// The committed offset of each partition.
    pub fn committed(&self) -> BTreeMap<i32, i64> {
        self.state.lock().committed.iter().map(|(partition, committed)| (*partition, committed.0)).collect()
    }

    fn is_away(&self, state: &State) -> bool {
        state.away_until > self.world.now()
    }

    /// A new member; `None` while the coordinator is away.
    pub fn join(&self) -> Option<MemberId> {
        let mut state = self.state.lock();
        if self.is_away(&state) {
            return None;
        }
        state.joined += 1;
        let id = state.joined;
        state.members.insert(id, Membership { heard_at: self.world.now(), ..Membership::default() });
        self.world.note(|| format!("group: member {id} joins"));
        self.rebalance(&mut state);
        Some(id)
    }

    /// A member leaves.
    pub fn leave(&self, id: MemberId) {
        let mut state = self.state.lock();
        if state.members.contains_key(&id) {
            self.remove(&mut state, id, "leaves");
            self.rebalance(&mut state);
        }
    }

    /// A member says what it owns, and hears what it should own and may take now. `None`: no answer.
    pub fn heartbeat(&self, id: MemberId, owned: &BTreeSet<i32>) -> Option<Result<BTreeSet<i32>, Unknown>> {
        let mut state = self.state.lock();
        if self.is_away(&state) {
            return None;
        }
        let now = self.world.now();
        let Some(member) = state.members.get_mut(&id) else { return Some(Err(Unknown)) };
        member.heard_at = now;
        member.owned.clone_from(owned);
        let target = member.target.clone();
        let before = state.owner.len();
        state.owner.retain(|partition, owner| *owner != id || owned.contains(partition) || target.contains(partition));
        if state.owner.len() < before {
            // The member's epoch moves on: what it sent before is stale.
            state.late.retain(|(member, _)| *member != id);
        }
        if state.syncing.is_some() && state.members.values().all(|member| member.owned.is_empty()) {
            state.syncing = None;
            state.owner.clear();
            state.late.clear();
            self.assign(&mut state);
        }
        let target = state.members.get(&id).map(|member| member.target.clone()).unwrap_or_default();
        let may: BTreeSet<i32> =
            target.iter().copied().filter(|partition| state.owner.get(partition).is_none_or(|owner| *owner == id)).collect();
        for partition in &may {
            state.owner.insert(*partition, id);
        }
        if let Some(member) = state.members.get_mut(&id) {
            member.owned.extend(&may);
        }
        Some(Ok(may))
    }

    /// The committed offset of a partition for whoever begins there; outer `None`: no answer.
    pub fn fetch(&self, partition: i32) -> Option<Option<Committed>> {
        let mut state = self.state.lock();
        if self.is_away(&state) {
            return None;
        }
        // An epoch begins: what was sent in a former one is stale.
        state.late.iter_mut().for_each(|(_, offsets)| offsets.retain(|next| next.partition.partition != partition));
        Some(state.committed.get(&partition).cloned())
    }

    /// A commit. The coordinator knows the member and its generation, not who owns which partition.
    pub fn commit(&self, id: MemberId, offsets: &[NextOffset]) -> Result<Vec<(TopicPartition, GroupError)>, GroupError> {
        let mut state = self.state.lock();
        let now = self.world.now();
        let lost = self.is_away(&state) || (state.refuses_until > now && self.world.draw(|random| random.random_bool(0.4)));
        if lost {
            // The request is lost, or late: its sender does not know.
            if self.world.draw(|random| random.random_bool(0.5)) {
                state.late.push((id, offsets.to_vec()));
            }
            return Err(GroupError::TimedOut("as told".to_owned()));
        }
        self.apply_late(&mut state);
        if !state.members.contains_key(&id) {
            return Err(GroupError::Fenced("as told".to_owned()));
        }
        if state.refuses_until > now {
            if self.world.draw(|random| random.random_bool(0.5)) {
                return Err(GroupError::Rebalancing("as told".to_owned()));
            }
            let (refused, taken): (Vec<_>, Vec<_>) =
                offsets.iter().cloned().partition(|_| self.world.draw(|random| random.random_bool(0.5)));
            self.apply(&mut state, id, &taken);
            return Ok(refused.into_iter().map(|next| (next.partition, GroupError::Other("as told".to_owned()))).collect());
        }
        self.apply(&mut state, id, offsets);
        Ok(Vec::new())
    }

    fn apply_late(&self, state: &mut State) {
        for (id, offsets) in std::mem::take(&mut state.late) {
            if state.members.contains_key(&id) {
                self.world.note(|| format!("group: a late commit of member {id} arrives"));
                self.apply(state, id, &offsets);
            }
        }
    }

    fn apply(&self, state: &mut State, id: MemberId, offsets: &[NextOffset]) {
        for next in offsets {
            let partition = next.partition.partition;
            let before = state.committed.insert(partition, (next.offset, next.metadata.clone())).map(|before| before.0);
            self.oracle.committed(partition, before, next.offset, state.owner.get(&partition) == Some(&id), id);
        }
    }

    fn expire(&self) {
        let mut state = self.state.lock();
        let now = self.world.now();
        if !self.is_away(&state) {
            self.apply_late(&mut state);
        }
        let late_release = |member: &Membership| member.owned.iter().any(|partition| !member.target.contains(partition));
        let overdue = now.saturating_sub(state.changed_at) > REBALANCE;
        let out: Vec<MemberId> = state
            .members
            .iter()
            .filter(|(_, member)| now.saturating_sub(member.heard_at) > SESSION || (overdue && late_release(member)))
            .map(|(id, _)| *id)
            .collect();
        // A coordinator that was away gives everybody a new session.
        if self.is_away(&state) {
            state.members.values_mut().for_each(|member| member.heard_at = now);
            return;
        }
        for id in &out {
            self.remove(&mut state, *id, "expires");
        }
        if !out.is_empty() {
            self.rebalance(&mut state);
        }
    }

    fn remove(&self, state: &mut State, id: MemberId, why: &str) {
        self.world.note(|| format!("group: member {id} {why}"));
        state.members.remove(&id);
        state.owner.retain(|_, owner| *owner != id);
    }

    fn rebalance(&self, state: &mut State) {
        state.changed_at = self.world.now();
        state.rebalances += 1;
        if self.eager && state.members.values().any(|member| !member.owned.is_empty()) {
            state.members.values_mut().for_each(|member| member.target.clear());
            state.syncing = Some(self.world.now());
        } else {
            state.syncing = None;
            self.assign(state);
        }
    }

    /// Targets: partitions dealt out to the members in an order of the seed's; those that stay where they are as often as not.
    fn assign(&self, state: &mut State) {
        let mut ids: Vec<MemberId> = state.members.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        self.world.draw(|random| ids.shuffle(random));
        let sticky = self.world.draw(|random| random.random_bool(0.5));
        let before: BTreeMap<i32, MemberId> =
            state.members.iter().flat_map(|(id, member)| member.target.iter().map(move |partition| (*partition, *id))).collect();
        state.members.values_mut().for_each(|member| member.target.clear());
        let most = (self.partitions as usize).div_ceil(ids.len());
        for partition in 0..self.partitions {
            let stays =
                before.get(&partition).filter(|id| sticky && state.members.get(id).is_some_and(|member| member.target.len() < most));
            let least = || ids.iter().min_by_key(|id| state.members.get(id).map_or(0, |member| member.target.len())).copied();
            if let Some(id) = stays.copied().or_else(least)
                && let Some(member) = state.members.get_mut(&id)
            {
                member.target.insert(partition);
            }
        }
        self.world.note(|| format!("group: targets {:?}", state.members.iter().map(|(id, m)| (id, &m.target)).collect::<Vec<_>>()));
    }
}
