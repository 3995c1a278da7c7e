//! `lb status`

use clap::Args;

use super::{
    Exit,
    client::{Connection, block_on},
    output::{self, Style, clean, number_cell, table_text},
    units,
};
use crate::api::types::{
    BackendStatus, ClusterStatus, PhaseCount, ServiceStatus, Setting, SharedStatus, Status,
    Tracking,
};

/// Show node, NICs, services and backends
///
/// For each backend: operational state (UP, DOWN, `UP 1/3` on the way), administrative state, weight, slots of the ring
/// it owns, pinned flows, next hop, the last check in HAProxy's words, and the time in this state. An invalid
/// configuration file and everything else that needs attention stands above. Nodes of a cluster show the same seed
/// fingerprint, and the same ring for each service.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb status
  lb status --json | jq '.services[].backends[] | select(.state == \"DOWN\")'")]
pub struct Show {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Show {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        let client = connection.client();
        let status = block_on(async { Ok(client.status().await?) })?;
        if self.json {
            output::print_json(&status)?;
        } else {
            output::print(&render(&status, Style::of_stdout()))?;
        }
        Ok(Exit::Ok)
    }
}

fn render(status: &Status, style: Style) -> String {
    let mut text = format!(
        "lb {} {}  pid {}  up {}  config {} (revision {})  seed {}\n",
        clean(&status.version),
        style.state(if status.draining { "drain" } else { "running" }),
        status.pid,
        units::age(status.uptime_seconds),
        clean(&status.config),
        status.revision,
        clean(&status.seed_fingerprint),
    );
    let pins = &status.pins;
    text.push_str(&format!(
        "pins: {} of {} confirmed, {} of {} unconfirmed\n",
        pins.confirmed, pins.confirmed_limit, pins.unconfirmed, pins.unconfirmed_limit
    ));
    if let Some(error) = &status.config_error {
        let what = match &status.shared {
            None => "The file on disk",
            Some(_) => "The newest configuration in etcd",
        };
        text.push_str(&format!("\n{what} is not in force; the last good configuration is:\n"));
        for line in output::clean_lines(error).lines() {
            text.push_str(&format!("  {line}\n"));
        }
    }
    if !status.warnings.is_empty() {
        text.push_str("\nWarnings:\n");
        for warning in &status.warnings {
            text.push_str(&format!("  {}\n", output::clean_lines(warning).replace('\n', "\n  ")));
        }
    }
    if !status.settings.is_empty() {
        text.push_str("\nSet beside the file (`lb save` writes it, `lb unset` ends it):\n");
        for Setting { target, key, value } in &status.settings {
            text.push_str(&format!("  {} {}={}\n", clean(target), clean(key), clean(value)));
        }
    }
    text.push('\n');
    text.push_str(&interfaces(status, style));
    if let Some(shared) = &status.shared {
        text.push('\n');
        text.push_str(&render_shared(shared));
    }
    if let Some(status) = &status.cluster {
        text.push('\n');
        text.push_str(&cluster(status, style));
    }
    for service in &status.services {
        text.push('\n');
        text.push_str(&render_service(service, style));
    }
    if status.services.is_empty() {
        text.push_str("\nno services\n");
    }
    text
}

fn interfaces(status: &Status, style: Style) -> String {
    if status.interfaces.is_empty() {
        return "no NICs\n".to_owned();
    }
    let mut table = style.table(&["NIC", "INDEX", "XDP", "MTU", "LINK"]);
    for nic in &status.interfaces {
        table.add_row([
            clean(&nic.name).into(),
            number_cell(nic.ifindex.map_or_else(|| "-".to_owned(), |index| index.to_string())),
            style.state_cell(&nic.mode),
            number_cell(nic.mtu),
            style.state_cell(&nic.link),
        ]);
    }
    table_text(&table, "")
}

/// Where the configuration is from.
fn render_shared(shared: &SharedStatus) -> String {
    let from = match shared.revision {
        0 => "what is in force is not from there".to_owned(),
        revision => format!("revision {revision} is in force"),
    };
    let member = match &shared.member {
        Some(member) => format!("{} answers", clean(member)),
        None => "nobody answers".to_owned(),
    };
    format!("shared configuration: {}: {from}; {member}\n", clean(&shared.url))
}

