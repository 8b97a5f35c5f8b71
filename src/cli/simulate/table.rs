//! The comparison as a table for people.

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};

use crate::scaling::simulation::{Figure, Row};

/// What the columns mean.
pub(super) const LEGEND: &str = "\
mean (worst) over the cases. worker-hours: over the clairvoyant's, and over those of one worker for each partition.
late: percent of the records later than the freshness target, beyond those that are late with one worker for each partition.
beyond prompt: beyond those, too, that are late with a fleet which holds what the load needs (1.3 times) until it has risen for the first
time, and then asks for the best number at the next decision. over 0.5 %: in how many cases each of the two is.
clairvoyant: knows the trace, loads workers fully, uses all the lag that is allowed; nobody reaches it.";

fn pair(mean: f64, worst: f64, digits: usize) -> Cell {
    Cell::new(format!("{mean:.digits$} ({worst:.digits$})")).set_alignment(CellAlignment::Right)
}

/// A row for each policy and class.
pub(super) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "policy",
        "trace",
        "cases",
        "worker-hours",
        "of 1/partition",
        "late %",
        "beyond prompt %",
        "over 0.5 %",
        "resizes/h",
        "worst lag s",
    ]);
    let mut before = "";
    for row in rows {
        let policy = if row.policy == before { "" } else { row.policy.as_str() };
        before = &row.policy;
        let known = |figure: Option<Figure>, digits| figure.map_or_else(|| Cell::new(""), |f| pair(f.mean, f.worst, digits));
        let over = row.cases_over_half_percent.zip(row.cases_over_half_percent_beyond_prompt);
        let over = over.map_or_else(String::new, |(late, beyond)| format!("{late}, {beyond}"));
        table.add_row(vec![
            Cell::new(policy),
            Cell::new(&row.class),
            Cell::new(row.cases).set_alignment(CellAlignment::Right),
            pair(row.worker_hours_ratio.mean, row.worker_hours_ratio.worst, 2),
            pair(row.of_one_per_partition.mean, row.of_one_per_partition.worst, 2),
            known(row.late_percent, 3),
            known(row.late_percent_beyond_prompt, 3),
            Cell::new(over).set_alignment(CellAlignment::Right),
            pair(row.resizes_per_hour.mean, row.resizes_per_hour.worst, 1),
            known(row.lag_s, 0),
        ]);
    }
    table
}
