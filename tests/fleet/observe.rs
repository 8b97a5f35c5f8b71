//! `mode = "observe"`: somebody else resizes the fleet by the leader's gauge, here an imitated HPA.

use std::collections::VecDeque;
use std::thread;
use std::time::Duration;

use super::rig::Rig;
use crate::machine::Watch;

const GAUGE: &str = "millrace_workers_desired";

/// Follows the gauge as an HPA does: up at once, down to the highest number of its stabilization window, not at all without a number. A worker that
/// died is started again, as a StatefulSet's controller does.
#[derive(Default)]
struct Hpa {
    window: VecDeque<usize>,
}

impl Hpa {
    /// One look. What the gauge said.
    fn turn(&mut self, rig: &mut Rig) -> Option<usize> {
        let running = rig.running();
        let shown: Vec<f64> = running.iter().filter_map(|number| rig.metric(*number, GAUGE)).collect();
        assert!(shown.len() <= 1, "two workers show a number: {shown:?}");
        let wanted = *shown.first()? as usize;
        self.window.push_back(wanted);
        if self.window.len() > 4 {
            self.window.pop_front();
        }
        let target = wanted.max(running.len().min(self.window.iter().copied().max()?));
        (0..target).filter(|number| !running.contains(number)).for_each(|number| rig.start(number));
        for number in running.into_iter().filter(|number| *number >= target).rev() {
            rig.terminate(number);
            rig.wait_for_end(number);
        }
        Some(wanted)
    }

    fn follow_until(&mut self, rig: &mut Rig, what: &str, done: impl Fn(usize, usize) -> bool) {
        let begun = Watch::start();
        loop {
            let wanted = self.turn(rig);
            let running = rig.running().len();
            if wanted.is_some_and(|wanted| done(wanted, running)) {
                return println!("{what} after {:?}", begun.elapsed());
            }
            assert!(
                begun.elapsed() < Duration::from_secs(120),
                "not {what}: wanted {wanted:?}, running {running}; {}",
                rig.fleet(0)["decided"]
            );
            thread::sleep(Duration::from_secs(1));
        }
    }
}

#[test]
fn an_hpa_that_follows_the_gauge_grows_the_fleet_and_reaches_the_least_again() {
    let mut rig = Rig::observing(
        300,
        "min = 1\nmax = 4\nfreshness_target = \"5s\"\nrecovery_target = \"20s\"\nscale_down_window = \"20s\"\nstartup_deadline = \"30s\"",
    );
    let little = rig.produce(100);
    rig.start(0);
    let mut hpa = Hpa::default();
    hpa.follow_until(&mut rig, "one worker for little", |wanted, running| (wanted, running) == (1, 1));
    drop(little);
    let much = rig.produce(700);
    hpa.follow_until(&mut rig, "more workers for much", |wanted, running| wanted >= 3 && running == wanted);
    // Another speaks while the first is away, and neither begins with the workers that happen to be there.
    rig.kill(0);
    let mut spoken = None;
    rig.wait_until("another that speaks", |rig| {
        spoken = rig.metric(1, GAUGE);
        spoken.is_some()
    });
    assert!(spoken >= Some(3.0), "{spoken:?}");
    hpa.follow_until(&mut rig, "the first speaks again", |wanted, running| wanted >= 3 && running == wanted);
    drop(much);
    hpa.follow_until(&mut rig, "one worker for nothing", |wanted, running| (wanted, running) == (1, 1));
    let fleet = rig.fleet(0);
    assert_eq!((fleet["mode"].as_str(), fleet["decisions"][0]["replicas"].as_u64()), (Some("observe"), Some(1)));
}
