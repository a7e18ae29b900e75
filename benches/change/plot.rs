//! The picture: from the edit to served, against the number of hosts.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;

use super::record::{Layout, Record};

const SIZE: (u32, u32) = (820, 480);
const INK: RGBColor = RGBColor(0x24, 0x29, 0x2f);
const GRID: RGBColor = RGBColor(0xd8, 0xde, 0xe4);

fn color(layout: Layout) -> RGBColor {
    match layout {
        Layout::Scoped => RGBColor(0x0b, 0x6e, 0x4f),
        Layout::OneTable => RGBColor(0xb4, 0x3e, 0x2b),
        Layout::Pusher => RGBColor(0x57, 0x60, 0x6a),
    }
}

/// Number of hosts and milliseconds.
type Line = Vec<(f64, f64)>;

fn line(records: &[&Record], layout: Layout, share: f64) -> Line {
    let of_layout = records.iter().filter(|record| record.layout == layout);
    let points = of_layout.filter_map(|record| {
        let series = record.route.as_ref()?;
        Some((record.hosts as f64, series.percentile(share)))
    });
    points.collect()
}

/// Draws the records, all of the same number of Services.
pub(crate) fn draw(path: &Path, records: &[&Record]) -> anyhow::Result<()> {
    draw_chart(path, records).map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))
}

fn draw_chart(path: &Path, records: &[&Record]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let text = |size: u32| TextStyle::from(("sans-serif", size).into_font()).color(&INK);
    // Room on the right for the names of the lines.
    let mut chart = ChartBuilder::on(&root)
        .caption("One Ingress edited: from the file to the first request served the new way", text(17))
        .margin(14)
        .margin_right(170)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((90f64..55_000f64).log_scale(), (0.5f64..10_000f64).log_scale())?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .x_desc("hosts, six routes each")
        .y_desc("milliseconds")
        .label_style(text(13))
        .axis_desc_style(text(14))
        .x_label_formatter(&|hosts| thousands(*hosts))
        .y_label_formatter(&|millis| thousands(*millis))
        .draw()?;
    for layout in [Layout::OneTable, Layout::Scoped] {
        for (share, name, width) in [(0.5, "median", 3), (0.99, "p99", 1)] {
            let points = line(records, layout, share);
            let style = color(layout).stroke_width(width);
            chart.draw_series(LineSeries::new(points.clone(), style))?;
            chart.draw_series(points.iter().map(|at| Circle::new(*at, width + 1, color(layout).filled())))?;
            let Some(end) = points.last() else { continue };
            let color = color(layout);
            let label = TextStyle::from(("sans-serif", 13).into_font()).color(&color);
            let at = chart.backend_coord(end);
            let offset = if share < 0.9 { 2 } else { -14 };
            root.draw_text(&format!("{}, {name}", layout.name()), &label, (at.0 + 10, at.1 + offset))?;
        }
    }
    root.present()?;
    Ok(())
}

fn thousands(number: f64) -> String {
    if number >= 1_000.0 {
        format!("{},{:03}", number as u64 / 1_000, number as u64 % 1_000)
    } else {
        number.to_string()
    }
}
