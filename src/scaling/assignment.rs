//! How Kafka's assignors would spread partitions over n members. They balance counts and are blind to load; the ids of members to come are unknown, so several
//! orders are tried and the worst counts.

use super::snapshot::Assignor;

/// Orders tried for each number of members.
const ORDERS: u64 = 4;

/// One group as the model of its assignor sees it.
#[derive(Debug, Clone)]
pub(super) struct GroupModel {
    pub assignor: Assignor,
    /// The topic of each partition, numbered from 0 without gaps; partitions of a topic stand together, in their order.
    pub topics: Vec<usize>,
    /// What each partition asks of its worker, in workers.
    pub demand: Vec<f64>,
    /// Who owns it now, by the worker's place; places beyond n leave.
    pub owners: Vec<Option<usize>>,
}

/// The worker that is worst off in the worst order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Worst {
    /// Its demand divided by its speed, in workers.
    pub demand: f64,
    /// For each group the share of the group's demand that it carries.
    pub shares: Vec<f64>,
    /// How fast it is; 1 is normal.
    pub speed: f64,
}

/// The worst worker when n members share the groups. `speeds` are those of the workers by place (missing: 1).
pub(super) fn worst(groups: &[GroupModel], n: usize, speeds: &[f64]) -> Worst {
    worst_of(groups, n, speeds, ORDERS)
}

/// The same in the one order in which the members stand: the likely one, where the worst of several would only say that anything may happen.
pub(super) fn likely(groups: &[GroupModel], n: usize, speeds: &[f64]) -> Worst {
    worst_of(groups, n, speeds, 1)
}

fn worst_of(groups: &[GroupModel], n: usize, speeds: &[f64], orders: u64) -> Worst {
    // Members beyond the partitions get nothing: however many are asked for, the work is bounded.
    let n = n.min(groups.iter().map(|g| g.demand.len()).sum()).max(1);
    let totals: Vec<f64> = groups.iter().map(|g| g.demand.iter().sum()).collect();
    let mut found = Worst { demand: -1.0, shares: vec![0.0; groups.len()], speed: 1.0 };
    let mut loads = vec![vec![0.0; n]; groups.len()];
    for order in 0..orders {
        for (g, group) in groups.iter().enumerate() {
            loads[g].iter_mut().for_each(|load| *load = 0.0);
            let owner = members(group, n, order, g as u64);
            for (p, member) in owner.iter().enumerate() {
                loads[g][*member] += group.demand[p];
            }
        }
        for member in 0..n {
            let speed = speeds.get(member).copied().unwrap_or(1.0).max(0.05);
            let demand = loads.iter().map(|load| load[member]).sum::<f64>() / speed;
            if demand > found.demand {
                found.demand = demand;
                found.speed = speed;
                for (g, share) in found.shares.iter_mut().enumerate() {
                    *share = if totals[g] > 0.0 { loads[g][member] / totals[g] } else { 0.0 };
                }
            }
        }
    }
    found.demand = found.demand.max(0.0);
    found
}

/// The worst of n workers with what they own now; none when a partition has no owner among them.
pub(super) fn placed(groups: &[GroupModel], n: usize, speeds: &[f64]) -> Option<Worst> {
    let mut loads = vec![vec![0.0; n]; groups.len()];
    for (g, group) in groups.iter().enumerate() {
        for (p, owner) in group.owners.iter().enumerate() {
            *loads[g].get_mut((*owner)?)? += group.demand[p];
        }
    }
    let speed = |member: usize| speeds.get(member).copied().unwrap_or(1.0).max(0.05);
    let demand = |member: usize| loads.iter().map(|load| load[member]).sum::<f64>() / speed(member);
    let worst = (0..n).max_by(|a, b| demand(*a).total_cmp(&demand(*b)))?;
    let share = |(g, group): (usize, &GroupModel)| loads[g][worst] / group.demand.iter().sum::<f64>().max(1e-12);
    Some(Worst { demand: demand(worst), shares: groups.iter().enumerate().map(share).collect(), speed: speed(worst) })
}

/// Who would own each partition.
fn members(group: &GroupModel, n: usize, order: u64, salt: u64) -> Vec<usize> {
    match group.assignor {
        Assignor::Range => range(group, n, order, salt),
        Assignor::CooperativeSticky => sticky(group, n, order, salt),
        Assignor::Uniform => sticky(group, n, order, salt),
    }
}

