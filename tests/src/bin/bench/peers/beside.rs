//! IPVS beside lb, in one kernel of Debian's that `cargo xtask bench` boots under qemu: the one at hand may have no IPVS. Client,
//! servers and the machine in the middle are those of the other peers, in namespaces inside the booted kernel. It is emulated: what is
//! measured there is compared with what is measured there, never with figures of the host.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use lb_tests::lab::{Arms, Lab, Return};
use serde::{Deserialize, Serialize};

use super::{
    Measured, PERCENTILES, Pace,
    load::percentile,
    one_round,
    ways::{self, Running, Way},
};
use crate::row::{Row, median};

/// Before the measurements, on a line of their own.
const MARK: &str = "lb-measured ";
/// The ways whose answers come back by the same way, and what rows call them.
const THROUGH: [(Way, &str); 3] =
    [(Way::Routed, "routed-beside-ipvs"), (Way::Ipvs, "ipvs"), (Way::Lb, "lb-beside-ipvs")];
/// The ways that servers answer past.
const PAST: [(Way, &str); 2] = [(Way::IpvsDr, "ipvs-dr"), (Way::LbDsr, "lb-dsr-beside-ipvs")];
/// lb's ways beside those of IPVS, and what rows call the comparison.
const PAIRS: [(&str, &str, &str); 2] = [
    ("lb-beside-ipvs", "ipvs", "lb-over-ipvs"),
    ("lb-dsr-beside-ipvs", "ipvs-dr", "lb-dsr-over-ipvs-dr"),
];

/// All ways by what rows call them.
#[derive(Serialize, Deserialize)]
struct Booted {
    kernel: String,
    ways: BTreeMap<String, Measured>,
}

/// What `cargo xtask` has made of the booted kernel's words.
#[derive(Deserialize)]
struct Said {
    measured: Option<Booted>,
    /// Why nothing was measured.
    problem: Option<String>,
    /// What it took.
    seconds: f64,
}

/// Measures in the kernel at hand, which has to have IPVS, and prints one line for [`read`].
pub fn measure_here(quick: bool) -> Result<()> {
    let (rounds, requests, seconds) = if quick { (2, 250, 1) } else { (3, 300, 2) };
    let pace = Pace { requests, kept: requests * 8, rate: 40, time: Duration::from_secs(seconds) };
    let through = Lab::new(Arms::Two, Return::ThroughLb, 3)?;
    let past = Lab::new(Arms::One, Return::Direct, 1)?;
    ways::prepare(&through)?;
    ways::prepare(&past)?;
    let all: Vec<(&Lab, Way, &str)> = (THROUGH.iter().map(|(way, name)| (&through, *way, *name)))
        .chain(PAST.iter().map(|(way, name)| (&past, *way, *name)))
        .collect();
    let mut measured = BTreeMap::<String, Measured>::new();
    let mut latencies = vec![Vec::new(); all.len()];
    for round in 1..=rounds {
        for ((lab, way, name), latencies) in all.iter().zip(&mut latencies) {
            eprintln!("{name}: round {round} of {rounds}");
            let running = Running::start(lab, *way).context(*name)?;
            let result = one_round(lab, *way, pace);
            running.stop().context(*name)?;
            let result = result.context(*name)?;
            latencies.extend_from_slice(result.1.latencies());
            measured.entry((*name).to_owned()).or_default().add(&result);
        }
    }
    for ((.., name), latencies) in all.iter().zip(&latencies) {
        let measured = measured.get_mut(*name).context("it was measured")?;
        measured.latency_of_all = PERCENTILES.map(|(_, share)| percentile(latencies, share));
    }
    let kernel = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    println!("\n{MARK}{}", serde_json::to_string(&Booted { kernel, ways: measured })?);
    Ok(())
}

/// The rows of what was measured in the booted kernel, and how many seconds that took; a file that says why nothing was is an error.
pub fn read(file: Option<&Path>) -> Result<(Vec<Row>, f64)> {
    let Some(file) = file else {
        bail!("IPVS was not measured: `cargo xtask bench` boots a kernel that has it")
    };
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let said: Said =
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", file.display()))?;
    match said.measured {
        Some(booted) => Ok((rows(&booted)?, said.seconds)),
        None => bail!("IPVS was not measured: {}", said.problem.unwrap_or_default()),
    }
}

