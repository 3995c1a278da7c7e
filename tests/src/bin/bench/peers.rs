//! lb beside what somebody would use instead, in one lab with the same clients and servers: HAProxy in TCP mode, nginx's
//! stream module, nftables. `routed` is the way without any of them: the machine in the middle forwards to one server.
//!
//! Each is set up anew for each round, in turns, so that what else the machine does meets all. What counts is the CPU of
//! the whole system (clients, servers, softirqs) for a request: it is what the same requests cost each way.

mod beside;
mod load;
mod ways;

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use lb_tests::lab::{Arms, Lab, PORT, Return, VIP4, backend4};
use serde::{Deserialize, Serialize};

use self::{
    load::{Kind, Outcome, overloaded, paced, percentile, saturated, settle},
    ways::{Running, Way},
};
use crate::{
    progress,
    row::{Row, median},
};

pub use beside::{measure_here as measure_beside_ipvs, read as read_beside_ipvs};

/// Workers that ask as fast as they are answered.
const WORKERS: usize = 4;
/// Requests a second that nothing here can answer, and how long one of them may take.
const OVERLOAD: (u32, Duration) = (20_000, Duration::from_secs(1));
/// Percentiles of the added latency.
const PERCENTILES: [(&str, f64); 3] = [("p50", 0.50), ("p99", 0.99), ("p99.9", 0.999)];
/// Of the CPU that a request takes past a program that forwards with constants, what it may take past lb.
const OVER_CONSTANT: f64 = 1.03;
/// Student's t for a two-sided 95 % interval, by degrees of freedom from 1; the last one is the normal distribution's.
const STUDENT: [f64; 12] =
    [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 1.96];

/// How much is asked in a round.
#[derive(Clone, Copy)]
struct Pace {
    /// Requests on new connections.
    requests: usize,
    /// Requests on kept ones.
    kept: usize,
    /// Requests a second of all workers together, where latency is measured.
    rate: u32,
    /// For how long.
    time: Duration,
}

/// What one way came to, by round.
#[derive(Default, Serialize, Deserialize)]
struct Measured {
    /// Microseconds of CPU a request, with a new connection for each and on one that stays.
    cpu: [Vec<f64>; 2],
    /// Requests a second.
    rate: [Vec<f64>; 2],
    /// Microseconds, by percentile.
    latency: [Vec<f64>; 3],
    /// The same of all rounds' requests together.
    latency_of_all: [f64; 3],
    /// Of more requests than can be answered: per cent answered in time, and how many that is a second.
    overload: [Vec<f64>; 2],
}

/// All rows.
pub fn measure(quick: bool) -> Result<Vec<Row>> {
    // A second of requests: what a measurement of CPU time is off by is the ticks at its ends, which are 4 ms.
    let (rounds, requests, seconds) = if quick { (6, 9_000, 1) } else { (7, 12_000, 2) };
    let overloads = if quick { 2 } else { rounds };
    let pace =
        Pace { requests, kept: requests * 2, rate: 1_000, time: Duration::from_secs(seconds) };
    let warm_up = Pace { requests: 1_000, kept: 1_000, time: Duration::from_millis(100), ..pace };
    let through = Lab::new(Arms::Two, Return::ThroughLb, 3)?;
    ways::prepare(&through)?;
    let past = Lab::new(Arms::One, Return::Direct, 1)?;
    ways::prepare(&past)?;
    let ways = Way::THROUGH.map(|way| (way, &through)).into_iter();
    let ways = ways.chain(Way::PAST.map(|way| (way, &past)));
    let mut all: Vec<(Way, &Lab, Measured)> =
        ways.map(|(way, lab)| (way, lab, Measured::default())).collect();
    let mut latencies = vec![Vec::new(); all.len()];
    for round in 0..=rounds {
        for ((way, lab, measured), latencies) in all.iter_mut().zip(&mut latencies) {
            progress(&format!("{}: round {round} of {rounds}", way.name()));
            let running = Running::start(lab, *way).with_context(|| way.name())?;
            // The first round only warms up.
            let one = one_round(lab, *way, if round > 0 { pace } else { warm_up });
            let overload = (1..=overloads).contains(&round).then(|| {
                let time = Duration::from_secs(seconds.min(4));
                overloaded(lab, target(*way), OVERLOAD.0, time, OVERLOAD.1)
            });
            running.stop().with_context(|| way.name())?;
            let one = one.with_context(|| way.name())?;
            if round > 0 {
                measured.add(&one);
                latencies.extend_from_slice(one.1.latencies());
            }
            let Some(overload) = overload else { continue };
            let (share, goodput) = overload.with_context(|| way.name())?;
            measured.overload[0].push(share * 100.0);
            measured.overload[1].push(goodput);
        }
    }
    // The slowest of a hundred are few: where they do not tell lb from a peer, both are asked for longer, and all of it counts.
    for more in 1..=rounds {
        let is_due = not_slower_than_ours(&all, &latencies);
        for ((way, lab, _), latencies) in
            all.iter().zip(&mut latencies).filter(|((way, ..), _)| is_due.contains(way))
        {
            progress(&format!("{}: latency once more, {more} of {rounds}", way.name()));
            let running = Running::start(lab, *way).with_context(|| way.name())?;
            settle()?;
            let outcome = paced(lab, target(*way), WORKERS, pace.rate, pace.time);
            running.stop().with_context(|| way.name())?;
            latencies.extend_from_slice(outcome.with_context(|| way.name())?.latencies());
        }
    }
    progress("");
    for ((.., measured), latencies) in all.iter_mut().zip(&latencies) {
        measured.latency_of_all = PERCENTILES.map(|(_, share)| percentile(latencies, share));
    }
    Ok(rows(&all))
}

