//! `lb lookup`

use std::net::SocketAddr;

use clap::{Args, ValueEnum};

use super::{
    Exit,
    client::{Connection, block_on},
    output,
};
use crate::{api::types, config::model::Protocol};

/// Tell which backend a flow reaches, and why
///
/// Asks the ring and the pins as the packet path does: slot, phase, base and pin of the flow, and the backend that its
/// next packet and a new flow of the same addresses would reach. Nothing is sent, nothing is changed. IPv6:
/// [2001:db8::1]:80.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb lookup 198.51.100.7:4711 192.0.2.10:443
  lb lookup [2001:db8::7]:5353 [2001:db8::53]:53 udp")]
pub struct Lookup {
    /// The client's address and port
    #[arg(value_name = "SRC:PORT")]
    source: SocketAddr,
    /// The service's address and port
    #[arg(value_name = "VIP:PORT")]
    destination: SocketAddr,
    /// The protocol
    #[arg(value_enum, default_value_t = Transport::Tcp)]
    protocol: Transport,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Transport {
    Tcp,
    Udp,
}

impl Lookup {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        let protocol = match self.protocol {
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
        };
        let client = connection.client();
        let lookup =
            block_on(async { Ok(client.lookup(self.source, self.destination, protocol).await?) })?;
        if self.json {
            output::print_json(&lookup)?;
        } else {
            output::print(&render(&lookup))?;
        }
        Ok(Exit::Ok)
    }
}

fn render(lookup: &types::Lookup) -> String {
    let Some(service) = &lookup.service else {
        return format!("no service\nwhy:       {}\n", output::clean(&lookup.why));
    };
    let or_none = |name: &Option<String>| output::clean(name.as_deref().unwrap_or("none"));
    let mut text = format!(
        "service:   {}\nbackend:   {}\nnew flow:  {}\nslot:      {} of {}\nphase:     {}\n",
        output::clean(service),
        or_none(&lookup.backend),
        or_none(&lookup.backend_for_new_flow),
        lookup.slot,
        lookup.slots,
        output::clean(&lookup.phase),
    );
    if let Some(base) = &lookup.base {
        text.push_str(&format!("base:      {}\n", output::clean(base)));
    }
    text.push_str(&format!(
        "pin:       {}\nwhy:       {}\n",
        output::clean(&lookup.pin),
        output::clean(&lookup.why)
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_decides_is_shown() {
        let lookup = types::Lookup {
            service: Some("web".into()),
            backend: Some("web1".into()),
            backend_for_new_flow: Some("web2".into()),
            slot: 17,
            slots: 1021,
            phase: "WINDOW".into(),
            base: Some("web1".into()),
            pin: "none".into(),
            why: "no pin: older flows live at the base".into(),
        };
        let expected = "\
service:   web
backend:   web1
new flow:  web2
slot:      17 of 1021
phase:     WINDOW
base:      web1
pin:       none
why:       no pin: older flows live at the base
";
        assert_eq!(render(&lookup), expected);
        let none = types::Lookup { why: "no VIP".into(), ..types::Lookup::default() };
        assert_eq!(render(&none), "no service\nwhy:       no VIP\n");
    }
}