fn rows(booted: &Booted) -> Result<Vec<Row>> {
    let find = |name: &str| {
        let found = booted.ways.get(name).filter(|found| !found.cpu[0].is_empty());
        found.with_context(|| format!("{name} was not measured in Linux {}", booted.kernel))
    };
    let mut rows = Vec::new();
    let routed = find(THROUGH[0].1)?;
    for (_, name) in THROUGH.iter().chain(&PAST) {
        let measured = find(name)?;
        for (index, kind) in ["new", "kept"].into_iter().enumerate() {
            let (cpu, base) = (&measured.cpu[index], median(&routed.cpu[index]));
            rows.push(row(name, format!("cpu/{kind}"), "us a request, emulated", cpu).beside(base));
            let unit = "requests a second, emulated";
            rows.push(row(name, format!("rate/{kind}"), unit, &measured.rate[index]));
        }
        for (index, (percentile, _)) in PERCENTILES.into_iter().enumerate() {
            let (of_all, base) = (measured.latency_of_all[index], routed.latency_of_all[index]);
            let name = format!("{name}/latency/{percentile}");
            let values = &measured.latency[index];
            ensure!(!values.is_empty(), "{name} was not measured");
            rows.push(Row::of_all("peers", name, "us, emulated", of_all, values).beside(base));
        }
    }
    for (ours, theirs, name) in PAIRS {
        let (ours, theirs) = (find(ours)?, find(theirs)?);
        for (index, kind) in ["new", "kept"].into_iter().enumerate() {
            let pairs = ours.cpu[index].iter().zip(&theirs.cpu[index]);
            let shares: Vec<f64> = pairs.map(|(ours, theirs)| ours / theirs).collect();
            rows.push(row(name, format!("cpu/{kind}"), "times", &shares));
        }
    }
    Ok(rows)
}

fn row(way: &str, what: String, unit: &'static str, values: &[f64]) -> Row {
    Row::new("peers", format!("{way}/{what}"), unit, values, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn booted(cpu: [f64; 2]) -> Booted {
        let measured = |cpu: f64| Measured {
            cpu: [vec![cpu; 3], vec![cpu / 2.0; 3]],
            rate: [vec![1.0; 3], vec![2.0; 3]],
            latency: [vec![1.0; 3], vec![2.0; 3], vec![3.0; 3]],
            latency_of_all: [1.0, 2.0, 4.0],
            ..Measured::default()
        };
        let names = THROUGH.iter().chain(&PAST).map(|(_, name)| (*name).to_owned());
        let ours = |name: &str| name.starts_with("lb");
        let ways = names.map(|name| (name.clone(), measured(cpu[usize::from(ours(&name))])));
        Booted { kernel: "6.12".to_owned(), ways: ways.collect() }
    }

    #[test]
    fn lb_is_compared_with_what_was_measured_beside_it() {
        let rows = rows(&booted([200.0, 100.0])).unwrap();
        let find = |name: &str| rows.iter().find(|row| row.name == name).expect(name);
        assert_eq!(find("lb-over-ipvs/cpu/new").value, 0.5);
        assert_eq!(find("lb-dsr-over-ipvs-dr/cpu/kept").value, 0.5);
        assert_eq!(find("ipvs/cpu/new").ratio, Some(1.0));
        let tail = find("lb-beside-ipvs/latency/p99.9");
        assert_eq!((tail.value, tail.max), (4.0, 3.0), "of all requests; spread of the rounds");
        assert!(rows.iter().all(|row| row.group == "peers"));
    }

    #[test]
    fn what_was_not_measured_is_an_error() {
        let mut one = booted([1.0, 1.0]);
        one.ways.remove("ipvs-dr");
        assert!(format!("{:#}", rows(&one).unwrap_err()).contains("ipvs-dr was not measured"));
        assert!(read(None).is_err());
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("booted.json");
        fs::write(&file, r#"{"problem":"there is no qemu","seconds":1}"#).unwrap();
        let problem = format!("{:#}", read(Some(&file)).unwrap_err());
        assert!(problem.contains("there is no qemu"), "{problem}");
        let good = serde_json::json!({"measured": booted([1.0, 1.0]), "seconds": 90});
        fs::write(&file, good.to_string()).unwrap();
        let (rows, seconds) = read(Some(&file)).unwrap();
        assert!(!rows.is_empty() && seconds == 90.0);
    }
}
