//! `lb capture`

mod pcapng;

use std::{
    fs::File,
    io::{BufWriter, IsTerminal as _, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use serde::Serialize;

use self::pcapng::PcapNg;
use super::{
    Exit,
    client::{Connection, block_on},
    exit::Coded,
    output::{self, clean},
    replay::fate,
    units,
};
use crate::{
    api::client::{CaptureOptions, CaptureStream},
    capture::{
        filter::Filter,
        stream::{Counts, End, Packet, Record},
    },
    explain::packet::line,
};

/// Show packets as they come and as they leave, with what became of them
///
/// tcpdump sees nothing of what XDP forwards; this does. While it runs, a copy of the program that shows packets is on the
/// NICs, put there and taken off without losing a packet; when nobody captures, captures cost nothing. Where packets come
/// faster than `--rate`, or than they are fetched, the capture loses some, never the traffic, and says how many.
///
/// FILTER is like tcpdump's: host ADDRESS, net PREFIX, port NUMBER (each with src or dst before it), tcp, udp, icmp, icmp6, ip,
/// ip6; and lb's own: service NAME, backend SERVICE/NAME, reason NAME, interface NIC, forwarded, returned, answered, passed,
/// dropped; with and, or, not and parentheses. Addresses and ports may be those before or after rewriting.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb capture --count 10 service web and host 192.0.2.7
  lb capture -w trouble.pcapng --for 10s 'service web and (dropped or reason ttl)'
  lb capture -w - tcp port 443 | tshark -r - -T fields -e frame.comment -e ip.dst")]
pub struct Capture {
    /// Which packets
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// Write pcapng to this file, for Wireshark and tshark; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// End after N packets
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time
    #[arg(long = "for", value_name = "TIME", value_parser = units::parse_interval)]
    time: Option<Duration>,
    /// Bytes of each packet
    #[arg(short, long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(64..=2_000))]
    snaplen: u32,
    /// Packets a second, of each CPU, at most
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: u32,
    /// Print JSON: one object a packet, then how it ended
    #[arg(long, conflicts_with = "write")]
    json: bool,
}

/// Where packets go.
enum Sink {
    Lines,
    Json,
    File(PcapNg<Box<dyn Write>>),
}

/// A packet, for programs.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    packet: &'a Packet,
    before: String,
    after: Option<String>,
}

impl Capture {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        let filter = self.filter.join(" ");
        Filter::parse(&filter).map_err(|error| Coded::error(Exit::Usage, error))?;
        let client = connection.client();
        let options = CaptureOptions {
            filter,
            snaplen: self.snaplen,
            rate: self.rate,
            count: self.count,
            time: self.time,
        };
        let end = block_on(async {
            let stream = client.capture(&options).await?;
            let mut sink = self.sink()?;
            let end = follow(stream, &mut sink).await?;
            if let Sink::File(file) = &mut sink {
                file.flush()?;
            }
            Ok(end)
        })?;
        match self.json {
            true => output::print_json_line(&serde_json::json!({ "end": end }))?,
            // Nobody to tell if standard error is closed.
            false => drop(write!(std::io::stderr().lock(), "{}", render_end(&end))),
        }
        match end.why.as_str() {
            "count" | "time" | "interrupted" => Ok(Exit::Ok),
            why => anyhow::bail!("the capture has ended early: {}", clean(why)),
        }
    }

    fn sink(&self) -> anyhow::Result<Sink> {
        let Some(path) = &self.write else {
            return Ok(if self.json { Sink::Json } else { Sink::Lines });
        };
        let out: Box<dyn Write> = if path == Path::new("-") {
            if std::io::stdout().is_terminal() {
                let message = "pcapng on a terminal helps nobody; name a file, or pipe it";
                return Err(Coded::error(Exit::Usage, message));
            }
            Box::new(std::io::stdout())
        } else {
            let file = File::create(path);
            Box::new(file.with_context(|| format!("cannot write {}", path.display()))?)
        };
        let buffered: Box<dyn Write> = Box::new(BufWriter::new(out));
        Ok(Sink::File(PcapNg::new(buffered, self.snaplen)?))
    }
}

