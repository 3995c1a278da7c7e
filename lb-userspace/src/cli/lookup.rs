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
/// Has the loaded program decide about the flow's next packet, and about one that opens a new flow of the same addresses, in a
/// dry run: verdict and backend are its own; slot, phase, base and pin tell why. Nothing is sent, nothing is changed. IPv6:
/// [2001:db8::1]:80.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb lookup 198.51.100.7:4711 192.0.2.10:443
  lb lookup [2001:db8::7]:5353 [2001:db8::53]:53 udp
  lb lookup 198.51.100.7:4711 192.0.2.10:443 --down web/web1")]
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
    /// What if this backend were DOWN? May be given several times
    #[arg(long, value_name = "SERVICE/BACKEND")]
    down: Vec<String>,
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
        let (source, destination, down) = (self.source, self.destination, self.down);
        let lookup =
            block_on(async { Ok(client.lookup(source, destination, protocol, &down).await?) })?;
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
        let why = output::clean(&lookup.why);
        return format!("no service\nwhy:       {why}\n{}", verdict(lookup));
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
    text.push_str(&verdict(lookup));
    text
}

/// What the program says.
fn verdict(lookup: &types::Lookup) -> String {
    let said = |verdict: &str, reason: &str| match reason {
        "transmitted" => output::clean(verdict),
        reason => format!("{} ({})", output::clean(verdict), output::clean(reason)),
    };
    let mut text = format!("verdict:   {}", said(&lookup.verdict, &lookup.reason));
    if (&lookup.verdict_for_new_flow, &lookup.reason_for_new_flow)
        != (&lookup.verdict, &lookup.reason)
    {
        let new = said(&lookup.verdict_for_new_flow, &lookup.reason_for_new_flow);
        text.push_str(&format!("; of a new flow: {new}"));
    }
    text.push('\n');
    if let Some(disagreement) = &lookup.disagreement {
        text.push_str(&format!("BUG:       {}\n", output::clean(disagreement)));
    }
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
            verdict: "forwarded".into(),
            reason: "transmitted".into(),
            verdict_for_new_flow: "dropped".into(),
            reason_for_new_flow: "no_backend".into(),
            disagreement: None,
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
verdict:   forwarded; of a new flow: dropped (no_backend)
";
        assert_eq!(render(&lookup), expected);
        let none = types::Lookup {
            why: "no VIP".into(),
            verdict: "passed".into(),
            reason: "passed".into(),
            verdict_for_new_flow: "passed".into(),
            reason_for_new_flow: "passed".into(),
            disagreement: Some("differs\x1b".into()),
            ..types::Lookup::default()
        };
        let expected = "\
no service
why:       no VIP
verdict:   passed (passed)
BUG:       differs\\u{1b}
";
        assert_eq!(render(&none), expected);
    }
}
