//! Services: state, rings, and why packets were dropped.

use std::fmt::Error;

use lb_common::abi::Reason;
use prometheus_client::encoding::DescriptorEncoder;

use super::{
    Snapshot,
    family::{counter, flag, gauge},
};
use crate::{
    api::types::{ServiceStats, ServiceStatus},
    plan::members::{Mode, is_up},
};

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, all: &Snapshot) -> Result<(), Error> {
    let services = &all.status.services;
    let mut up = gauge(encoder, "lb_service_up", "1 if the service has a usable backend.")?;
    for service in services {
        let labels = [("service", service.name.as_str()), ("listen", &service.listen)];
        up.sample(&labels, flag(is_up(&service.state)))?;
    }
    let help = "1 for the mode that the service is in: who serves.";
    let mut modes = gauge(encoder, "lb_service_mode", help)?;
    for service in services {
        for mode in Mode::NAMES {
            let labels = [("service", service.name.as_str()), ("mode", mode)];
            modes.sample(&labels, flag(service.state == mode))?;
        }
    }
    let mut slots = gauge(encoder, "lb_service_slots", "Slots of the ring by phase.")?;
    for service in services {
        let phases = service.slots;
        for (phase, count) in [
            ("settled", phases.settled),
            ("window", phases.window),
            ("harvest", phases.harvest),
            ("pinned", phases.pinned),
        ] {
            slots.sample(&[("service", &service.name), ("phase", phase)], count.into())?;
        }
    }
    syn_flood(encoder, services)?;
    type Value = fn(&ServiceStatus) -> u64;
    let counters: [(&str, &str, Value); 3] = [
        (
            "lb_service_slots_moved",
            "Slots of the ring that changed their owner; divided by all slots: the share of new flows that was moved.",
            |service| service.moved_slots,
        ),
        ("lb_service_downs", "Times the service was left without a usable backend.", |service| {
            service.downs
        }),
        ("lb_service_down_seconds", "Time the service was without a usable backend.", |service| {
            service.down_seconds
        }),
    ];
    for (name, help, value) in counters {
        let mut samples = counter(encoder, name, help)?;
        for service in services {
            samples.sample(&[("service", &service.name)], value(service) as f64)?;
        }
    }
    reasons(encoder, all)
}

fn syn_flood(encoder: &mut DescriptorEncoder<'_>, services: &[ServiceStatus]) -> Result<(), Error> {
    let stages = || services.iter().filter_map(|service| Some((service, service.syn_flood?)));
    let help = "1 while the SYN-flood stage is engaged and unknown clients are challenged.";
    let mut engaged = gauge(encoder, "lb_service_syn_flood_engaged", help)?;
    for (service, stage) in stages() {
        engaged.sample(&[("service", &service.name)], flag(stage.engaged))?;
    }
    let help = "SYNs a second for services with a SYN-flood stage, as the packet path counts them.";
    let mut rates = gauge(encoder, "lb_service_syns_per_second", help)?;
    for (service, stage) in stages() {
        rates.sample(&[("service", &service.name)], stage.syns_per_second as f64)?;
    }
    Ok(())
}

fn reasons(encoder: &mut DescriptorEncoder<'_>, all: &Snapshot) -> Result<(), Error> {
    let none = ServiceStats { reasons: all.stats.node.clone(), ..ServiceStats::default() };
    for (name, help, drops) in [
        (
            "lb_drops",
            "Packets dropped, by reason; see `lb why`. Without a service: service=\"\".",
            true,
        ),
        ("lb_events", "Packets answered, passed or noted, by reason.", false),
    ] {
        let mut samples = counter(encoder, name, help)?;
        for service in all.stats.services.iter().chain([&none]) {
            for reason in Reason::ALL {
                if reason.is_drop() != drops {
                    continue;
                }
                // A counter that appears only with its first event would hide it from `rate()`.
                let always = drops && service.name.is_empty();
                let count = service.reasons.get(reason.name()).copied();
                if let Some(count) = count.or(always.then_some(0)) {
                    let labels = [("service", service.name.as_str()), ("reason", reason.name())];
                    samples.sample(&labels, count as f64)?;
                }
            }
        }
    }
    Ok(())
}
