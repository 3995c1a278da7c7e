//! `lb decap`

use std::{net::IpAddr, path::PathBuf};

use anyhow::Context as _;
use clap::{ArgGroup, Args, ValueEnum};
use ipnet::IpNet;
use serde::Serialize;

use super::{
    Exit,
    exit::Coded,
    output::{self, Style, number_cell, table_text},
    paths::PIN_DIR,
};
use crate::{
    config::model::XdpMode,
    dataplane::decap::{
        DecapRules, DecapStatus, decap_attach, decap_detach, decap_interfaces, decap_status,
    },
};

/// On a backend: take tunnelled packets out of their outer header
///
/// For backends of `forward: tunnel` services that have no tunnel device of their own. Attaches a small XDP program to
/// the NIC, which unpacks IP-in-IP and GUE packets to --local and hands what is inside to the host; the VIP has to be on `lo`.
/// It stays attached when the command ends. Name the load balancers with --from, or anybody can send packets past your
/// filters.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("action").args(["detach", "status"])))]
#[command(after_long_help = "\
Examples:
  lb decap --iface eth0 --local 10.0.0.11 --from 10.0.0.1
  lb decap --status")]
pub struct Decap {
    /// The NIC; may be repeated [--detach and --status: default all]
    #[arg(short, long = "iface", value_name = "NIC")]
    interfaces: Vec<String>,
    /// Outer destination addresses that are this backend's [default: all addresses of the NIC]
    #[arg(long, value_name = "ADDRESS", num_args = 1.., conflicts_with = "action")]
    local: Vec<IpAddr>,
    /// Outer source addresses that may send: the load balancers [default: all]
    #[arg(long, value_name = "PREFIX", num_args = 1.., value_parser = parse_prefix, conflicts_with = "action")]
    from: Vec<IpNet>,
    /// UDP port of GUE (`encap: gue`); 0 = IP in IP only
    #[arg(long, value_name = "PORT", default_value_t = lb_common::gue::PORT, conflicts_with = "action")]
    gue_port: u16,
    /// How to attach
    #[arg(long, value_enum, default_value_t = Mode::Auto, conflicts_with = "action")]
    mode: Mode,
    /// Take the program off
    #[arg(long)]
    detach: bool,
    /// Print counters
    #[arg(long)]
    status: bool,
    /// Where programs are pinned (on a bpffs)
    #[arg(long, value_name = "DIR", default_value = PIN_DIR)]
    pin_dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// In the driver, or fail
    Native,
    /// In the network stack
    Generic,
    /// In the driver if it can
    Auto,
}

#[derive(Serialize)]
struct Change {
    interface: String,
    /// `native`, `generic` or `detached`.
    mode: String,
}

#[derive(Serialize)]
struct Row {
    interface: String,
    #[serde(flatten)]
    counters: DecapStatus,
}

impl Decap {
    /// Does it.
    pub fn execute(self) -> anyhow::Result<Exit> {
        if self.status {
            return self.show();
        }
        let changes = if self.detach { self.detach()? } else { self.attach()? };
        if self.json {
            output::print_json(&changes)?;
        } else {
            let line = |change: &Change| match change.mode.as_str() {
                "detached" => format!("{}: detached", change.interface),
                mode => format!("{}: attached ({mode})", change.interface),
            };
            output::print(&output::lines(changes.iter().map(line)))?;
        }
        Ok(Exit::Ok)
    }

