//! Packets for the comparison of the packet path with the model: whole ones of every kind that lb knows ([`kinds`]), and
//! damage done to them ([`damage`]). Everything follows from a seed.

mod build;
mod damage;
mod dress;
mod flows;
mod kinds;
mod options;
mod pool;
mod quic;
mod random;
mod shrink;
mod stages;

pub use build::Draft;
pub use damage::inflict as damage;
pub use flows::Prepared;
pub use pool::Translated;
pub use random::Random;
pub use shrink::shrink;

use crate::{Config, openings::Cookies};

/// The longest frame: what BPF_PROG_TEST_RUN gives a program in one piece.
pub const LONGEST: usize = 3_400;

/// An endless row of packets for a world.
#[derive(Debug)]
pub struct Generator<'a> {
    config: &'a Config,
    people: People,
    random: Random,
    learned: Learned,
}

/// What packets are about that the model or lb has said.
#[derive(Debug)]
struct Learned {
    translated: Vec<Translated>,
    cookies: Cookies,
}

/// Who sends packets, beside the backends.
#[derive(Clone, Debug)]
pub struct People {
    /// Clients; of both families.
    pub clients: Vec<std::net::IpAddr>,
    /// Hosts who only get replies, and never send a request.
    pub listeners: Vec<std::net::IpAddr>,
    /// Who is a neighbour: source MAC address of clients' frames.
    pub neighbour: crate::bytes::Mac,
    /// The NIC's own MAC address.
    pub nic: crate::bytes::Mac,
}

impl<'a> Generator<'a> {
    /// The row that follows from a seed.
    pub fn new(config: &'a Config, people: People, seed: u64) -> Self {
        let learned = Learned { translated: Vec::new(), cookies: config.cookies };
        Self { config, people, random: Random::new(seed), learned }
    }

    /// From now on, half the packets are of these flows of full nat.
    pub fn learn(&mut self, translated: Vec<Translated>) {
        self.learned.translated = translated;
    }

    /// From now on, cookies are of this epoch.
    pub fn set_epoch(&mut self, epoch: u64) {
        self.learned.cookies.epoch = epoch;
    }

    /// Pins of some of the flows whose packets come.
    pub fn pins(&mut self) -> Vec<Prepared> {
        flows::pins(self.config, &self.people.clients, &mut self.random)
    }

    /// The next frame: one in three is whole and sound, the others are damaged.
    pub fn next_frame(&mut self) -> Vec<u8> {
        let mut frame = kinds::any(self.config, &self.people, &self.learned, &mut self.random);
        if !self.random.one_in(3) {
            damage::inflict(&mut frame, &mut self.random);
        }
        frame.truncate(LONGEST);
        if self.config.takes_tagged {
            self.tag(&mut frame);
        }
        frame
    }

    /// Puts some VLAN tags in front of a packet.
    fn tag(&mut self, frame: &mut Vec<u8>) {
        for _ in 0..self.random.pick(&[0, 1, 1, 1, 2, 2, 3]) {
            let kind: [u8; 2] = self.random.pick(&[[0x81, 0x00], [0x88, 0xa8]]);
            let [.., high, low] = self.random.number().to_be_bytes();
            frame.splice(12..12, kind.into_iter().chain([high, low]));
        }
    }

    /// A number that is true once in `of` packets, from the same seed.
    pub fn one_in(&mut self, of: u64) -> bool {
        self.random.one_in(of)
    }
}
