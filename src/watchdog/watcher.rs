//! The register of those who beat, and the thread that looks at them: plain, without the runtime, and without a lock that it waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::beat::{Beat, Entry, PATIENCE, Place, Standing};
use super::judge::{Finding, Judge, Limits, Seen};

/// How long asking for places may take before the last words: they may wait for the very lock that is held.
const PLACES_MAX: Duration = Duration::from_millis(300);
/// Those who are named in the last words; more are counted.
const NAMED_MAX: usize = 8;
/// The watching thread is taken for dead when it has not turned between two questions this far apart.
const WATCHER_LATE: Duration = Duration::from_secs(15);

/// Everyone who beats.
#[derive(Default)]
pub struct Register {
    next_id: AtomicU64,
    entries: Mutex<Vec<Arc<Entry>>>,
    /// The watcher's own turns; 0 while there is none.
    looks: AtomicU64,
    /// The last words, from the moment that somebody is found.
    wedged: Mutex<Option<String>>,
    /// The watcher's turns when liveness was asked, and when they were first seen so.
    asked: Mutex<Option<(u64, Instant)>>,
}

impl Register {
    pub(super) fn add(self: &Arc<Self>, who: String, place: Option<Arc<dyn Place>>) -> Beat {
        let entry = Arc::new(Entry::new(self.next_id.fetch_add(1, Relaxed), who, place));
        self.entries.lock().push(entry.clone());
        Beat { entry, register: Arc::downgrade(self) }
    }

    pub(super) fn remove(&self, id: u64) {
        self.entries.lock().retain(|entry| entry.id != id);
    }

    pub(super) fn liveness(&self) -> Result<(), String> {
        if let Some(words) = self.wedged.try_lock_for(PATIENCE).and_then(|wedged| wedged.clone()) {
            return Err(words);
        }
        let looks = self.looks.load(Relaxed);
        if looks == 0 {
            return Ok(());
        }
        let Some(mut asked) = self.asked.try_lock_for(PATIENCE) else { return Ok(()) };
        match *asked {
            Some((before, since)) if before == looks => match since.elapsed() {
                stood if stood < WATCHER_LATE => Ok(()),
                stood => Err(format!("the watching thread has stood still for {} s", stood.as_secs())),
            },
            // Seen so for the first time: after a stop of the whole process it needs a moment, as everyone does.
            _ => {
                *asked = Some((looks, Instant::now()));
                Ok(())
            }
        }
    }
}

/// Starts a watching thread for those whose name `mine` takes; `last_act` is called once, with the last words.
pub(super) fn start(
    register: Arc<Register>,
    limits: Limits,
    mine: impl Fn(&str) -> bool + Send + 'static,
    last_act: impl FnOnce(&str) + Send + 'static,
) -> std::io::Result<()> {
    std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        let words = watch(&register, &limits, mine);
        if let Some(mut wedged) = register.wedged.try_lock_for(PATIENCE) {
            *wedged = Some(words.clone());
        }
        last_act(&words);
    })?;
    Ok(())
}

/// Returns when somebody is wedged, with the last words.
fn watch(register: &Register, limits: &Limits, mine: impl Fn(&str) -> bool) -> String {
    let mut judge = Judge::default();
    let mut looked = Instant::now();
    let mut locked = Duration::ZERO;
    loop {
        std::thread::sleep(limits.tick);
        register.looks.fetch_add(1, Relaxed);
        let elapsed = looked.elapsed();
        looked = Instant::now();
        // Held for moments, by those who begin and end.
        let Some(entries) = register.entries.try_lock_for(PATIENCE).map(|entries| entries.clone()) else {
            locked += limits.counted(elapsed);
            if locked >= limits.stand_still {
                return last_words("somebody who begins or ends its beat", locked);
            }
            continue;
        };
        locked = Duration::ZERO;
        let entries: Vec<Arc<Entry>> = entries.into_iter().filter(|entry| mine(&entry.who)).collect();
        let seen: Vec<Seen> = entries.iter().map(|entry| Seen { id: entry.id, mark: entry.mark(), standing: entry.standing() }).collect();
        let entry_of = |id: u64| entries.iter().find(|entry| entry.id == id);
        let mut wedged: Vec<(Arc<Entry>, Duration)> = Vec::new();
        for finding in judge.look(limits, elapsed, &seen) {
            match finding {
                Finding::Slow(id, stood) => {
                    let words = entry_of(id).map_or_else(String::new, |entry| name_and_place(std::slice::from_ref(entry)));
                    // Where stderr takes nothing, the watch goes on all the same.
                    super::last_act::within(PLACES_MAX, "watchdog-says", move || {
                        tracing::warn!(seconds = stood.as_secs(), "slow: {words}");
                    });
                }
                Finding::Wedged(id, stood) => wedged.extend(entry_of(id).map(|entry| (entry.clone(), stood))),
            }
        }
        let Some(longest) = wedged.iter().map(|(_, stood)| *stood).max() else { continue };
        let mut who: Vec<Arc<Entry>> = wedged.into_iter().map(|(entry, _)| entry).collect();
        // Who began first is nearer to the ground: the runtime before what runs on it.
        who.sort_by_key(|entry| entry.id);
        return last_words(&name_and_place(&who), longest);
    }
}