/// lb, and the peers whose slowest requests were no slower than lb's; nobody if there is none.
fn not_slower_than_ours(all: &[(Way, &Lab, Measured)], latencies: &[Vec<Duration>]) -> Vec<Way> {
    let p99 = |wanted: Way| {
        let found = all.iter().zip(latencies).find(|((way, ..), _)| *way == wanted);
        found.map(|(_, latencies)| percentile(latencies, PERCENTILES[1].1))
    };
    let Some(ours) = p99(Way::Lb) else { return Vec::new() };
    let peers = all.iter().map(|(way, ..)| *way).filter(|way| way.is_peer());
    let mut due: Vec<Way> = peers.filter(|way| p99(*way).is_some_and(|p99| p99 <= ours)).collect();
    if !due.is_empty() {
        due.push(Way::Lb);
    }
    due
}

fn target(way: Way) -> SocketAddr {
    match way {
        Way::Routed => SocketAddr::new(backend4(1), PORT),
        // The port is not rewritten.
        Way::LbDsr | Way::Constant | Way::IpvsDr => SocketAddr::new(VIP4, PORT),
        _ => SocketAddr::new(VIP4, 80),
    }
}

/// What one way came to in one round: with new connections, with kept ones, and at even times.
type Round = ([Outcome; 2], Outcome);

fn one_round(lab: &Lab, way: Way, pace: Pace) -> Result<Round> {
    let target = target(way);
    settle()?;
    let new = saturated(lab, target, Kind::New, WORKERS, pace.requests)?;
    let kept = saturated(lab, target, Kind::Kept, WORKERS, pace.kept)?;
    let latency = paced(lab, target, WORKERS, pace.rate, pace.time)?;
    Ok(([new, kept], latency))
}

impl Measured {
    fn add(&mut self, (closed, latency): &Round) {
        for (index, outcome) in closed.iter().enumerate() {
            self.cpu[index].push(outcome.cpu_per_request());
            self.rate[index].push(outcome.rate());
        }
        for (all, (_, share)) in self.latency.iter_mut().zip(PERCENTILES) {
            all.push(latency.percentile(share));
        }
    }
}

fn rows(all: &[(Way, &Lab, Measured)]) -> Vec<Row> {
    let find =
        |wanted: Way| all.iter().find(|(way, ..)| *way == wanted).map(|(.., measured)| measured);
    let found = (find(Way::Routed), find(Way::Lb), find(Way::LbDsr), find(Way::Constant));
    let (Some(routed), Some(ours), Some(dsr), Some(constant)) = found else { return Vec::new() };
    let mut rows = Vec::new();
    for (way, _, measured) in all {
        let name = way.name();
        for (index, kind) in ["new", "kept"].into_iter().enumerate() {
            let (cpu, base) = (&measured.cpu[index], median(&routed.cpu[index]));
            rows.push(
                Row::new("peers", format!("{name}/cpu/{kind}"), "us a request", cpu, None)
                    .beside(base),
            );
            rows.push(Row::new(
                "peers",
                format!("{name}/rate/{kind}"),
                "requests a second",
                &measured.rate[index],
                None,
            ));
        }
        for (index, (percentile, _)) in PERCENTILES.into_iter().enumerate() {
            let pairs = measured.latency[index].iter().zip(&routed.latency[index]);
            let added: Vec<f64> = pairs.map(|(with, without)| with - without).collect();
            rows.push(Row::new(
                "peers",
                format!("{name}/added-latency/{percentile}"),
                "us",
                &added,
                None,
            ));
        }
        for (what, unit, values) in [
            ("answered", "%", &measured.overload[0]),
            ("goodput", "requests a second", &measured.overload[1]),
        ] {
            let name = format!("{name}/overload/{what}");
            rows.push(Row::new("peers", name, unit, values, None));
        }
        if way.is_peer() {
            // Of each request on a connection of its own; below 0 in 95 of 100 repetitions of all this.
            let pairs = ours.cpu[0].iter().zip(&measured.cpu[0]);
            let differences: Vec<f64> = pairs.map(|(ours, theirs)| ours - theirs).collect();
            let worst = upper_bound(&differences);
            rows.push(Row::new(
                "peers",
                format!("lb-minus-{name}/cpu/new/upper-95"),
                "us a request",
                &[worst],
                Some(0.0),
            ));
            // The slowest of a hundred are few in a round.
            let less = ours.latency_of_all[1] - measured.latency_of_all[1];
            rows.push(Row::new(
                "peers",
                format!("lb-minus-{name}/latency/p99"),
                "us",
                &[less],
                Some(0.0),
            ));
        }
    }
    let shares: Vec<f64> =
        dsr.cpu[0].iter().zip(&constant.cpu[0]).map(|(dsr, constant)| dsr / constant).collect();
    let name = "lb-dsr-over-constant/cpu/new".to_owned();
    rows.push(Row::new("peers", name, "times", &shares, Some(OVER_CONSTANT)));
    rows
}

/// Upper end of the 95 % confidence interval of a mean.
fn upper_bound(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance =
        values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    let t = STUDENT[(values.len().saturating_sub(2)).min(STUDENT.len() - 1)];
    mean + t * (variance / count).sqrt()
}