/// The other nodes; what is wrong with them stands among the warnings.
fn cluster(status: &ClusterStatus, style: Style) -> String {
    let text = format!(
        "cluster: this node is {}; {} entries taken over, {} known already, {} unknown, {} refused, {} conflicts\n",
        clean(&status.node),
        status.taken,
        status.known,
        status.unknown,
        status.refused,
        status.conflicts
    );
    let headings =
        ["NODE", "ADDRESS", "STATE", "SENT", "WAITING", "DROPPED", "LAG", "RECEIVED", "HEARD"];
    let mut table = style.table(&headings);
    for peer in &status.peers {
        let node = if peer.node.is_empty() { "-".to_owned() } else { clean(&peer.node) };
        table.add_row([
            node.into(),
            clean(&peer.address).into(),
            style.state_cell(&peer.state),
            number_cell(peer.sent),
            number_cell(peer.waiting),
            number_cell(peer.dropped),
            number_cell(peer.lag_milliseconds.map_or_else(|| "-".into(), |ms| format!("{ms}ms"))),
            number_cell(peer.received),
            number_cell(peer.heard_seconds.map_or_else(|| "-".into(), units::age)),
        ]);
    }
    text + &table_text(&table, "  ")
}

fn render_service(service: &ServiceStatus, style: Style) -> String {
    let mut text = format!(
        "{}  {}  {}  {}  ring {}{}{}{}\n",
        clean(&service.name),
        clean(&service.listen),
        clean(&service.forward),
        style.state(&service.state),
        clean(&service.ring),
        if service.vip_on_host { "  VIP on this host" } else { "" },
        unsettled(service.slots),
        match service.state_reason.as_str() {
            "" => String::new(),
            reason => format!("\n  {}", clean(reason)),
        },
    );
    if let Some(stage) = service.syn_flood.filter(|stage| stage.engaged) {
        text.push_str(&format!(
            "  SYN-flood stage engaged: {} SYNs/s; unknown clients are challenged until fewer than {}/s come\n",
            stage.syns_per_second, stage.release
        ));
    }
    if let Some(tracking) = &service.tracking {
        text.push_str(&flows(&service.balance, tracking));
    }
    let headings = [
        "BACKEND", "FROM", "ROLE", "ADDRESS", "STATE", "ADMIN", "WEIGHT", "SLOTS", "PINS", "SINCE",
        "CHECK", "NEXT HOP",
    ];
    // Where there is but one tier, nobody asks for it.
    let roles = service.backends.iter().any(|backend| backend.sorry || backend.tier > 0);
    let found = service.backends.iter().any(|backend| backend.from.is_some());
    let shown = |column: &usize| match headings[*column] {
        "ROLE" => roles,
        "FROM" => found,
        _ => true,
    };
    let columns: Vec<usize> = (0..headings.len()).filter(shown).collect();
    let mut table = style.table(&columns.iter().map(|i| headings[*i]).collect::<Vec<_>>());
    for backend in &service.backends {
        let cells = [
            clean(&backend.name).into(),
            backend.from.as_deref().map_or_else(|| "-".to_owned(), clean).into(),
            role(backend).into(),
            clean(&backend.address).into(),
            style.state_cell(&backend.state),
            style.state_cell(&backend.admin),
            number_cell(weight(backend)),
            number_cell(backend.slots),
            number_cell(backend.pins),
            number_cell(units::age(backend.last_change_seconds)),
            check(backend).into(),
            style.state_cell(&backend.next_hop),
        ];
        let kept = cells.into_iter().enumerate().filter(|(index, _)| columns.contains(index));
        table.add_row(kept.map(|(_, cell)| cell).collect::<Vec<comfy_table::Cell>>());
    }
    text.push_str(&table_text(&table, "  "));
    text
}

/// What is remembered of flows, where all are.
fn flows(balance: &str, tracking: &Tracking) -> String {
    let Tracking { confirmed, confirmed_limit, unconfirmed, unconfirmed_limit, sources } = tracking;
    let sources =
        sources.map_or_else(String::new, |sources| format!(", {sources} clients remembered"));
    format!(
        "  {}  flows: {confirmed} of {confirmed_limit} confirmed, {unconfirmed} of {unconfirmed_limit} unconfirmed{sources}\n",
        clean(balance)
    )
}

