//! Which packets a capture wants, in tcpdump's words and lb's own.
//!
//! ```text
//! expression = term { "or" term }      term = factor { "and" factor }
//! factor     = "not" factor | "(" expression ")" | primitive
//! primitive  = [ "src" | "dst" ] ( "host" ADDRESS | "net" PREFIX | "port" NUMBER )
//!            | "tcp" | "udp" | "icmp" | "icmp6" | "ip" | "ip6"       ("tcp port 443" is "tcp and port 443")
//!            | "service" NAME | "backend" SERVICE/NAME | "reason" NAME | "interface" NIC
//!            | "forwarded" | "returned" | "answered" | "passed" | "dropped"
//! ```
//! A primitive about bytes is true if it is of the frame as it came, or of the frame as it left. The kernel looks at the
//! conjuncts that it can ([`Filter::rule`]), the daemon at the whole expression ([`Filter::wants`]).

use std::net::IpAddr;

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use ipnet::IpNet;
use lb_common::{
    abi::{Address, CaptureRule, Reason, rule_flag},
    be::{Be16, Be32},
};

use crate::{
    api::types::{Failure, FailureKind, PacketVerdict},
    explain::verdict::Names,
};

/// Parentheses and negations within one another, at most.
const DEEPEST: usize = 50;

/// A checked expression; empty, it wants everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter(Option<Expression>);

#[derive(Clone, Debug, PartialEq)]
enum Expression {
    Any(Vec<Expression>),
    All(Vec<Expression>),
    Not(Box<Expression>),
    Is(Primitive),
}

#[derive(Clone, Debug, PartialEq)]
enum Primitive {
    Net(Side, IpNet),
    Port(Side, u16),
    Protocol(u8),
    Version(u8),
    Service(String),
    Backend(String, String),
    Reason(Reason),
    Interface(String),
    Verdict(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Either,
    Source,
    Destination,
}

const VERDICTS: [&str; 5] = ["forwarded", "returned", "answered", "passed", "dropped"];
const PROTOCOLS: [(&str, u8); 4] = [("tcp", 6), ("udp", 17), ("icmp", 1), ("icmp6", 58)];
const WORDS: [&str; 24] = [
    "host",
    "net",
    "port",
    "src",
    "dst",
    "tcp",
    "udp",
    "icmp",
    "icmp6",
    "ip",
    "ip6",
    "service",
    "backend",
    "reason",
    "interface",
    "forwarded",
    "returned",
    "answered",
    "passed",
    "dropped",
    "and",
    "or",
    "not",
    "(",
];

/// A packet as a filter sees it.
pub struct Facts<'a> {
    /// NIC it came by.
    pub interface: &'a str,
    /// The frame as it came.
    pub before: &'a [u8],
    /// The frame as it left; empty if it did not.
    pub after: &'a [u8],
    /// What became of it.
    pub verdict: &'a PacketVerdict,
}

impl Filter {
    /// Reads an expression. Errors say what was expected, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let spaced = text.replace('(', " ( ").replace(')', " ) ").replace('!', " ! ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        if words.is_empty() {
            return Ok(Self::default());
        }
        let mut parser = Parser { words: &words, at: 0, depth: 0 };
        let expression = parser.expression()?;
        match parser.peek() {
            None => Ok(Self(Some(expression))),
            Some(")") => Err(parser.error("a `)` without its `(`")),
            Some(_) => Err(parser.error("`and` or `or` is missing")),
        }
    }

    /// What the kernel can tell of it: everything wanted fits the rule, and perhaps more does.
    pub fn rule(&self, names: &Names) -> Result<CaptureRule, Failure> {
        let mut rule = CaptureRule::default();
        if let Some(expression) = &self.0 {
            expression.check(names)?;
            match expression {
                Expression::All(all) => all.iter().for_each(|one| one.add_to(&mut rule, names)),
                one => one.add_to(&mut rule, names),
            }
        }
        Ok(rule)
    }

    /// Whether it wants this packet.
    pub fn wants(&self, facts: &Facts<'_>) -> bool {
        let Some(expression) = &self.0 else { return true };
        let headers = [headers(facts.before), headers(facts.after)];
        expression.is_true(facts, &headers)
    }
}

