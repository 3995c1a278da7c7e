//! `lb stats --ipvs`: ipvsadm's three lists in ipvsadm's layout, for eyes and scripts that know them.

use clap::ValueEnum;

use super::rates::Rates;
use crate::{
    api::types::{Connections, Counters, ServiceStats, ServiceStatus, Stats, Status},
    cli::output::clean,
};

/// Which of ipvsadm's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// As `ipvsadm -ln`: forwarding, weights, connections
    List,
    /// As `ipvsadm -ln --stats`: totals
    Stats,
    /// As `ipvsadm -ln --rate`: per second, over one second
    Rate,
}

/// The whole list.
pub fn render(layout: Layout, stats: &Stats, rates: &Rates, status: &Status) -> String {
    let slots: u32 = status.services.iter().map(slots).sum();
    let mut text = format!("IP Virtual Server lb {} (size={slots})\n", clean(&status.version));
    text.push_str(&match layout {
        Layout::List => "Prot LocalAddress:Port Scheduler Flags\n  \
             -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
            .to_owned(),
        Layout::Stats => heading(["Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"]),
        Layout::Rate => heading(["CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"]),
    });
    for service in &stats.services {
        let Some(known) = status.services.iter().find(|known| known.name == service.name) else {
            continue;
        };
        text.push_str(&rows(layout, service, rates, known));
    }
    text
}

fn heading(columns: [&str; 5]) -> String {
    let columns = columns.map(|column| format!(" {column:>8}")).concat();
    format!("{:<33}{columns}\n  -> RemoteAddress:Port\n", "Prot LocalAddress:Port")
}

fn rows(layout: Layout, service: &ServiceStats, rates: &Rates, known: &ServiceStatus) -> String {
    let name = virtual_server(&service.listen);
    let mut text = match layout {
        Layout::List => format!("{name} {}\n", scheduler(&known.balance)),
        Layout::Stats => format!("{name:<33}{}\n", totals(&service.total)),
        Layout::Rate => format!("{name:<33}{}\n", per_second(rates.service(&service.name))),
    };
    for backend in &service.backends {
        let state = known.backends.iter().find(|state| state.name == backend.name);
        let address = clean(state.map_or(&backend.name, |state| &state.address));
        text.push_str(&match layout {
            Layout::List => {
                // A server that gets no new connections has weight 0 there.
                let weight = if backend.share > 0.0 { backend.weight } else { 0 };
                let forward = forward(&known.forward);
                let known = |count: fn(&Connections) -> u64| {
                    backend.connections.as_ref().map_or("-".to_owned(), |c| count(c).to_string())
                };
                let [active, inactive] = [known(|c| c.active), known(|c| c.inactive)];
                format!("  -> {address:<28} {forward:<7} {weight:<6} {active:<10} {inactive:<10}\n")
            }
            Layout::Stats => format!("  -> {address:<28}{}\n", totals(&backend.counters)),
            Layout::Rate => {
                let rate = rates.backend(&service.name, &backend.name);
                format!("  -> {address:<28}{}\n", per_second(rate))
            }
        });
    }
    text
}

/// `TCP  192.0.2.10:80`
fn virtual_server(listen: &str) -> String {
    let (address, protocol) = listen.rsplit_once('/').unwrap_or((listen, "tcp"));
    format!("{}  {}", clean(&protocol.to_uppercase()), clean(address))
}

/// IPVS's Maglev takes the client's port only with a flag; by the client's address alone, it is the source hash.
fn scheduler(balance: &str) -> &'static str {
    if balance == "source" { "sh" } else { "mh (mh-port)" }
}

fn forward(forward: &str) -> &'static str {
    match forward {
        "dsr" => "Route",
        "tunnel" => "Tunnel",
        _ => "Masq",
    }
}

fn slots(service: &ServiceStatus) -> u32 {
    let slots = service.slots;
    slots.settled + slots.window + slots.harvest + slots.pinned
}

fn totals(counters: &Counters) -> String {
    let Counters { flows, packets_in, packets_out, bytes_in, bytes_out, .. } = *counters;
    [flows, packets_in, packets_out, bytes_in, bytes_out].map(large).concat()
}

