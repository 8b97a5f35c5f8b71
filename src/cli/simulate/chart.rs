//! The chart of one case: load and workers above, lag in seconds below.

use std::path::Path;

use plotters::prelude::*;

use crate::scaling::simulation::{Case, Outcome, Plan, STEP_S};

const COLORS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
    RGBColor(204, 121, 167),
    RGBColor(148, 80, 20),
    RGBColor(0, 158, 115),
    RGBColor(120, 120, 120),
    RGBColor(90, 60, 160),
];

/// Draws it. Policies whose fleet would hide the others (one worker for each partition) are cut at the top.
///
/// # Errors
/// The file cannot be written.
pub(super) fn draw(path: &Path, case: &Case, plan: &Plan, outcomes: &[(String, Outcome)]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, (1200, 760)).into_drawing_area();
    root.fill(&WHITE)?;
    let (upper, lower) = root.split_vertically(470);
    let seconds = case.trace.load.len() as f64;
    let peak = case.trace.load.iter().copied().fold(1.0, f64::max);
    let top = outcomes.iter().take(1).flat_map(|(_, o)| &o.course).map(|c| f64::from(c.2)).fold(peak, f64::max).min(peak * 4.0) * 1.15;
    let title = format!("{}, seed {}: {} partitions, load in workers (grey), workers", case.class, case.seed, case.trace.shares.len());
    let mut chart = ChartBuilder::on(&upper)
        .caption(title, ("sans-serif", 18))
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..seconds / 60.0, 0.0..top)?;
    chart.configure_mesh().x_desc("minutes").y_desc("workers").light_line_style(WHITE).draw()?;
    let load = case.trace.load.iter().enumerate().step_by(5).map(|(t, l)| (t as f64 / 60.0, *l));
    chart
        .draw_series(AreaSeries::new(load, 0.0, BLACK.mix(0.15)))?
        .label("load")
        .legend(|(x, y)| Rectangle::new([(x, y - 4), (x + 16, y + 4)], BLACK.mix(0.15)));
    let planned = plan.workers.iter().enumerate().map(|(i, n)| ((i * STEP_S) as f64 / 60.0, f64::from(*n)));
    let black = BLACK.stroke_width(1);
    chart
        .draw_series(LineSeries::new(planned, black))?
        .label("clairvoyant")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], black));
    for (i, (name, outcome)) in outcomes.iter().enumerate() {
        let style = COLORS[i % COLORS.len()].stroke_width(if i == 0 { 2 } else { 1 });
        let workers = outcome.course.iter().map(|c| (c.0 as f64 / 60.0, f64::from(c.2).min(top)));
        chart
            .draw_series(LineSeries::new(workers, style))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw()?;
    let target_s = case.setting.limits.freshness_target_ms as f64 / 1000.0;
    let lag = outcomes.iter().flat_map(|(_, o)| &o.course).map(|c| c.4 as f64).fold(target_s * 1.5, f64::max).min(target_s * 6.0);
    let mut chart = ChartBuilder::on(&lower)
        .caption(format!("lag in seconds; target {target_s:.0} s"), ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..seconds / 60.0, 0.0..lag)?;
    chart.configure_mesh().x_desc("minutes").y_desc("seconds").light_line_style(WHITE).draw()?;
    chart.draw_series(LineSeries::new([(0.0, target_s), (seconds / 60.0, target_s)], RED.stroke_width(1)))?;
    for (i, (_, outcome)) in outcomes.iter().enumerate() {
        let style = COLORS[i % COLORS.len()].stroke_width(if i == 0 { 2 } else { 1 });
        chart.draw_series(LineSeries::new(outcome.course.iter().map(|c| (c.0 as f64 / 60.0, (c.4 as f64).min(lag))), style))?;
    }
    root.present()?;
    Ok(())
}