impl Expression {
    /// An error if it names a service or backend that there is not.
    fn check(&self, names: &Names) -> Result<(), Failure> {
        match self {
            Self::Any(all) | Self::All(all) => all.iter().try_for_each(|one| one.check(names)),
            Self::Not(one) => one.check(names),
            Self::Is(Primitive::Service(name)) if service_id(names, name).is_none() => {
                let known = names.services.values().map(String::as_str);
                Err(Failure::unknown("service", name, known))
            }
            Self::Is(Primitive::Backend(service, name))
                if backend_id(names, service, name).is_none() =>
            {
                let known: Vec<String> = names
                    .backends
                    .values()
                    .map(|(service, name)| format!("{service}/{name}"))
                    .collect();
                let wanted = format!("{service}/{name}");
                Err(Failure::unknown("backend", &wanted, known.iter().map(String::as_str)))
            }
            Self::Is(Primitive::Interface(name))
                if !names.interfaces.values().any(|known| known == name) =>
            {
                let error = format!("there is no NIC `{name}` (interface)");
                Err(Failure::new(FailureKind::NotFound, error))
            }
            Self::Is(_) => Ok(()),
        }
    }

    /// Narrows the rule by this conjunct, if it can say it and does not say such a thing already.
    fn add_to(&self, rule: &mut CaptureRule, names: &Names) {
        let Self::Is(primitive) = self else { return };
        let flag = match primitive {
            Primitive::Net(..) => rule_flag::ADDRESS,
            Primitive::Port(..) => rule_flag::PORT,
            Primitive::Protocol(_) => rule_flag::PROTOCOL,
            Primitive::Service(_) => rule_flag::SERVICE,
            Primitive::Backend(..) => rule_flag::BACKEND,
            Primitive::Reason(_) => rule_flag::REASON,
            Primitive::Verdict("dropped") => rule_flag::DROPPED,
            Primitive::Verdict(_) | Primitive::Version(_) | Primitive::Interface(_) => return,
        };
        if rule.flags & flag != 0 {
            return;
        }
        match primitive {
            Primitive::Net(_, net) => {
                rule.address = Address::from(net.network());
                rule.mask = mask(net);
            }
            Primitive::Port(_, port) => rule.port = Be16::from_host(*port),
            Primitive::Protocol(number) => rule.protocol = u16::from(*number),
            Primitive::Reason(reason) => rule.reason = *reason as u32,
            Primitive::Service(name) => match service_id(names, name) {
                Some(id) => rule.service = id,
                None => return,
            },
            Primitive::Backend(service, name) => match backend_id(names, service, name) {
                Some(id) => rule.backend = id,
                None => return,
            },
            Primitive::Verdict(_) | Primitive::Version(_) | Primitive::Interface(_) => {}
        }
        rule.flags |= flag;
    }

    fn is_true(&self, facts: &Facts<'_>, headers: &[Option<Headers>; 2]) -> bool {
        match self {
            Self::Any(all) => all.iter().any(|one| one.is_true(facts, headers)),
            Self::All(all) => all.iter().all(|one| one.is_true(facts, headers)),
            Self::Not(one) => !one.is_true(facts, headers),
            Self::Is(primitive) => primitive.is_true(facts, headers),
        }
    }
}