    fn attach(&self) -> anyhow::Result<Vec<Change>> {
        if self.interfaces.is_empty() {
            return Err(Coded::error(Exit::Usage, "name the NIC: lb decap --iface NIC"));
        }
        let mode = match self.mode {
            Mode::Native => XdpMode::Native,
            Mode::Generic => XdpMode::Generic,
            Mode::Auto => XdpMode::Auto,
        };
        let attach = |name: &String| {
            let ifindex = nix::net::if_::if_nametoindex(name.as_str())
                .map_err(|_| Coded::error(Exit::Failure, format!("there is no NIC {name}")))?;
            let local = match self.local.is_empty() {
                true => addresses_of(name)?,
                false => self.local.clone(),
            };
            let rules = DecapRules { local, from: self.from.clone(), gue_port: self.gue_port };
            let attached = decap_attach(&self.pin_dir, ifindex, name, &rules, mode)
                .with_context(|| format!("cannot attach to {name}"))?;
            Ok(Change { interface: name.clone(), mode: attached.to_string() })
        };
        self.interfaces.iter().map(attach).collect()
    }

    fn detach(&self) -> anyhow::Result<Vec<Change>> {
        let detach = |name: String| {
            decap_detach(&self.pin_dir, &name)
                .with_context(|| format!("cannot detach from {name}"))?;
            Ok(Change { interface: name, mode: "detached".to_owned() })
        };
        self.named_or_all()?.into_iter().map(detach).collect()
    }

    fn show(&self) -> anyhow::Result<Exit> {
        let row = |interface: String| {
            let counters = decap_status(&self.pin_dir, &interface)?;
            Ok(Row { interface, counters })
        };
        let rows: Vec<Row> =
            self.named_or_all()?.into_iter().map(row).collect::<anyhow::Result<_>>()?;
        if self.json {
            output::print_json(&rows)?;
        } else {
            output::print(&render(&rows))?;
        }
        Ok(Exit::Ok)
    }

    fn named_or_all(&self) -> anyhow::Result<Vec<String>> {
        if !self.interfaces.is_empty() {
            return Ok(self.interfaces.clone());
        }
        decap_interfaces(&self.pin_dir)
            .with_context(|| format!("cannot read {}", self.pin_dir.display()))
    }
}

/// All addresses of a NIC.
fn addresses_of(interface: &str) -> anyhow::Result<Vec<IpAddr>> {
    let addresses: Vec<IpAddr> = nix::ifaddrs::getifaddrs()
        .context("cannot list this host's addresses")?
        .filter(|entry| entry.interface_name == interface)
        .filter_map(|entry| {
            let address = entry.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .collect();
    if addresses.is_empty() {
        let message = format!("{interface} has no address; name the outer destinations by --local");
        return Err(Coded::error(Exit::Failure, message));
    }
    Ok(addresses)
}

fn parse_prefix(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| address()).map_err(|_| "expected an address or a prefix".to_owned())
}

fn render(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no decapsulator of lb is attached\n".to_owned();
    }
    let mut table = Style::of_stdout().table(&["NIC", "DECAPSULATED", "REFUSED", "BROKEN"]);
    for Row { interface, counters } in rows {
        table.add_row([
            output::clean(interface).into(),
            number_cell(counters.decapsulated),
            number_cell(counters.refused),
            number_cell(counters.broken),
        ]);
    }
    table_text(&table, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_may_be_single_addresses() {
        assert_eq!(parse_prefix("192.0.2.1"), Ok("192.0.2.1/32".parse().unwrap()));
        assert_eq!(parse_prefix("2001:db8::/32"), Ok("2001:db8::/32".parse().unwrap()));
        assert!(parse_prefix("192.0.2.1/33").is_err());
        assert!(parse_prefix("lb1").is_err());
    }

    #[test]
    fn loopback_has_its_addresses_and_a_missing_nic_none() {
        assert!(addresses_of("lo").unwrap().contains(&"127.0.0.1".parse().unwrap()));
        assert!(addresses_of("no-such-nic").is_err());
    }

    #[test]
    fn counters_are_shown_by_nic() {
        let counters = DecapStatus { decapsulated: 1234, refused: 5, broken: 0 };
        let text = render(&[Row { interface: "eth0".into(), counters }]);
        assert!(text.contains("eth0") && text.contains("1234"), "{text}");
        assert_eq!(render(&[]), "no decapsulator of lb is attached\n");
    }
}