/// Each topic in contiguous ranges, the first members one longer: the extras of several topics meet on the same members.
fn range(group: &GroupModel, n: usize, order: u64, salt: u64) -> Vec<usize> {
    let places = shuffled(n, order, salt);
    let mut owners = Vec::with_capacity(group.topics.len());
    let mut start = 0;
    while start < group.topics.len() {
        let len = group.topics[start..].iter().take_while(|t| **t == group.topics[start]).count();
        let (each, extra) = (len / n, len % n);
        for (place, member) in places.iter().enumerate() {
            owners.extend(std::iter::repeat_n(*member, each + usize::from(place < extra)));
        }
        start += len;
    }
    owners
}

/// Balanced by count; who stays keeps what he has up to his quota, the rest goes to whoever has least.
fn sticky(group: &GroupModel, n: usize, order: u64, salt: u64) -> Vec<usize> {
    let count = group.demand.len();
    let (each, extra) = (count / n, count % n);
    let places = shuffled(n, order, salt);
    let mut quota = vec![each; n];
    // Those who have most now keep the extras.
    let mut held = vec![0_usize; n];
    for owner in group.owners.iter().flatten().filter(|o| **o < n) {
        held[*owner] += 1;
    }
    let mut by_held = places;
    by_held.sort_by_key(|member| std::cmp::Reverse(held[*member].min(each + 1)));
    by_held.iter().take(extra).for_each(|member| quota[*member] += 1);
    let mut owners = vec![usize::MAX; count];
    let mut taken = vec![0_usize; n];
    let line = shuffled(count, order, salt ^ 0x51);
    for p in &line {
        if let Some(owner) = group.owners.get(*p).copied().flatten().filter(|o| *o < n)
            && taken[owner] < quota[owner]
        {
            owners[*p] = owner;
            taken[owner] += 1;
        }
    }
    let mut next = 0;
    for p in line {
        if owners[p] == usize::MAX {
            while taken[by_held[next]] >= quota[by_held[next]] {
                next += 1;
            }
            owners[p] = by_held[next];
            taken[by_held[next]] += 1;
        }
    }
    owners
}

/// 0..n in an order of its own for each `order`; the first is as it stands. SplitMix64 and Fisher-Yates: the same on every machine.
fn shuffled(n: usize, order: u64, salt: u64) -> Vec<usize> {
    let mut line: Vec<usize> = (0..n).collect();
    if order == 0 {
        return line;
    }
    let mut state = order.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ salt.wrapping_mul(0xD1B5_4A32_D192_ED03);
    for i in (1..n).rev() {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        line.swap(i, ((z ^ (z >> 31)) % (i as u64 + 1)) as usize);
    }
    line
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn group(assignor: Assignor, topics: Vec<usize>, demand: Vec<f64>) -> GroupModel {
        let owners = vec![None; demand.len()];
        GroupModel { assignor, topics, demand, owners }
    }

    #[test]
    fn counts_are_balanced_and_everything_is_owned() {
        for n in 1..14 {
            for order in 0..ORDERS {
                let g = group(Assignor::CooperativeSticky, vec![0; 12], vec![1.0; 12]);
                let owners = sticky(&g, n, order, 0);
                let counts: Vec<usize> = (0..n).map(|m| owners.iter().filter(|o| **o == m).count()).collect();
                assert_eq!(counts.iter().sum::<usize>(), 12);
                assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
            }
        }
    }

    #[test]
    fn who_stays_keeps_his_partitions() {
        let mut g = group(Assignor::CooperativeSticky, vec![0; 8], vec![1.0; 8]);
        g.owners = (0..8).map(|p| Some(p / 4)).collect();
        let owners = sticky(&g, 4, 1, 0);
        assert_eq!((0..8).filter(|p| owners[*p] == p / 4).count(), 4);
        let owners = sticky(&GroupModel { owners: owners.iter().map(|o| Some(*o)).collect(), ..g }, 2, 2, 0);
        assert_eq!(owners.iter().filter(|o| **o == 0).count(), 4);
    }

    #[test]
    fn range_piles_the_extras_of_topics_on_the_first() {
        let g = group(Assignor::Range, vec![0, 0, 0, 1, 1, 1], vec![1.0; 6]);
        assert_eq!(range(&g, 2, 0, 0), vec![0, 0, 1, 0, 0, 1]);
        assert!((worst(&[g], 2, &[]).demand - 4.0).abs() < 1e-9);
    }

    #[test]
    fn a_hot_partition_and_a_slow_worker_show() {
        let g = group(Assignor::Uniform, vec![0; 4], vec![3.0, 1.0, 1.0, 1.0]);
        let at = worst(std::slice::from_ref(&g), 2, &[]);
        assert!((at.demand - 4.0).abs() < 1e-9 && (at.shares[0] - 4.0 / 6.0).abs() < 1e-9);
        assert!(worst(&[g], 4, &[0.5, 1.0, 1.0, 1.0]).demand >= 3.0);
    }
}