/// Shows packets until the capture ends, or somebody wants it to.
async fn follow(mut stream: CaptureStream, sink: &mut Sink) -> anyhow::Result<End> {
    let mut last = Counts::default();
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        let next = tokio::select! {
            next = stream.next() => next?,
            _ = interrupt.recv() => return Ok(End { counts: last, why: "interrupted".to_owned() }),
            _ = terminate.recv() => return Ok(End { counts: last, why: "interrupted".to_owned() }),
        };
        match next {
            None => {
                return Ok(End { counts: last, why: "the daemon has gone".to_owned() });
            }
            Some((Record::End(end), _)) => return Ok(end),
            Some((Record::Counts(counts), _)) => {
                last = Counts { sent: last.sent, ..counts };
                if let Sink::File(file) = sink {
                    file.flush()?;
                }
            }
            Some((Record::Packet(packet), bytes)) => {
                last.sent = packet.number;
                show(&packet, &bytes, sink)?;
            }
        }
    }
}

fn show(packet: &Packet, bytes: &Bytes, sink: &mut Sink) -> anyhow::Result<()> {
    let (before, after) = bytes
        .split_at_checked(packet.captured as usize)
        .filter(|(_, after)| after.len() == packet.captured_after as usize)
        .context("the daemon has sent a packet of another length than it says")?;
    let after = (!after.is_empty()).then_some(after);
    match sink {
        Sink::File(file) => file.write(packet, before, after)?,
        Sink::Json => {
            let (before, after) = (line(before), after.map(line));
            output::print_json_line(&Shown { packet, before, after })?;
        }
        Sink::Lines => output::print(&render(packet, before, after))?,
    }
    Ok(())
}

/// What has become of a packet, in words.
fn fate_of(packet: &Packet) -> String {
    let verdict = &packet.verdict;
    let mut text = fate(
        &verdict.verdict,
        &verdict.reason,
        verdict.service.as_deref(),
        verdict.backend.as_deref(),
    );
    for beside in &verdict.beside {
        text.push_str(&format!(", {}", clean(beside)));
    }
    text
}

fn render(packet: &Packet, before: &[u8], after: Option<&[u8]>) -> String {
    let time = units::local_time(packet.unix_nanoseconds / 1_000_000);
    let from = clean(&packet.interface);
    let mut text = format!("{time}  {from}  {}  {}", clean(&line(before)), fate_of(packet));
    if let Some(after) = after {
        let by = packet.verdict.egress.as_ref().map(|by| format!(" by {}", clean(by)));
        text.push_str(&format!(": {}{}", clean(&line(after)), by.unwrap_or_default()));
    }
    text.push('\n');
    text
}

fn render_end(end: &End) -> String {
    let Counts { over_rate, lost, sent, .. } = end.counts;
    let mut text = format!("{sent} packets captured");
    if over_rate > 0 {
        text.push_str(&format!("; {over_rate} left out because of --rate"));
    }
    if lost > 0 {
        text.push_str(&format!(
            "; {lost} lost because they came faster than they were fetched (a narrower filter or a smaller --snaplen helps)"
        ));
    }
    text.push_str(". No traffic was affected.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::types::PacketVerdict,
        explain::frame::{Flow, Kind, frame},
    };

    #[test]
    fn a_packet_is_a_line_from_before_to_after() {
        let flow = |to: &str| {
            frame(&Flow {
                source: "192.0.2.7:4711".parse().unwrap(),
                destination: to.parse().unwrap(),
                segment: Kind::Syn,
            })
        };
        let packet = Packet {
            interface: "eth0".into(),
            verdict: PacketVerdict {
                verdict: "forwarded".into(),
                reason: "transmitted".into(),
                service: Some("web".into()),
                backend: Some("web1".into()),
                beside: vec!["pin_refused".into()],
                egress: Some("eth1".into()),
                ..PacketVerdict::default()
            },
            ..Packet::default()
        };
        let text = render(&packet, &flow("192.0.2.10:443"), Some(&flow("10.0.0.11:8443")));
        let expected = "  eth0  192.0.2.7:4711 > 192.0.2.10:443 TCP SYN, ttl 64  -> forwarded web/web1, pin_refused: \
                        192.0.2.7:4711 > 10.0.0.11:8443 TCP SYN, ttl 64 by eth1\n";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn what_is_missing_is_said() {
        let counts = Counts { matched: 9, over_rate: 2, lost: 3, filtered: 1, sent: 3 };
        let text = render_end(&End { counts, why: "time".into() });
        assert!(
            text.starts_with("3 packets captured; 2 left out because of --rate; 3 lost"),
            "{text}"
        );
        let text = render_end(&End::default());
        assert_eq!(text, "0 packets captured. No traffic was affected.\n");
    }
}
