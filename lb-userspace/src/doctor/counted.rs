//! What is counted while the daemon runs: entries of tables, and dropped packets.

use super::{Finding, Severity, advice, command, daemon::GROUP};
use crate::api::types::{Status, TableStatus, Why, WhyReason};

/// Share of a table, in percent, from which on a warning is due.
const FULL: u64 = 80;

/// Judges tables and drops.
pub(super) fn check(status: &Status, why: Option<&Why>) -> Vec<Finding> {
    let mut findings = tables(status);
    findings.extend(why.into_iter().flat_map(drops));
    findings
}

fn tables(status: &Status) -> Vec<Finding> {
    let percent = |table: &TableStatus| (table.entries * 100).checked_div(table.limit).unwrap_or(0);
    let (full, well): (Vec<_>, Vec<_>) =
        status.tables.iter().partition(|table| percent(table) >= FULL);
    let mut findings: Vec<Finding> = full.into_iter().map(full_table).collect();
    if let Some(most) = well.iter().max_by_key(|table| percent(table)) {
        let found = format!(
            "{} table(s) have room; the fullest, {}, has {} of {}",
            well.len(),
            most.name,
            most.entries,
            most.limit
        );
        findings.push(Finding::ok(GROUP, "tables", found));
    }
    findings
}

fn full_table(table: &TableStatus) -> Finding {
    let (why, remedy) = match table.name.as_str() {
        "pins" | "pins_unconfirmed" => (
            "a flow that cannot be pinned while its slot changes hands goes to the backend before the change (`pin_refused`)",
            format!("raise `limits.{}`", table.name),
        ),
        "routes" | "neighbours" => (
            "clients whose way back is not in the table cost a look into the kernel's own",
            "announce fewer routes to this host; a default route is enough for lb".to_owned(),
        ),
        "service_table" => (
            "a configuration with more services would be refused",
            "raise `limits.services`".to_owned(),
        ),
        name => {
            ("a configuration that needs more would be refused", format!("raise `limits.{name}`"))
        }
    };
    let note = if remedy.starts_with("raise") {
        " (it takes effect after `lb detach` and a start)"
    } else {
        ""
    };
    Finding::bad(
        Severity::Warning,
        GROUP,
        "tables",
        format!("{}: {} of {}", table.name, table.entries, table.limit),
        why,
        advice(format!("{remedy}{note}")),
    )
}

/// Drops that something can be done about.
fn drops(why: &Why) -> Vec<Finding> {
    let of_services = why.services.iter().flat_map(|service| {
        service.reasons.iter().map(move |reason| (Some(&service.name), reason))
    });
    let of_node = why.node.iter().map(|reason| (None, reason));
    let mut findings: Vec<Finding> = of_services
        .chain(of_node)
        .filter(|(_, reason)| reason.drop && reason.count > 0 && !is_background(reason))
        .map(|(service, reason)| drop_finding(service.map(String::as_str), reason))
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok(GROUP, "drops", "nothing was dropped that could be helped"));
    }
    findings
}

/// Scans, attacks and damage: they come with the Internet.
fn is_background(reason: &WhyReason) -> bool {
    reason.remedy.is_empty() || reason.remedy.contains("nothing need")
}

fn drop_finding(service: Option<&str>, reason: &WhyReason) -> Finding {
    Finding::bad(
        Severity::Note,
        GROUP,
        "drops",
        format!(
            "{} packets dropped of {}: {}",
            reason.count,
            service.unwrap_or("no service"),
            reason.name
        ),
        "lb counts every packet that it drops under one reason",
        match service {
            Some(name) => command(format!("lb why {name}")),
            None => command("lb why"),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::types::WhyService, doctor::testing::assert_finds};

    #[test]
    fn full_tables_and_drops_are_told() {
        let mut status = Status::default();
        let table = |name: &str, entries| TableStatus { name: name.into(), entries, limit: 100 };
        status.tables = vec![table("pins", 90), table("services", 79)];
        let reason = |name: &str, remedy: &str| WhyReason {
            name: name.into(),
            count: 3,
            drop: true,
            remedy: remedy.into(),
            ..WhyReason::default()
        };
        let why = Why {
            services: vec![WhyService {
                name: "web".into(),
                reasons: vec![reason("no_nexthop", "see `lb status`")],
                ..WhyService::default()
            }],
            node: vec![reason("tcp_flags", "a scan; nothing needs to be done.")],
        };
        let findings = check(&status, Some(&why));
        let of_tables: Vec<&Finding> = findings.iter().filter(|f| f.check == "tables").collect();
        let [full, well] = of_tables[..] else { panic!("{findings:#?}") };
        assert_finds(std::slice::from_ref(full), "tables", Severity::Warning, "limits.pins");
        assert_eq!(well.found, "1 table(s) have room; the fullest, services, has 79 of 100");
        assert_finds(&findings, "drops", Severity::Note, "lb why web");
    }
}
