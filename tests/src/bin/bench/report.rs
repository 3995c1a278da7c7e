//! docs/benchmarks.md and its plots, written by every whole run.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};
use plotters::prelude::*;

use crate::row::Row;

/// Columns of a plot: flows as rows name them, and their number.
const FLOWS: [(&str, f64); 5] = [
    ("1", 1.0),
    ("1Ki", 1_024.0),
    ("64Ki", 65_536.0),
    ("1Mi", 1_048_576.0),
    ("16Mi", 16_777_216.0),
];

/// A plot of cost against flows.
struct Plot {
    file: &'static str,
    title: &'static str,
    /// Rows without their number of flows, and what the legend calls them.
    lines: &'static [(&'static str, &'static str)],
}

const PLOTS: [Plot; 2] = [
    Plot {
        file: "established.svg",
        title: "ns above a bare MAC swap, established flows",
        lines: &[
            ("tunnel-ipip4/established", "lb, tunnel"),
            ("dsr4/established", "lb, dsr"),
            ("nat4/established", "lb, nat"),
            ("nat4-reply/established", "lb, nat's replies"),
            ("compare-flow-table-ipip4/established", "a flow table (LRU), tunnel"),
        ],
    },
    Plot {
        file: "syn.svg",
        title: "ns above a bare MAC swap, every packet a SYN",
        lines: &[
            ("tunnel-ipip4/syn", "lb, tunnel"),
            ("dsr4/syn", "lb, dsr"),
            ("nat4/syn", "lb, nat"),
            ("compare-flow-table-ipip4/syn", "a flow table (LRU), tunnel"),
        ],
    },
];

/// Headings of the document, by group.
const GROUPS: [(&str, &str); 6] = [
    ("program", "Cost of the program"),
    ("rate", "Packets a second on one core"),
    ("peers", "Against what else would be used"),
    ("control", "Control plane and recovery"),
    ("growth", "Growth"),
    ("quality", "Rings and hash"),
];

/// Writes document and plots into the repository's docs.
pub fn write(rows: &[Row], quick: bool) -> Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let plots = docs.join("benchmarks");
    fs::create_dir_all(&plots).context("cannot make docs/benchmarks")?;
    for plot in &PLOTS {
        draw(plot, rows, &plots.join(plot.file))
            .with_context(|| format!("cannot draw {}", plot.file))?;
    }
    fs::write(docs.join("benchmarks.md"), document(rows, quick)?)
        .context("cannot write docs/benchmarks.md")
}

fn document(rows: &[Row], quick: bool) -> Result<String> {
    let mut text = String::from(
        "# Benchmarks\n\nWritten by `cargo xtask bench`, which measures everything anew. Absolute times differ between machines; \
         what is quoted is the ratio to the floor measured in turns with each row: for programs a bare MAC swap with the same harness, for rates \
         a bare XDP_TX on the same path, for the hash SipHash. A value is the median of its rounds.\n\n",
    );
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let form = if quick { "--quick: fewer rounds, wider spread" } else { "the whole form" };
    writeln!(text, "Kernel {}, {cpus} CPUs, {form}.\n", kernel.trim())?;
    for plot in &PLOTS {
        writeln!(text, "![{}](benchmarks/{})\n", plot.title, plot.file)?;
    }
    for (group, heading) in GROUPS {
        let mut rows = rows.iter().filter(|row| row.group == group).peekable();
        if rows.peek().is_none() {
            continue;
        }
        writeln!(
            text,
            "## {heading}\n\n| | median | min | max | unit | floor | ratio | limit |\n|---|---|---|---|---|---|---|---|"
        )?;
        for row in rows {
            let optional =
                |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
            let limit = match row.pass {
                Some(false) => format!("**{}, missed**", optional(row.limit)),
                _ => optional(row.limit),
            };
            writeln!(
                text,
                "| `{}` | {} | {} | {} | {} | {} | {} | {limit} |",
                row.name,
                row.value,
                row.min,
                row.max,
                row.unit,
                optional(row.floor),
                optional(row.ratio)
            )?;
        }
        text.push('\n');
    }
    Ok(text)
}

fn draw(plot: &Plot, rows: &[Row], path: &Path) -> Result<()> {
    let value = |line: &str, flows: &str| {
        let name = format!("{line}/{flows}");
        rows.iter().find(|row| row.name == name).map(|row| row.value)
    };
    let lines: Vec<(&str, Vec<(f64, f64)>)> = plot
        .lines
        .iter()
        .map(|(line, legend)| {
            let points =
                FLOWS.iter().filter_map(|(text, flows)| Some((*flows, value(line, text)?)));
            (*legend, points.collect())
        })
        .collect();
    let most =
        lines.iter().flat_map(|(_, points)| points).map(|(_, value)| *value).fold(10.0, f64::max);
    let area = SVGBackend::new(path, (760, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(plot.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d((1.0..20e6).log_scale(), 0.0..most * 1.1)?;
    chart.configure_mesh().x_desc("flows").y_desc("ns").draw()?;
    for (index, (legend, points)) in lines.into_iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        let series = LineSeries::new(points, color.stroke_width(2)).point_size(3);
        chart
            .draw_series(series)?
            .label(legend)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    area.present()?;
    Ok(())
}