/// Slots that are not SETTLED, by phase; nothing in the normal state.
fn unsettled(slots: PhaseCount) -> String {
    let PhaseCount { settled, window, harvest, pinned } = slots;
    let phases = [(window, "WINDOW"), (harvest, "HARVEST"), (pinned, "PINNED")];
    let counts: Vec<String> = phases
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, phase)| format!("{count} {phase}"))
        .collect();
    if counts.is_empty() {
        return String::new();
    }
    let all = settled + window + harvest + pinned;
    format!("  slots: {} of {all}", counts.join(", "))
}

fn role(backend: &BackendStatus) -> String {
    if backend.sorry { "sorry".to_owned() } else { format!("tier {}", backend.tier) }
}

/// The weight in force; beside it that of the file if it is another, the share of it that the backend asks for, and how far
/// a slow start has come.
fn weight(backend: &BackendStatus) -> String {
    let (now, file) = (backend.weight, backend.configured_weight);
    let mut text = now.to_string();
    if now != file {
        text.push_str(&format!(" (file {file})"));
    }
    match backend.weight_percent {
        None | Some(100) => {}
        Some(percent) => text.push_str(&format!(" at {percent}%")),
    }
    if let Some(throttle) = backend.throttle {
        text.push_str(&format!(" starting {throttle}%"));
    }
    text
}

