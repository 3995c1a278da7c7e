//! VLAN tags (IEEE 802.1Q, 802.1ad): they come off before a frame is looked at and are put back, as they were, on
//! whatever leaves. So no other step knows of them, and each network keeps to itself.

use crate::frame::{ETHER_TYPE_V4, ETHER_TYPE_V6, Frame, MacPair, Pair};

/// EtherType of a customer's tag (802.1Q); a priority tag (VLAN 0) has it, too.
pub const ETHER_TYPE_VLAN: [u8; 2] = [0x81, 0x00];
/// EtherType of a provider's tag (802.1ad).
pub const ETHER_TYPE_QINQ: [u8; 2] = [0x88, 0xa8];

/// Bytes of a tag: EtherType and tag control information.
pub const TAG: usize = 4;
/// Bytes in front of the tags: both MAC addresses.
const MACS: usize = 12;

/// An EtherType as it stands in a frame.
type EtherType = [u8; 2];

/// Whether this is the EtherType of a tag.
#[inline(always)]
pub const fn is_tag(ether_type: EtherType) -> bool {
    matches!(ether_type, ETHER_TYPE_VLAN | ETHER_TYPE_QINQ)
}

/// One or two tags in one word: their bytes as they stand in the frame, the outer one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tags(u64);

impl Tags {
    /// From [`Tags::word`]; `None` for 0, as no tag begins with zeros.
    #[inline(always)]
    pub const fn of(word: u64) -> Option<Self> {
        if word == 0 { None } else { Some(Self(word)) }
    }

    /// All of it; never 0.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// How many bytes they take in the frame: one tag or two.
    #[inline(always)]
    pub const fn length(self) -> usize {
        let [_, _, _, _, second @ ..] = self.0.to_ne_bytes();
        if u32::from_ne_bytes(second) == 0 { TAG } else { 2 * TAG }
    }
}

/// The tags of a frame that has one or two and carries IP behind them; `None` for all others, which nobody touches.
#[inline(always)]
pub fn read(frame: &(impl Frame + ?Sized)) -> Option<Tags> {
    let first: [u8; TAG] = *frame.view(MACS)?;
    let [a, b, c, d] = first;
    if !is_tag([a, b]) {
        return None;
    }
    let second: [u8; TAG] = *frame.view(MACS + TAG)?;
    let [e, f, g, h] = second;
    if carries_ip([e, f]) {
        return Tags::of(u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0]));
    }
    let behind: EtherType = *frame.view(MACS + 2 * TAG)?;
    if !is_tag([e, f]) || !carries_ip(behind) {
        return None;
    }
    Tags::of(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
}

#[inline(always)]
const fn carries_ip(ether_type: EtherType) -> bool {
    matches!(ether_type, ETHER_TYPE_V4 | ETHER_TYPE_V6)
}

/// The MAC addresses of a frame, to be moved: in registers, because kept as bytes they are copied one by one, twice.
#[inline(always)]
pub fn macs(frame: &(impl Frame + ?Sized)) -> Option<MacPair> {
    frame.view(0).map(MacPair::of_bytes)
}

/// Puts the addresses in front of a frame whose start has moved onto the last bytes of its tags: the EtherType behind
/// them is in its place already.
#[inline(always)]
pub fn begin_untagged(frame: &mut (impl Frame + ?Sized), macs: MacPair) -> Option<()> {
    *frame.view_mut(0)? = macs.bytes();
    Some(())
}

/// Puts addresses and tags in front of a frame whose start has moved back by their length.
#[inline(always)]
pub fn begin_tagged(frame: &mut (impl Frame + ?Sized), macs: MacPair, tags: Tags) -> Option<()> {
    let [a, b, c, d, e, f, g, h] = tags.word().to_ne_bytes();
    if tags.length() == TAG {
        *frame.view_mut(0)? = Pair { first: macs.bytes(), second: [a, b, c, d] };
    } else {
        *frame.view_mut(0)? = Pair { first: macs.bytes(), second: [a, b, c, d, e, f, g, h] };
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACS_BYTES: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

    fn frame(behind_macs: &[&[u8]]) -> Vec<u8> {
        [&MACS_BYTES[..], &behind_macs.concat(), &[0x45; 40]].concat()
    }

    fn taken_off(frame: &[u8]) -> Option<(Tags, Vec<u8>)> {
        let tags = read(frame)?;
        let macs = macs(frame)?;
        let mut rest = frame[tags.length()..].to_vec();
        begin_untagged(rest.as_mut_slice(), macs)?;
        Some((tags, rest))
    }

    #[test]
    fn tags_come_off_and_are_put_back() {
        let (c, s) = ([0x81, 0, 0xa0, 5], [0x88, 0xa8, 0x0f, 0xff]);
        for tags in [&[&c[..]][..], &[&s], &[&s, &c], &[&c, &c], &[&[0x81, 0, 0, 0], &c]] {
            for ip in [[8, 0], [0x86, 0xdd]] {
                let tagged = frame(&[tags, &[&ip]].concat());
                let plain = frame(&[&ip]);
                let (found, untagged) = taken_off(&tagged).expect("it has tags");
                assert_eq!(untagged, plain, "{tags:x?}");
                let mut back = vec![0; found.length()];
                back.extend(&untagged);
                let macs = macs(untagged.as_slice()).expect("a frame");
                begin_tagged(back.as_mut_slice(), macs, found).expect("it is long enough");
                assert_eq!(back, tagged, "{tags:x?}");
            }
        }
    }

    #[test]
    fn what_is_not_ip_under_one_or_two_tags_is_nobodys() {
        let tag = [0x81, 0, 0, 5];
        let untouched: [&[&[u8]]; 6] = [
            &[&[8, 0]],                   // no tag
            &[&tag, &[8, 6]],             // ARP
            &[&tag, &tag, &[0x88, 0xcc]], // LLDP
            &[&tag, &tag, &tag, &[8, 0]], // three tags
            &[&[0x91, 0, 0, 5], &[8, 0]], // another kind of tag
            &[&tag, &[0x91, 0, 0, 5], &[8, 0]],
        ];
        for parts in untouched {
            assert_eq!(taken_off(&frame(parts)), None, "{parts:x?}");
        }
        let whole = frame(&[&tag, &tag, &[8, 0]]);
        for length in 0..22 {
            assert_eq!(read(&whole[..length]), None, "cut to {length}");
        }
        assert!(read(&whole[..22]).is_some());
    }
}
