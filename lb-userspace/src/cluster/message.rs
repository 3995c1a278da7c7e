//! What nodes say to each other. Numbers of services and backends are each node's own: on the wire they go by their addresses.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Version of everything here; nodes of different versions do not talk.
pub const VERSION: u16 = 2;
/// Longest message, bytes.
pub const LONGEST: usize = 1 << 20;
/// Most entries of slots, pins or clients in a message.
pub const MOST: usize = 512;
/// Most backends in a view: those behind them go by each node's own checks.
pub const MOST_BACKENDS: usize = 16_384;
/// [`SlotEntry::base`] of a slot without one.
pub const NO_BASE: u16 = u16::MAX;
/// [`SlotEntry::base`] of a slot that asks the ring before the last change of length.
pub const OLD_RING: u16 = u16::MAX - 1;

/// One message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// The first one, in both directions. Stays the first of this list, with its first field, for ever.
    Hello(Hello),
    /// A sign of life.
    Beat(u64),
    /// The answer to it, and to all before it.
    Heard(u64),
    /// One service as the sender sees it.
    View(View),
    /// What was set by hand.
    Override(Override),
    /// Slots of one service that are not settled.
    Slots(Slots),
    /// Remembered flows of one service.
    Flows(Flows),
    /// Remembered clients of one service.
    Clients(Clients),
    /// Everything that the sender knows has been sent.
    Whole,
}

impl Message {
    /// How much it counts for in queues and numbers.
    pub fn entries(&self) -> usize {
        match self {
            Self::View(view) => view.backends.len().max(1),
            Self::Slots(slots) => slots.entries.len().max(1),
            Self::Flows(flows) => flows.entries.len().max(1),
            Self::Clients(clients) => clients.entries.len().max(1),
            _ => 1,
        }
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        // Fails for types without a length alone, which none of these is.
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// From bytes, all of them.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (message, rest) = postcard::take_from_bytes(bytes).ok()?;
        rest.is_empty().then_some(message)
    }
}

