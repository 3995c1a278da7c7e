//! docs/benchmarks.md and its plots, written by every whole run.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};
use plotters::prelude::*;

use crate::row::Row;

/// Columns of a plot: steps as rows name them, and their number.
const FLOWS: [(&str, f64); 5] = [
    ("1", 1.0),
    ("1Ki", 1_024.0),
    ("64Ki", 65_536.0),
    ("1Mi", 1_048_576.0),
    ("10Mi", 10_485_760.0),
];
const SERVICES: [(&str, f64); 5] =
    [("1", 1.0), ("16", 16.0), ("256", 256.0), ("4096", 4_096.0), ("10000", 10_000.0)];
const BACKENDS: [(&str, f64); 5] =
    [("1", 1.0), ("10", 10.0), ("100", 100.0), ("1000", 1_000.0), ("10000", 10_000.0)];

/// Name of rows, legend, steps.
type Line = (&'static str, &'static str, &'static [(&'static str, f64)]);

/// A plot of cost against a number.
struct Plot {
    file: &'static str,
    title: &'static str,
    /// What is counted.
    what: &'static str,
    /// Rows without their number, what the legend calls them, and their steps. `#` is where the number stands.
    lines: &'static [Line],
}

const PLOTS: [Plot; 3] = [
    Plot {
        file: "established.svg",
        title: "ns above a bare MAC swap, established flows",
        what: "flows",
        lines: &[
            ("tunnel-ipip4/established/#", "lb, tunnel", &FLOWS),
            ("dsr4/established/#", "lb, dsr", &FLOWS),
            ("nat4/established/#", "lb, nat", &FLOWS),
            ("nat4-reply/established/#", "lb, nat's replies", &FLOWS),
            ("fullnat4/established/#", "lb, full nat", &FLOWS),
            ("compare-flow-table-ipip4/established/#", "a flow table (LRU), tunnel", &FLOWS),
        ],
    },
    Plot {
        file: "syn.svg",
        title: "ns above a bare MAC swap, every packet a SYN",
        what: "flows",
        lines: &[
            ("tunnel-ipip4/syn/#", "lb, tunnel", &FLOWS),
            ("dsr4/syn/#", "lb, dsr", &FLOWS),
            ("nat4/syn/#", "lb, nat", &FLOWS),
            ("compare-flow-table-ipip4/syn/#", "a flow table (LRU), tunnel", &FLOWS),
        ],
    },
    Plot {
        file: "growth.svg",
        title: "ns above a bare MAC swap, dsr, by what there is beside the packet",
        what: "services, backends, slots, prefixes",
        lines: &[
            ("growth/services/#", "services", &SERVICES),
            ("growth/backends/#", "backends of one service", &BACKENDS),
            ("growth/slots-of-100-backends/#", "slots of a hundred backends", &SLOTS),
            ("deny-#/established/1Ki", "denied prefixes", &DENIED),
        ],
    },
];
const SLOTS: [(&str, f64); 5] = [
    ("1021", 1_021.0),
    ("4093", 4_093.0),
    ("16381", 16_381.0),
    ("65537", 65_537.0),
    ("655373", 655_373.0),
];
const DENIED: [(&str, f64); 3] = [("1", 1.0), ("1000", 1_000.0), ("100000", 100_000.0)];

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
         a bare XDP_TX on the same path, for the hash SipHash. A value is the median of its rounds; of programs and rates, of those during which the machine was quiet, which the floor tells.\n\n",
    );
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // Not those that this process still uses: it stays on one.
    let cpus = aya::util::online_cpus().map_or(0, |cpus| cpus.len());
    let form = if quick { "--quick: fewer rounds, wider spread" } else { "the whole form" };
    let seconds = rows.iter().find(|row| row.name == "run/seconds").map_or(0.0, |row| row.value);
    writeln!(text, "Kernel {}, {cpus} CPUs, {form}, {seconds:.0} s.\n", kernel.trim())?;
    text.push_str(
        "IPVS and what stands beside it (`…-beside-ipvs`) are measured in a Debian kernel that is booted under emulation: compare \
         those rows with one another, never with others. Rows of full nat end at 1 Mi flows: a flow needs a port of the pool, \
         and a pool has 64 addresses at most.\n\n",
    );
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
    let value = |line: &str, step: &str| {
        let name = line.replacen('#', step, 1);
        rows.iter().find(|row| row.name == name).map(|row| row.value)
    };
    let lines: Vec<(&str, Vec<(f64, f64)>)> = plot
        .lines
        .iter()
        .map(|(line, legend, steps)| {
            let points =
                steps.iter().filter_map(|(text, number)| Some((*number, value(line, text)?)));
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
    chart.configure_mesh().x_desc(plot.what).y_desc("ns").draw()?;
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