impl Primitive {
    fn is_true(&self, facts: &Facts<'_>, headers: &[Option<Headers>; 2]) -> bool {
        let verdict = facts.verdict;
        let any = |test: &dyn Fn(&Headers) -> bool| headers.iter().flatten().any(test);
        match self {
            Self::Net(side, net) => any(&|headers| {
                (*side != Side::Destination && net.contains(&headers.source))
                    || (*side != Side::Source && net.contains(&headers.destination))
            }),
            Self::Port(side, port) => any(&|headers| {
                headers.ports.is_some_and(|(from, to)| {
                    (*side != Side::Destination && from == *port)
                        || (*side != Side::Source && to == *port)
                })
            }),
            Self::Protocol(number) => any(&|headers| headers.protocol == *number),
            Self::Version(version) => any(&|headers| headers.source.is_ipv4() == (*version == 4)),
            Self::Service(name) => verdict.service.as_ref() == Some(name),
            Self::Backend(service, name) => {
                verdict.service.as_ref() == Some(service) && verdict.backend.as_ref() == Some(name)
            }
            Self::Reason(reason) => {
                verdict.reason == reason.name()
                    || verdict.beside.iter().any(|name| name == reason.name())
            }
            Self::Interface(name) => {
                facts.interface == name || verdict.egress.as_ref() == Some(name)
            }
            Self::Verdict(word) => verdict.verdict == *word,
        }
    }
}

/// What primitives ask of a frame.
struct Headers {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ports: Option<(u16, u16)>,
}

fn headers(frame: &[u8]) -> Option<Headers> {
    let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
    let (source, destination, protocol) = match packet.net.as_ref()? {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            let (from, to) = (header.source_addr().into(), header.destination_addr().into());
            (from, to, header.protocol().0)
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            let (from, to) = (header.source_addr().into(), header.destination_addr().into());
            (from, to, ip.payload().ip_number.0)
        }
        LaxNetSlice::Arp(_) => return None,
    };
    let ports = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
        Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
        _ => None,
    };
    Some(Headers { source, destination, protocol, ports })
}

/// The prefix's bits of an address as the program has it; IPv4 is mapped into IPv6.
fn mask(net: &IpNet) -> Address {
    let length = u32::from(net.prefix_len()) + if net.addr().is_ipv4() { 96 } else { 0 };
    let bits = u128::MAX.checked_shl(128 - length).unwrap_or(0);
    let word = |index: u32| Be32::from_host((bits >> (96 - 32 * index)) as u32);
    Address { words: [word(0), word(1), word(2), word(3)] }
}

fn service_id(names: &Names, name: &str) -> Option<u32> {
    names.services.iter().find(|(_, known)| *known == name).map(|(id, _)| *id)
}

fn backend_id(names: &Names, service: &str, name: &str) -> Option<lb_common::abi::BackendId> {
    let is = |known: &(String, String)| known.0 == service && known.1 == name;
    names.backends.iter().find(|(_, known)| is(known)).map(|(id, _)| *id)
}