/// Whether a node can be called so: its name stands in metrics and on terminals as it is.
pub fn is_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=64).contains(&text.len()) && text.chars().all(good)
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`]
    pub version: u16,
    /// Its name.
    pub node: String,
    /// Random for each start of a daemon: who finds its own has dialled itself.
    pub instance: u64,
    /// Fingerprint of its seed.
    pub seed: String,
    /// Version of lb, for people.
    pub release: String,
}

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceKey {
    /// The first VIP, or the network address of the first prefix.
    pub address: IpAddr,
    /// Length of the prefix, bits.
    pub prefix: u8,
    /// Its port, the first of several; 0 = any.
    pub port: u16,
    /// The last port.
    pub last_port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

/// One service as a node sees it: its ring, and everything that the ring is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Which one.
    pub service: ServiceKey,
    /// What the ring looks like; `None` while the first checks have not all been answered.
    pub ring: Option<u32>,
    /// Its length.
    pub slots: u32,
    /// Backends, those on their way out excluded.
    pub backends: Vec<BackendView>,
}

/// One backend as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendView {
    /// Address and port.
    pub address: SocketAddr,
    /// Weight in the file.
    pub configured: u16,
    /// Weight in force.
    pub weight: u16,
    /// Percent of it that counts, for what its agent says and how far its slow start has come.
    pub percent: u16,
    /// 0 ready, 1 drain, 2 maint.
    pub admin: u8,
    /// What the node's own checks say; `None` = nothing yet, or there are none.
    pub up: Option<bool>,
}

/// A value that was set by hand; of two, the one with the greater clock counts, and of equal ones that of the greater name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// What was set.
    pub target: Target,
    /// To what; `None` = what the file says.
    pub value: Option<String>,
    /// Greater than that of everything the node had heard of when it was set (Lamport's clock).
    pub clock: u64,
    /// Where it was set.
    pub node: String,
}

/// What can be set by hand.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Target {
    /// `ready`, `drain`, `maint` of a backend of a service.
    Admin(ServiceKey, SocketAddr),
    /// Its weight.
    Weight(ServiceKey, SocketAddr),
    /// `lb set`: target and key.
    Setting(String, String),
}

/// Slots of one service that are not settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// Which one.
    pub service: ServiceKey,
    /// Length of the ring.
    pub length: u32,
    /// Backends that `entries` name by their place here.
    pub backends: Vec<SocketAddr>,
    /// The slots.
    pub entries: Vec<SlotEntry>,
}

/// One slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotEntry {
    /// Its number.
    pub number: u32,
    /// Place of its base, [`NO_BASE`] or [`OLD_RING`].
    pub base: u16,
    /// 1 WINDOW, 2 HARVEST, 3 PINNED.
    pub phase: u8,
    /// Seconds since the phase began.
    pub age: u16,
}

/// Remembered flows of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// Which one.
    pub service: ServiceKey,
    /// Flows of a service that tracks all of them; else pins.
    pub tracked: bool,
    /// Backends that `entries` name by their place here.
    pub backends: Vec<SocketAddr>,
    /// The flows.
    pub entries: Vec<FlowEntry>,
}

/// One flow; its other end is the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowEntry {
    /// The client.
    pub client: SocketAddr,
    /// Place of its backend.
    pub backend: u16,
    /// Milliseconds since its last packet.
    pub silent: u32,
    /// Milliseconds since it began.
    pub age: u32,
    /// The sequence number behind a FIN or RST, if one was the last thing seen.
    pub closing: Option<u32>,
}

/// Remembered clients of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clients {
    /// Which one.
    pub service: ServiceKey,
    /// Backends that `entries` name by their place here.
    pub backends: Vec<SocketAddr>,
    /// Address, place of the backend, milliseconds since the last packet.
    pub entries: Vec<(IpAddr, u16, u32)>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Vec<Message> {
        let service = ServiceKey {
            address: "192.0.2.1".parse().unwrap(),
            prefix: 32,
            port: 80,
            last_port: 80,
            protocol: 6,
        };
        let backend: SocketAddr = "[2001:db8::1]:8080".parse().unwrap();
        let flow = FlowEntry {
            client: "198.51.100.7:4711".parse().unwrap(),
            backend: 0,
            silent: 1_500,
            age: 90_000,
            closing: Some(7),
        };
        let view = BackendView {
            address: backend,
            configured: 100,
            weight: 50,
            percent: 100,
            admin: 1,
            up: Some(true),
        };
        vec![
            Message::Hello(Hello { version: VERSION, node: "a".into(), ..Hello::default() }),
            Message::Beat(9),
            Message::View(View { service, ring: Some(3), slots: 1021, backends: vec![view] }),
            Message::Override(Override {
                target: Target::Admin(service, backend),
                value: Some("drain".into()),
                clock: 4,
                node: "a".into(),
            }),
            Message::Slots(Slots {
                service,
                length: 1021,
                backends: vec![backend],
                entries: vec![SlotEntry { number: 7, base: 0, phase: 1, age: 20 }],
            }),
            Message::Flows(Flows {
                service,
                tracked: false,
                backends: vec![backend],
                entries: vec![flow],
            }),
            Message::Whole,
        ]
    }

    #[test]
    fn what_is_written_is_read_and_nothing_behind_it() {
        for message in sample() {
            let mut bytes = message.encode();
            assert_eq!(Message::decode(&bytes), Some(message));
            bytes.push(0);
            assert_eq!(Message::decode(&bytes), None);
        }
    }

    #[test]
    fn names_have_nothing_that_would_have_to_be_escaped() {
        assert!(is_name("lb-a.example_1"));
        for name in ["", "a b", "a\"b", "ä", "a\n", &"x".repeat(65)] {
            assert!(!is_name(name), "{name:?}");
        }
    }

    /// The version of another node has to be understood before anything else is.
    #[test]
    fn a_greeting_begins_with_its_version() {
        let hello = Hello { version: VERSION, ..Hello::default() };
        assert_eq!(Message::Hello(hello).encode()[..2], [0, VERSION as u8]);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(message) = Message::decode(&bytes) {
                prop_assert!(message.entries() <= bytes.len().max(1));
            }
        }

        #[test]
        fn damaged_messages_are_read_or_refused(which in 0usize..7, at in 0usize..400, byte: u8) {
            let mut bytes = sample()[which].encode();
            let place = at % bytes.len();
            bytes[place] = byte;
            Message::decode(&bytes);
            Message::decode(&bytes[..place]);
        }
    }
}
