//! What a packet of any kind may have, too: few hops to go, options, extension headers, an odd source, a trailer.

use std::net::IpAddr;

use super::{build::Draft, kinds::World};

impl World<'_> {
    /// With the rare but right.
    pub(super) fn dressed(&mut self, mut draft: Draft) -> Draft {
        if self.random.one_in(8) {
            draft.hop_limit = self.random.below(4) as u8;
        }
        if self.random.one_in(6) {
            draft.class = self.random.number() as u8;
        }
        if self.random.one_in(8) {
            let length = 1 + self.random.index(46);
            draft.trailer = self.random.bytes(length);
        }
        if self.random.one_in(10) && (draft.options.is_empty() || draft.source.is_ipv6()) {
            self.with_options(&mut draft);
        }
        if self.random.one_in(40) {
            draft.source = self.odd_source(draft.destination);
        }
        if self.random.one_in(60) {
            draft.from = self.people.nic;
        }
        if self.random.one_in(60) {
            draft.to = self.random.pick(&[[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [2, 9, 9, 9, 9, 9]]);
        }
        draft
    }

    fn with_options(&mut self, draft: &mut Draft) {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const AUTHENTICATION: u8 = 51;
        const DESTINATION: u8 = 60;
        if draft.source.is_ipv4() {
            let options: [&[u8]; 7] = [
                &[1, 1, 1, 1],
                &[7, 7, 4, 0, 0, 0, 0, 0],
                &[68, 8, 5, 0, 0, 0, 0, 0],
                &[1, 131, 7, 4, 10, 0, 0, 1],
                &[137, 7, 4, 10, 0, 0, 1, 0],
                &[0, 131, 7, 4],
                &[7, 1, 131, 7],
            ];
            draft.options = self.random.pick(&options).to_vec();
            return;
        }
        for _ in 0..=self.random.index(3) {
            let kind = self.random.pick(&[HOP_BY_HOP, ROUTING, AUTHENTICATION, DESTINATION]);
            let more = self.random.index(2) as u8;
            let mut header = vec![draft.protocol, more, 1, 4, 0, 0, 0, 0];
            header.resize(8 + usize::from(more) * 8, 0);
            draft.options = [header, std::mem::take(&mut draft.options)].concat();
            draft.protocol = kind;
        }
    }

    fn odd_source(&mut self, destination: IpAddr) -> IpAddr {
        let text = if destination.is_ipv4() {
            ["0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255", "240.1.1.1", "0.0.0.0"]
        } else {
            ["::", "::1", "ff02::1", "fe80::1", "::ffff:192.0.2.33", "::ffff:10.1.0.1"]
        };
        let odd = self.random.pick(&text).parse().expect("an address");
        if self.random.one_in(4) { destination } else { odd }
    }
}
