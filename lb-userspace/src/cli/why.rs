//! `lb why`

use clap::Args;

use super::{
    Exit,
    client::{Connection, block_on},
    output::{self, clean},
    units,
};
use crate::api::types::{self, WhyReason};

/// Tell why packets were dropped or answered, with examples
///
/// For each reason that has been counted: how often, what it means, what can be done about it, and the last packets of
/// its kind. SERVICE is a service's name, a VIP or VIP:PORT; without it, all services are told about. What belongs to no
/// service (packets to a VIP's other ports, for one) comes last.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb why 192.0.2.10:443")]
pub struct Why {
    /// Only this service
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Why {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        let client = connection.client();
        let why = block_on(async { Ok(client.why(self.service.as_deref()).await?) })?;
        if self.json {
            output::print_json(&why)?;
        } else {
            output::print(&render(&why))?;
        }
        Ok(Exit::Ok)
    }
}

fn render(why: &types::Why) -> String {
    let mut text = String::new();
    for service in &why.services {
        text.push_str(&format!("{}  {}\n", clean(&service.name), clean(&service.listen)));
        text.push_str(&reasons(&service.reasons));
        for backend in &service.backends {
            text.push_str(&format!("  {}\n", clean(backend)));
        }
        text.push('\n');
    }
    text.push_str("no service\n");
    text.push_str(&reasons(&why.node));
    text
}

fn reasons(reasons: &[WhyReason]) -> String {
    if reasons.is_empty() {
        return "  nothing dropped, nothing answered\n".to_owned();
    }
    reasons.iter().map(reason).collect()
}

fn reason(reason: &WhyReason) -> String {
    let kind = if reason.drop { "dropped" } else { "not dropped" };
    let mut text = format!("  {} {}, {kind}\n", reason.count, clean(&reason.name));
    text.push_str(&format!("    {}\n", clean(&reason.text)));
    if !reason.remedy.is_empty() {
        text.push_str(&format!("    {}\n", clean(&reason.remedy)));
    }
    for sample in &reason.samples {
        text.push_str(&format!(
            "      {} ago on {}, {} bytes: {}\n",
            units::age(sample.seconds_ago as u64),
            clean(&sample.interface),
            sample.length,
            clean(&sample.packet)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::{WhySample, WhyService};

    #[test]
    fn a_reason_comes_with_meaning_remedy_and_examples() {
        let reason = WhyReason {
            name: "not_allowed".into(),
            count: 12,
            drop: true,
            text: "The client is not allowed.".into(),
            remedy: "Allow it.".into(),
            samples: vec![WhySample {
                seconds_ago: 3.4,
                interface: "eth0".into(),
                length: 74,
                packet: "192.0.2.7:1 > 192.0.2.10:80 TCP SYN, ttl 63".into(),
            }],
        };
        let service = WhyService {
            name: "web".into(),
            listen: "192.0.2.10:80/tcp".into(),
            reasons: vec![reason],
            backends: vec!["web1 EJECTED 9s: 10 SYNs unanswered\u{7}".into()],
        };
        let expected = "\
web  192.0.2.10:80/tcp
  12 not_allowed, dropped
    The client is not allowed.
    Allow it.
      3s ago on eth0, 74 bytes: 192.0.2.7:1 > 192.0.2.10:80 TCP SYN, ttl 63
  web1 EJECTED 9s: 10 SYNs unanswered\\u{7}

no service
  nothing dropped, nothing answered
";
        assert_eq!(render(&types::Why { services: vec![service], node: vec![] }), expected);
    }
}
