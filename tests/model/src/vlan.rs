//! VLAN tags (IEEE 802.1Q, 802.1ad): one or two in front of an IP packet come off before anything is decided, and are on whatever
//! leaves as they were on what came (B07). Frames with more of them, or with something else behind them, are the host's.

use crate::outcome::{Action, Outcome};

/// Both MAC addresses.
const MACS: usize = 12;
const TAG: usize = 4;
const MOST: usize = 2;

/// The tags of a frame that has some that come off.
pub fn tags(frame: &[u8]) -> Option<Vec<u8>> {
    let kind = |at: usize| Some([*frame.get(at)?, *frame.get(at + 1)?]);
    let is_tag = |kind: [u8; 2]| matches!(kind, [0x81, 0x00] | [0x88, 0xa8]);
    let mut at = MACS;
    while is_tag(kind(at)?) {
        at += TAG;
        if at > MACS + MOST * TAG {
            return None;
        }
    }
    // Room for two tags, or for one and the first word of an IP header; shorter ones carry nothing.
    if frame.len() < MACS + MOST * TAG {
        return None;
    }
    let is_ip = matches!(kind(at)?, [0x08, 0x00] | [0x86, 0xdd]);
    (at > MACS && is_ip).then(|| frame[MACS..at].to_vec())
}

/// The frame without them.
pub fn without(frame: &[u8], tags: &[u8]) -> Vec<u8> {
    [&frame[..MACS], &frame[MACS + tags.len()..]].concat()
}

/// The outcome with them.
pub fn with(mut outcome: Outcome, tags: &[u8]) -> Outcome {
    if outcome.action != Action::Drop {
        outcome.frame.splice(MACS..MACS, tags.iter().copied());
    }
    outcome
}
