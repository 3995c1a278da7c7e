//! `lb replay`

use std::{
    collections::BTreeMap,
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::{
    Exit,
    client::{Connection, block_on},
    output::{self, clean},
    units,
};
use crate::{
    api::{client::Client, types::PacketVerdict},
    dataplane::LARGEST_FRAME,
    explain::{
        capture_file::{Packet, Packets},
        packet::line,
    },
};

/// Bytes of frames that are asked about at a time: below what the daemon takes.
const BATCH_BYTES: usize = 900 << 10;
/// Frames asked about at a time.
const BATCH: usize = 4_096;

/// Tell what the loaded program would do with the packets of a capture file
///
/// Reads pcap or pcapng (Ethernet, raw IP, Linux cooked) and has the program decide about each packet in a dry run: nothing is
/// sent, and pins and counters are the same before and after. Each packet meets rings, pins, routes and neighbours as they
/// are now; one packet of the file does not pin the flow of the next. Only fragments find the first of their packet.
///
/// Destination MAC addresses do not matter, unless they are a group's. Packets that were cut off by a snap length are padded
/// with zeros. Packets longer than 3,520 bytes (made by GRO or TSO) are skipped.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb replay trouble.pcapng
  lb replay trouble.pcapng --down web/web1 --summary
  tcpdump -i eth0 -c 1000 -w - | lb replay - --json")]
pub struct Replay {
    /// The file; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What if this backend were DOWN? May be given several times
    #[arg(long, value_name = "SERVICE/BACKEND")]
    down: Vec<String>,
    /// The NIC the packets are taken to come in by [default: lb's first]
    #[arg(long, value_name = "NIC")]
    interface: Option<String>,
    /// Only the first N packets
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Only the sums at the end
    #[arg(long)]
    summary: bool,
    /// Print JSON: one object a packet, then the sums
    #[arg(long)]
    json: bool,
}

/// A packet with its verdict.
#[derive(Serialize)]
struct Shown<'a> {
    number: u64,
    unix_nanoseconds: u128,
    length: usize,
    padded: usize,
    packet: String,
    #[serde(flatten)]
    verdict: &'a PacketVerdict,
}

/// What has become of all.
#[derive(Debug, Default, Serialize)]
struct Summary {
    packets: u64,
    padded: u64,
    outcomes: Vec<Outcome>,
    /// Why the rest of the file was not read.
    error: Option<String>,
}

/// Packets with the same fate.
#[derive(Debug, Serialize)]
struct Outcome {
    packets: u64,
    verdict: String,
    reason: String,
    service: Option<String>,
    backend: Option<String>,
}

type Fate = (String, String, Option<String>, Option<String>);

impl Replay {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        let client = connection.client();
        let reader: Box<dyn std::io::Read> = match self.file == Path::new("-") {
            true => Box::new(std::io::stdin()),
            false => {
                let name = || format!("cannot open {}", self.file.display());
                Box::new(BufReader::with_capacity(
                    1 << 20,
                    File::open(&self.file).with_context(name)?,
                ))
            }
        };
        let packets = Packets::new(reader).with_context(|| self.file.display().to_string())?;
        let limit = self.limit.map_or(usize::MAX, |limit| limit as usize);
        let summary = block_on(self.run(&client, packets.take(limit)))?;
        if self.json {
            output::print_json_line(&serde_json::json!({ "summary": &summary }))?;
        } else {
            output::print(&render(&summary))?;
        }
        match &summary.error {
            None => Ok(Exit::Ok),
            Some(error) => anyhow::bail!("{}: {error}", self.file.display()),
        }
    }

    async fn run(
        &self,
        client: &Client,
        packets: impl Iterator<Item = Result<Packet, crate::explain::capture_file::FileError>>,
    ) -> anyhow::Result<Summary> {
        let mut summary = Summary::default();
        let mut fates = BTreeMap::<Fate, u64>::new();
        let mut batch = Vec::new();
        let mut bytes = 0;
        for packet in packets {
            let packet = match packet {
                Ok(packet) => packet,
                Err(error) => {
                    summary.error = Some(error.to_string());
                    break;
                }
            };
            let size = packet.frame.len().min(LARGEST_FRAME + 1) + 4;
            if batch.len() == BATCH || bytes + size > BATCH_BYTES {
                self.ask(client, std::mem::take(&mut batch), &mut summary, &mut fates).await?;
                bytes = 0;
            }
            bytes += size;
            batch.push(packet);
        }
        self.ask(client, batch, &mut summary, &mut fates).await?;
        let outcome = |((verdict, reason, service, backend), packets)| Outcome {
            packets,
            verdict,
            reason,
            service,
            backend,
        };
        summary.outcomes = fates.into_iter().map(outcome).collect();
        summary.outcomes.sort_by_key(|outcome| std::cmp::Reverse(outcome.packets));
        Ok(summary)
    }

    async fn ask(
        &self,
        client: &Client,
        batch: Vec<Packet>,
        summary: &mut Summary,
        fates: &mut BTreeMap<Fate, u64>,
    ) -> anyhow::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        // What is too long to be tried is not sent whole.
        let start =
            |packet: &Packet| packet.frame[..packet.frame.len().min(LARGEST_FRAME + 1)].to_vec();
        let frames: Vec<Vec<u8>> = batch.iter().map(start).collect();
        let verdicts = client.replay(&frames, self.interface.as_deref(), &self.down).await?;
        anyhow::ensure!(
            verdicts.len() == batch.len(),
            "lb has answered about {} of {} packets",
            verdicts.len(),
            batch.len()
        );
        let mut text = String::new();
        for (packet, verdict) in batch.iter().zip(&verdicts) {
            summary.packets += 1;
            summary.padded += u64::from(packet.padded > 0);
            if !self.summary {
                let shown = Shown {
                    number: summary.packets,
                    unix_nanoseconds: packet.time.as_nanos(),
                    length: packet.frame.len(),
                    padded: packet.padded,
                    packet: line(&packet.frame),
                    verdict,
                };
                match self.json {
                    true => text.push_str(&output::json_line(&shown)?),
                    false => text.push_str(&render_packet(&shown, packet.time)),
                }
            }
            let fate = (
                verdict.verdict.clone(),
                verdict.reason.clone(),
                verdict.service.clone(),
                verdict.backend.clone(),
            );
            *fates.entry(fate).or_default() += 1;
        }
        Ok(output::print(&text)?)
    }
}

