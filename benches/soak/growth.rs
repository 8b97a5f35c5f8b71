//! Whether what a process holds grows: the middle of its last quarter against that of its second.

use super::rig::process::median;

/// What a process held at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub rss_mib: f64,
    pub threads: f64,
    pub descriptors: f64,
    pub series: f64,
}

/// A kind's name, its figure in a sample, how much more of it is no growth.
type Kind = (&'static str, fn(&Sample) -> f64, f64);

/// Samples at even distances.
#[derive(Debug, Default)]
pub struct Growth(Vec<Sample>);

impl Growth {
    pub fn add(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    /// Prints a line for each kind; gives the names of those that have grown.
    pub fn verdict(&self) -> Vec<&'static str> {
        let quarter = self.0.len() / 4;
        if quarter == 0 {
            return vec!["(too few samples to tell)"];
        }
        let (early, late) = (&self.0[quarter..2 * quarter], &self.0[self.0.len() - quarter..]);
        // What may differ without being growth: pages that an allocator keeps, a connection or a thread that comes and goes with a fault.
        let kinds: [Kind; 4] = [
            ("resident memory, MiB", |s| s.rss_mib, 24.0),
            ("threads", |s| s.threads, 2.0),
            ("file descriptors", |s| s.descriptors, 8.0),
            ("metric series", |s| s.series, 0.0),
        ];
        kinds
            .into_iter()
            .filter_map(|(name, part, allowed)| {
                let middle = |samples: &[Sample]| median(samples.iter().map(part).collect());
                let (early, late) = (middle(early), middle(late));
                println!("{name:22} second quarter {early:>7.0}, last quarter {late:>7.0} (at most {allowed:.0} more)");
                (late > early + allowed).then_some(name)
            })
            .collect()
    }
}
