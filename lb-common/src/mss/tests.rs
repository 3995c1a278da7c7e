use proptest::prelude::*;

use super::*;
use crate::checksum::sum_of;

const TRANSPORT: usize = 34;
const MSS: [u8; 4] = [2, 4, 0x05, 0xb4];

/// A SYN with these options in a frame, its checksum over the segment alone.
fn frame(options: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x12, 0x34, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0, 0, 2, 0xff, 0xff, 0, 0, 0, 0];
    segment[12] = ((20 + options.len()) / 4) as u8 * 16;
    segment.extend_from_slice(options);
    let checksum = sum_of(&segment).checksum().to_ne_bytes();
    segment[16..18].copy_from_slice(&checksum);
    let mut frame = vec![0xee; TRANSPORT];
    frame.extend(segment);
    frame
}

/// The program's way: a walk, and a change at its end. The size that is offered afterwards, if one was found.
fn clamp_all(frame: &mut [u8], most: u16) -> Option<u16> {
    let (begin, end) = options(&*frame, TRANSPORT)?;
    let mut place = Place::at(begin);
    for _ in 0..MOST_OPTIONS {
        place = step(&*frame, place, end);
        if place.is_over() {
            break;
        }
    }
    let at = place.found()?;
    clamp(frame, TRANSPORT, at, most);
    Some(u16::from_be_bytes([frame[at + 2], frame[at + 3]]))
}

#[test]
fn it_is_found_among_what_stacks_send() {
    for before in 0..=12 {
        for (name, options) in [
            ("first", [&MSS[..], &vec![1; before]].concat()),
            ("behind padding", [&vec![1; before], &MSS[..]].concat()),
            ("last", [&[4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 7][..], &MSS].concat()),
        ] {
            let padded = [&options[..], &vec![0; (4 - options.len() % 4) % 4]].concat();
            let mut frame = frame(&padded);
            assert_eq!(clamp_all(&mut frame, 1_360), Some(1_360), "{name}, {before}");
            assert_eq!(sum_of(&frame[TRANSPORT..]).checksum(), 0, "{name}, {before}");
        }
    }
}

#[test]
fn it_is_never_made_greater() {
    let mut one = frame(&MSS);
    let before = one.clone();
    for most in [1_460, 1_461, u16::MAX] {
        assert_eq!(clamp_all(&mut one, most), Some(1_460));
        assert_eq!(one, before);
    }
}

#[test]
fn broken_options_are_left_alone() {
    for options in [
        &[][..],
        &[0, 0, 0, 0, 2, 4, 5, 0xb4],
        &[2, 3, 5, 0],
        &[2, 0, 5, 0],
        &[1, 1, 2, 4],
        &[3, 1, 2, 4, 5, 0xb4, 0, 0],
        &[8, 255, 2, 4, 5, 0xb4, 0, 0],
    ] {
        let mut one = frame(options);
        let before = one.clone();
        assert_eq!(clamp_all(&mut one, 536), None, "{options:?}");
        assert_eq!(one, before);
    }
    assert_eq!(clamp_all(&mut frame(&[1; 40]), 536), None, "longer than anybody looks");
}

proptest! {
    #[test]
    fn whatever_the_options_are_the_checksum_is_as_right_as_before(
        mut options in proptest::collection::vec(prop_oneof![Just(1u8), Just(2), Just(4), any::<u8>()], 0..=40),
        most in 1u16..,
        fault in any::<u16>(),
    ) {
        options.truncate(options.len() / 4 * 4);
        let mut one = frame(&options);
        let wrong = u16::from_ne_bytes([one[TRANSPORT + 16], one[TRANSPORT + 17]]) ^ fault;
        one[TRANSPORT + 16..TRANSPORT + 18].copy_from_slice(&wrong.to_ne_bytes());
        let before = sum_of(&one[TRANSPORT..]).checksum();
        let (head, rest) = (one[..TRANSPORT + 16].to_vec(), one[TRANSPORT + 18..TRANSPORT + 20].to_vec());
        let offered = clamp_all(&mut one, most);
        let after = sum_of(&one[TRANSPORT..]).checksum();
        // All ones and zero are the same number of one's complement.
        prop_assert!(before == after || before ^ after == 0xffff && (before == 0 || after == 0));
        prop_assert!(offered.is_none_or(|offered| offered <= most));
        prop_assert_eq!((&one[..TRANSPORT + 16], &one[TRANSPORT + 18..TRANSPORT + 20]), (&head[..], &rest[..]));
    }
}

#[test]
fn room_is_made_of_what_is_offered() {
    for (offered, by, left) in [
        (1_460, 8, 1_452),
        (1_460, 20, 1_440),
        (545, 8, 537),
        (544, 8, 544),
        (536, 20, 536),
        (0, 8, 0),
    ] {
        let [high, low] = u16::to_be_bytes(offered);
        let mut one = frame(&[2, 4, high, low]);
        let _ = lower(one.as_mut_slice(), TRANSPORT, TRANSPORT + 20, by);
        let offers = u16::from_be_bytes([one[TRANSPORT + 22], one[TRANSPORT + 23]]);
        assert_eq!(offers, left, "{offered} less {by}");
        assert_eq!(sum_of(&one[TRANSPORT..]).checksum(), 0);
    }
}