fn last_words(who: &str, stood: Duration) -> String {
    format!(
        "wedged: no progress for {:.0} s: {who}; only a new process gets it going again, so this one ends; what was not committed comes again",
        stood.as_secs_f64()
    )
}

/// Names, places as far as they are told in time, and the steps that they are in.
fn name_and_place(who: &[Arc<Entry>]) -> String {
    let (told, heard) = sync_channel(NAMED_MAX);
    let asked: Vec<Arc<Entry>> = who.iter().take(NAMED_MAX).cloned().collect();
    super::last_act::within(PLACES_MAX, "watchdog-asks", move || {
        for (index, entry) in asked.iter().enumerate() {
            let place = entry.place.as_ref().map(|place| place.describe());
            // The channel has room for all; nobody listens any more when it came too late.
            let _late = told.try_send((index, place));
        }
    });
    let mut places: Vec<Option<String>> = vec![Some("where it stands cannot be told: a lock is held".to_owned()); who.len()];
    while let Ok((index, place)) = heard.try_recv() {
        if let Some(known) = places.get_mut(index) {
            *known = place;
        }
    }
    let mut lines: Vec<String> = who
        .iter()
        .take(NAMED_MAX)
        .zip(places)
        .map(|(entry, place)| {
            let place = place.filter(|place| !place.is_empty()).map(|place| format!(" ({place})")).unwrap_or_default();
            let step = match entry.standing() {
                Standing::LongStep(what) => format!(", in {what}"),
                Standing::Turning | Standing::Idle => String::new(),
            };
            format!("{}{place}{step}", entry.who)
        })
        .collect();
    if who.len() > NAMED_MAX {
        lines.push(format!("and {} more", who.len() - NAMED_MAX));
    }
    lines.join("; ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

    use super::*;

    const LIMITS: Limits =
        Limits { stand_still: Duration::from_millis(300), long_step: Duration::from_millis(900), tick: Duration::from_millis(20) };
    const SOON: Duration = Duration::from_secs(5);

    fn watched(register: &Arc<Register>) -> Receiver<String> {
        let (said, heard) = channel();
        start(register.clone(), LIMITS, |_| true, move |words| said.send(words.to_owned()).unwrap()).unwrap();
        heard
    }

    #[test]
    fn the_last_words_name_who_stands_still_and_where_and_liveness_fails() {
        let register = Arc::new(Register::default());
        let heard = watched(&register);
        let lock = Arc::new(Mutex::new(()));
        let behind = lock.clone();
        let _holds_it = lock.lock();
        let fine = register.add("the one that turns".into(), None);
        let _wedged = register.add("thread shard-0-stock".into(), Some(Arc::new(|| "connector stock, stock[3] at offset 17".to_owned())));
        let _silent = register.add("thread commit-stock".into(), Some(Arc::new(move || format!("{:?}", behind.lock()))));
        let idle = register.add("the idle one".into(), None);
        idle.idle();
        assert_eq!(register.liveness(), Ok(()));
        let words = loop {
            fine.beat();
            match heard.recv_timeout(Duration::from_millis(10)) {
                Ok(words) => break words,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("no last words"),
            }
        };
        assert!(words.contains("thread shard-0-stock (connector stock, stock[3] at offset 17); thread commit-stock (where it"), "{words}");
        assert!(!words.contains("turns") && !words.contains("idle one"), "{words}");
        assert_eq!(register.liveness(), Err(words));
    }

    #[test]
    fn a_long_step_is_allowed_longer_and_not_for_ever() {
        let register = Arc::new(Register::default());
        let heard = watched(&register);
        let beat = register.add("the leader".into(), None);
        beat.idle();
        assert_eq!(heard.recv_timeout(LIMITS.long_step), Err(RecvTimeoutError::Timeout), "idle");
        let began = Instant::now();
        let step = beat.long_step("a look at the fleet");
        let words = heard.recv_timeout(SOON).unwrap();
        assert!(
            words.contains("the leader, in a look at the fleet") && began.elapsed() >= LIMITS.long_step - LIMITS.tick * 2,
            "{words} after {:?}",
            began.elapsed()
        );
        drop(step);
        assert_eq!(beat.entry.standing(), Standing::Idle, "as before");
    }

    #[test]
    fn who_ends_is_not_watched_and_nobody_is_blamed_for_a_register_that_moves() {
        let register = Arc::new(Register::default());
        let heard = watched(&register);
        let began = Instant::now();
        while began.elapsed() < LIMITS.stand_still * 3 {
            let beats: Vec<Beat> = (0..50).map(|n| register.add(format!("{n}"), None)).collect();
            std::thread::sleep(Duration::from_millis(5));
            drop(beats);
        }
        assert!(heard.try_recv().is_err());
        assert!(register.entries.lock().is_empty());
    }

    #[test]
    fn a_register_that_stays_locked_ends_the_process_too() {
        let register = Arc::new(Register::default());
        let heard = watched(&register);
        let _held = register.entries.lock();
        assert!(heard.recv_timeout(SOON).unwrap().contains("begins or ends"));
    }
}