/// `L7STS 503 in 1.2ms`, in HAProxy's order: code, what it said, how long it took; before it whose check it is, if it is
/// another backend's.
fn check(backend: &BackendStatus) -> String {
    const LONGEST: usize = 60;
    let mut text = clean(&backend.check);
    if let Some(tracked) = &backend.tracks {
        text = format!("via {} {text}", clean(tracked));
    }
    if !backend.check_output.is_empty() {
        let output = clean(&backend.check_output);
        let cut: String = output.chars().take(LONGEST).collect();
        let dots = if cut.len() < output.len() { "..." } else { "" };
        text.push_str(&format!(" {cut}{dots}"));
    }
    if let Some(milliseconds) = backend.check_milliseconds {
        text.push_str(&format!(" in {milliseconds:.1}ms"));
    }
    if let Some(agent) = &backend.agent {
        let said = match agent.code.as_str() {
            "" => String::new(),
            code => format!(" ({} {})", clean(code), clean(&agent.output)),
        };
        let said: String = said.chars().take(LONGEST).collect();
        text.push_str(&format!("; agent {}{said}", clean(&agent.says)));
    }
    if text.is_empty() { "-".to_owned() } else { text.trim_start().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::{InterfaceStatus, PinStatus};

    fn sample() -> Status {
        let up = BackendStatus {
            name: "web1".into(),
            address: "10.0.0.11:80".into(),
            state: "UP".into(),
            admin: "ready".into(),
            weight: 50,
            configured_weight: 100,
            slots: 680,
            pins: 12,
            next_hop: "eth0 via 10.0.0.1 02:00:00:00:00:01".into(),
            check: "L7OK".into(),
            check_output: "200".into(),
            check_milliseconds: Some(1.25),
            last_change_seconds: 7380,
            ..BackendStatus::default()
        };
        let down = BackendStatus {
            name: "web2".into(),
            address: "10.0.0.12:80".into(),
            state: "DOWN 1/2".into(),
            admin: "drain".into(),
            weight: 100,
            configured_weight: 100,
            slots: 341,
            pins: 0,
            next_hop: "unresolved".into(),
            check: "L7STS".into(),
            check_output: "503 \x1b[31mgone\x1b[0m".into(),
            check_milliseconds: None,
            last_change_seconds: 5,
            ..BackendStatus::default()
        };
        Status {
            version: "0.1.0".into(),
            pid: 42,
            uptime_seconds: 65,
            config: "/etc/lb/lb.yaml".into(),
            revision: 3,
            trial: None,
            settings: vec![],
            config_error: Some("lb.yaml:4:1: unknown key\n    wieght: 1".into()),
            seed_fingerprint: "a1b2c3d4".into(),
            starting: false,
            draining: false,
            interfaces: vec![InterfaceStatus {
                name: "eth0".into(),
                ifindex: Some(2),
                mode: "native".into(),
                mtu: 1500,
                link: "up".into(),
            }],
            warnings: vec!["eth1: no such NIC".into()],
            services: vec![ServiceStatus {
                name: "web".into(),
                listen: "192.0.2.10:80/tcp".into(),
                forward: "nat".into(),
                state: "UP".into(),
                ring: "0a1b2c3d".into(),
                vip_on_host: true,
                slots: PhaseCount { settled: 1001, window: 20, harvest: 0, pinned: 0 },
                backends: vec![up, down],
                ..ServiceStatus::default()
            }],
            pins: PinStatus {
                confirmed: 12,
                confirmed_limit: 1000,
                unconfirmed: 1,
                unconfirmed_limit: 500,
            },
            tables: vec![],
            cluster: None,
            shared: None,
            vip_conflicts: vec![],
            name_conflict: None,
        }
    }

    #[test]
    fn shows_what_an_operator_looks_for() {
        let expected = "\
lb 0.1.0 running  pid 42  up 1m05s  config /etc/lb/lb.yaml (revision 3)  seed a1b2c3d4
pins: 12 of 1000 confirmed, 1 of 500 unconfirmed

The file on disk is not in force; the last good configuration is:
  lb.yaml:4:1: unknown key
      wieght: 1

Warnings:
  eth1: no such NIC

NIC   INDEX  XDP     MTU   LINK
eth0      2  native  1500  up

web  192.0.2.10:80/tcp  nat  UP  ring 0a1b2c3d  VIP on this host  slots: 20 WINDOW of 1021
  BACKEND  ADDRESS       STATE     ADMIN  WEIGHT         SLOTS  PINS  SINCE  CHECK                              NEXT HOP
  web1     10.0.0.11:80  UP        ready  50 (file 100)    680    12  2h03m  L7OK 200 in 1.2ms                  eth0 via 10.0.0.1 02:00:00:00:00:01
  web2     10.0.0.12:80  DOWN 1/2  drain            100    341     0     5s  L7STS 503 \\u{1b}[31mgone\\u{1b}[0m  unresolved
";
        let text = render(&sample(), Style::PLAIN);
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn tiers_and_modes_are_shown_where_there_are_any() {
        let mut status = sample();
        let service = &mut status.services[0];
        service.state = "BACKUP".into();
        service.state_reason = "nobody in the tiers before is usable: tier 1 is used".into();
        service.syn_flood = Some(crate::api::types::SynFlood {
            engaged: true,
            syns_per_second: 700,
            engage: 500,
            release: 250,
        });
        service.backends[0].tier = 1;
        service.backends[0].throttle = Some(35);
        service.backends[1].sorry = true;
        service.backends[1].tracks = Some("api/api1".into());
        let text = render(&status, Style::PLAIN);
        for line in [
            "  nobody in the tiers before is usable: tier 1 is used\n",
            "  SYN-flood stage engaged: 700 SYNs/s; unknown clients are challenged until fewer than 250/s come\n",
            "  web1     tier 1  10.0.0.11:80  UP        ready  50 (file 100) starting 35%  ",
            "  web2     sorry   10.0.0.12:80  DOWN 1/2  drain  ",
            "via api/api1 L7STS 503",
        ] {
            assert!(text.contains(line), "{line:?} in\n{text}");
        }
    }

    #[test]
    fn a_settled_service_says_nothing_of_slots_and_colours_change_no_word() {
        let mut status = sample();
        status.services[0].slots = PhaseCount { settled: 1021, ..PhaseCount::default() };
        let plain = render(&status, Style::PLAIN);
        assert!(plain.contains("  nat  UP  ring 0a1b2c3d  VIP on this host\n"), "{plain}");
        let coloured = render(&status, Style { colour: true });
        assert!(coloured.contains("\x1b[32mUP\x1b[0m"), "{coloured}");
        // Only colours of ours: the probe's are escaped.
        assert!(!coloured.contains("\x1b[31mgone"), "{coloured}");
    }
}