fn render_packet(shown: &Shown<'_>, time: std::time::Duration) -> String {
    let padded = match shown.padded {
        0 => String::new(),
        bytes => format!(" (cut off: {bytes} of {} bytes are made up)", shown.length),
    };
    format!(
        "{:>6}  {}  {}{padded}  {}\n",
        shown.number,
        units::local_time(time.as_millis() as u64),
        clean(&shown.packet),
        fate(
            &shown.verdict.verdict,
            &shown.verdict.reason,
            shown.verdict.service.as_deref(),
            shown.verdict.backend.as_deref()
        )
    )
}

/// `forwarded web/web1`, `dropped ttl (web)`
pub(super) fn fate(
    verdict: &str,
    reason: &str,
    service: Option<&str>,
    backend: Option<&str>,
) -> String {
    let mut text = format!("-> {}", clean(verdict));
    if reason != "transmitted" && reason != verdict {
        text.push_str(&format!(" {}", clean(reason)));
    }
    match (service, backend) {
        (Some(service), Some(backend)) => {
            text.push_str(&format!(" {}/{}", clean(service), clean(backend)));
        }
        (Some(name), None) | (None, Some(name)) => text.push_str(&format!(" ({})", clean(name))),
        (None, None) => {}
    }
    text
}

fn render(summary: &Summary) -> String {
    let mut text = format!("{} packets", summary.packets);
    if summary.padded > 0 {
        text.push_str(&format!(", {} of them cut off and padded with zeros", summary.padded));
    }
    text.push('\n');
    for outcome in &summary.outcomes {
        let fate = fate(
            &outcome.verdict,
            &outcome.reason,
            outcome.service.as_deref(),
            outcome.backend.as_deref(),
        );
        text.push_str(&format!("{:>9}  {fate}\n", outcome.packets));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_are_said_in_one_breath() {
        assert_eq!(
            fate("forwarded", "transmitted", Some("web"), Some("w1")),
            "-> forwarded web/w1"
        );
        assert_eq!(fate("dropped", "ttl", Some("web"), None), "-> dropped ttl (web)");
        assert_eq!(fate("passed", "passed", None, None), "-> passed");
        assert_eq!(fate("dropped", "ttl\x1b", None, Some("#7")), "-> dropped ttl\\u{1b} (#7)");
    }

    #[test]
    fn the_sums_tell_what_was_made_up() {
        let outcome = Outcome {
            packets: 3,
            verdict: "dropped".into(),
            reason: "ttl".into(),
            service: Some("web".into()),
            backend: None,
        };
        let summary = Summary { packets: 4, padded: 1, outcomes: vec![outcome], error: None };
        let expected = "\
4 packets, 1 of them cut off and padded with zeros
        3  -> dropped ttl (web)
";
        assert_eq!(render(&summary), expected);
    }
}