struct Parser<'a> {
    words: &'a [&'a str],
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn take(&mut self) -> Option<&'a str> {
        let word = self.peek();
        self.at += 1;
        word
    }

    /// What is wrong with the word at hand.
    fn error(&self, what: impl std::fmt::Display) -> String {
        let before = self.words[..self.at.min(self.words.len())].join(" ");
        match self.peek() {
            Some(word) if before.is_empty() => format!("filter: at `{word}`: {what}"),
            Some(word) => format!("filter: at `{word}`, after `{before}`: {what}"),
            None => format!("filter: after `{before}`: {what}"),
        }
    }

    fn expression(&mut self) -> Result<Expression, String> {
        let mut any = vec![self.term()?];
        while matches!(self.peek(), Some("or" | "||")) {
            self.at += 1;
            any.push(self.term()?);
        }
        Ok(single_or(any, Expression::Any))
    }

    fn term(&mut self) -> Result<Expression, String> {
        let mut all = Vec::new();
        self.factor(&mut all)?;
        while matches!(self.peek(), Some("and" | "&&")) {
            self.at += 1;
            self.factor(&mut all)?;
        }
        Ok(single_or(all, Expression::All))
    }

    /// One factor, or two that belong together (`tcp port 443`).
    fn factor(&mut self, into: &mut Vec<Expression>) -> Result<(), String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.error(format!("more than {DEEPEST} parentheses and negations")));
        }
        match self.peek() {
            Some("not" | "!") => {
                self.at += 1;
                let mut negated = Vec::new();
                self.factor(&mut negated)?;
                into.push(Expression::Not(Box::new(single_or(negated, Expression::All))));
            }
            Some("(") => {
                self.at += 1;
                into.push(self.expression()?);
                if self.take() != Some(")") {
                    self.at -= 1;
                    return Err(self.error("a `)` is missing"));
                }
            }
            _ => self.primitive(into)?,
        }
        self.depth -= 1;
        Ok(())
    }

    fn primitive(&mut self, into: &mut Vec<Expression>) -> Result<(), String> {
        let Some(word) = self.peek() else {
            return Err(self.error("something to compare is missing, as in `host 192.0.2.7`"));
        };
        if let Some((_, number)) = PROTOCOLS.iter().find(|(name, _)| *name == word) {
            self.at += 1;
            into.push(Expression::Is(Primitive::Protocol(*number)));
            if matches!(self.peek(), Some("port" | "src" | "dst")) {
                into.push(Expression::Is(self.sided()?));
            }
            return Ok(());
        }
        if let Some(verdict) = VERDICTS.iter().find(|verdict| **verdict == word) {
            self.at += 1;
            into.push(Expression::Is(Primitive::Verdict(verdict)));
            return Ok(());
        }
        let primitive = match word {
            "ip" | "ip6" => {
                self.at += 1;
                Primitive::Version(if word == "ip" { 4 } else { 6 })
            }
            "service" => Primitive::Service(self.argument("a service's name")?.to_owned()),
            "interface" => Primitive::Interface(self.argument("a NIC's name")?.to_owned()),
            "backend" => {
                let name = self.argument("SERVICE/BACKEND")?;
                let Some((service, backend)) = name.split_once('/') else {
                    self.at -= 1;
                    return Err(self.error("a backend is named SERVICE/BACKEND"));
                };
                Primitive::Backend(service.to_owned(), backend.to_owned())
            }
            "reason" => {
                let name = self.argument("a reason's name, as `lb why` has them")?;
                let known = Reason::ALL.iter().find(|reason| reason.name() == name);
                let Some(reason) = known else {
                    self.at -= 1;
                    let names = Reason::ALL.iter().map(|reason| reason.name());
                    return Err(self.error(Failure::unknown("reason", name, names)));
                };
                Primitive::Reason(*reason)
            }
            "src" | "dst" | "host" | "net" | "port" => self.sided()?,
            _ => return Err(self.error(Failure::unknown("word", word, WORDS))),
        };
        into.push(Expression::Is(primitive));
        Ok(())
    }

    fn sided(&mut self) -> Result<Primitive, String> {
        let side = match self.peek() {
            Some("src") => Side::Source,
            Some("dst") => Side::Destination,
            _ => Side::Either,
        };
        if side != Side::Either {
            self.at += 1;
        }
        let word = self.peek();
        let parsed = match word {
            Some("host") => {
                let text = self.argument("an address")?;
                text.parse::<IpAddr>().ok().map(|address| Primitive::Net(side, address.into()))
            }
            Some("net") => {
                let text = self.argument("a prefix")?;
                text.parse::<IpNet>().ok().map(|net| Primitive::Net(side, net))
            }
            Some("port") => {
                let text = self.argument("a port's number")?;
                text.parse::<u16>().ok().map(|port| Primitive::Port(side, port))
            }
            _ => return Err(self.error("`host`, `net` or `port` is missing")),
        };
        parsed.ok_or_else(|| {
            self.at -= 1;
            self.error(match word {
                Some("host") => "this is no address (192.0.2.7, 2001:db8::7)",
                Some("net") => "this is no prefix (192.0.2.0/24, 2001:db8::/32)",
                _ => "this is no port (0..65535)",
            })
        })
    }

    /// The word after the one at hand.
    fn argument(&mut self, what: &str) -> Result<&'a str, String> {
        self.at += 1;
        match self.peek() {
            None | Some("(" | ")") => Err(self.error(format!("{what} is missing"))),
            Some(word) => {
                self.at += 1;
                Ok(word)
            }
        }
    }
}

fn single_or(mut all: Vec<Expression>, join: fn(Vec<Expression>) -> Expression) -> Expression {
    if all.len() == 1 { all.remove(0) } else { join(all) }
}

#[cfg(test)]
mod tests;