fn per_second(rate: Option<super::rates::Rate>) -> String {
    match rate {
        None => [" -"; 5].map(|dash| format!("{dash:>9}")).concat(),
        Some(rate) => {
            let numbers =
                [rate.flows, rate.packets_in, rate.packets_out, rate.bytes_in, rate.bytes_out];
            numbers.map(|number| large(number.round() as u64)).concat()
        }
    }
}

/// ipvsadm's numbers: nine characters, in thousands or more when they have more than eight digits.
fn large(number: u64) -> String {
    match number {
        0..100_000_000 => format!("{number:>9}"),
        100_000_000..100_000_000_000 => format!("{:>8}K", number / 1_000),
        100_000_000_000..100_000_000_000_000 => format!("{:>8}M", number / 1_000_000),
        100_000_000_000_000..100_000_000_000_000_000 => {
            format!("{:>8}G", number / 1_000_000_000)
        }
        _ => format!("{:>8}T", number / 1_000_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::{BackendStats, BackendStatus, PhaseCount};

    fn sample() -> (Stats, Rates, Status) {
        let counters = |n: u64| Counters {
            packets_in: 10 * n,
            bytes_in: 1_000_000_000 * n,
            packets_out: 9 * n,
            bytes_out: 5_000 * n,
            flows: n,
            resets: 0,
        };
        let backend = |name: &str, share, n| BackendStats {
            name: name.into(),
            weight: 100,
            share,
            counters: counters(n),
            ..BackendStats::default()
        };
        let mut service = ServiceStats {
            name: "web".into(),
            listen: "192.0.2.10:80/tcp".into(),
            total: counters(3),
            backends: vec![backend("web1", 1.0, 2), backend("web2", 0.0, 1)],
            ..ServiceStats::default()
        };
        let state = |name: &str, address: &str| BackendStatus {
            name: name.into(),
            address: address.into(),
            ..BackendStatus::default()
        };
        let known = ServiceStatus {
            name: "web".into(),
            forward: "nat".into(),
            balance: "maglev".into(),
            slots: PhaseCount { settled: 1021, ..PhaseCount::default() },
            backends: vec![state("web1", "10.0.0.11:80"), state("web2", "[2001:db8::12]:80")],
            ..ServiceStatus::default()
        };
        service.backends[1].connections = Some(Connections { active: 12, inactive: 3 });
        let stats = Stats { services: vec![service], ..Stats::default() };
        let mut before = stats.clone();
        before.services[0].backends[0].counters = counters(0);
        before.services[0].backends[1].name = "new".into();
        before.services[0].total = counters(1);
        let rates = Rates::between(&before, &stats, 1.0);
        let status = Status { version: "0.1.0".into(), services: vec![known], ..Status::default() };
        (stats, rates, status)
    }

    fn shown(layout: Layout) -> String {
        let (stats, rates, status) = sample();
        render(layout, &stats, &rates, &status)
    }

    #[test]
    fn the_list_is_ipvsadm_s() {
        let expected = "\
IP Virtual Server lb 0.1.0 (size=1021)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  192.0.2.10:80 mh (mh-port)
  -> 10.0.0.11:80                 Masq    100    -          -         
  -> [2001:db8::12]:80            Masq    0      12         3         
";
        let text = shown(Layout::List);
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn totals_and_rates_are_ipvsadm_s() {
        let expected = "\
IP Virtual Server lb 0.1.0 (size=1021)
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  192.0.2.10:80                       3       30       27 3000000K    15000
  -> 10.0.0.11:80                        2       20       18 2000000K    10000
  -> [2001:db8::12]:80                   1       10        9 1000000K     5000
";
        let text = shown(Layout::Stats);
        assert_eq!(text, expected, "\n{text}");
        let expected = "\
IP Virtual Server lb 0.1.0 (size=1021)
Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS
  -> RemoteAddress:Port
TCP  192.0.2.10:80                       2       20       18 2000000K    10000
  -> 10.0.0.11:80                        2       20       18 2000000K    10000
  -> [2001:db8::12]:80                   -        -        -        -        -
";
        let text = shown(Layout::Rate);
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn large_numbers_keep_their_column() {
        for number in [0, 99_999_999, 100_000_000, u64::from(u32::MAX), 1 << 50] {
            assert_eq!(large(number).len(), 9, "{number}");
        }
        assert_eq!(large(123_456_789), "  123456K");
    }
}
