use super::*;
use crate::{
    checksum::tests::plain,
    mss,
    parse::{V4, V6, outline},
    sample::Sample,
};

/// The program's walk over all options.
fn hide_all(frame: &mut [u8], transport: usize) {
    let Some((begin, end)) = mss::options(&*frame, transport) else { return };
    let mut place = Place::at(begin);
    for _ in 0..MOST_BYTES {
        place = hide(frame, transport, place, end);
        if place.is_over() {
            return;
        }
    }
}

/// A segment with these options.
fn segment(is_v6: bool, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut sample = Sample::tcp(is_v6, 0x10, &[options, payload].concat());
    sample.transport[12] = ((20 + options.len()) / 4) as u8 * 16;
    sample.frame()
}

/// The checksum over segment and pseudo header; 0 = right.
fn sum(frame: &[u8], is_v6: bool) -> u16 {
    let transport = if is_v6 { 54 } else { 34 };
    let addresses = if is_v6 { &frame[22..54] } else { &frame[26..34] };
    let length = ((frame.len() - transport) as u32).to_be_bytes();
    plain(&[addresses, &length, &[0, 6], &frame[transport..]])
}

#[test]
fn the_option_is_the_first_and_everything_says_so() {
    for is_v6 in [false, true] {
        let (transport, more) = if is_v6 { (54, 20) } else { (34, 8) };
        for options in [0, 4, 12, 20] {
            for payload in [0usize, 1, 7, 1000] {
                let bytes: Vec<u8> = (0..payload).map(|at| at as u8).collect();
                let before = segment(is_v6, &vec![1; options], &bytes);
                assert_eq!(sum(&before, is_v6), 0, "the test's own packet");
                let mut after = [vec![0; more], before.clone()].concat();
                let done = match is_v6 {
                    true => insert::<V6>(after.as_mut_slice()),
                    false => insert::<V4>(after.as_mut_slice()),
                };
                assert_eq!(done, Some(()));
                let begin = transport + 20;
                let source = if is_v6 { 22..38 } else { 26..30 };
                let kind = if is_v6 { KIND_V6 } else { KIND_V4 };
                let head = [kind, more as u8, before[transport], before[transport + 1]];
                assert_eq!(after[begin..begin + 4], head);
                assert_eq!(after[begin + 4..begin + more], before[source]);
                assert_eq!(after[begin + more..], before[begin..], "what follows is untouched");
                assert_eq!(after[transport + 12] >> 4, ((20 + options + more) / 4) as u8);
                assert_eq!(sum(&after, is_v6), 0, "{options} bytes of options, {payload} of data");
                let length = |frame: &[u8]| match is_v6 {
                    true => u16::from_be_bytes([frame[18], frame[19]]) as usize + 54,
                    false => u16::from_be_bytes([frame[16], frame[17]]) as usize + 14,
                };
                assert_eq!(length(&after), after.len());
                if !is_v6 {
                    assert_eq!(plain(&[&after[14..34]]), 0, "the header's checksum");
                }
            }
        }
    }
}

#[test]
fn what_a_client_says_is_hidden_wherever_it_stands() {
    for is_v6 in [false, true] {
        let transport = if is_v6 { 54 } else { 34 };
        for kind in [KIND_V4, KIND_V6] {
            for length in [2usize, 8, 20] {
                for before in 0..=(40 - length) {
                    let mut options = vec![1; before];
                    options.extend([kind, length as u8]);
                    options.resize(before + length, 0x5a);
                    options.resize(options.len().next_multiple_of(4), 1);
                    let mut frame = segment(is_v6, &options, b"data");
                    let mut expected = frame.clone();
                    hide_all(&mut frame, transport);
                    expected[transport + 20 + before] = HIDDEN;
                    expected[transport + 16..transport + 18]
                        .copy_from_slice(&frame[transport + 16..transport + 18]);
                    assert_eq!(frame, expected, "kind {kind}, {length} bytes at {before}");
                    assert_eq!(sum(&frame, is_v6), 0, "kind {kind}, {length} bytes at {before}");
                }
            }
        }
    }
}

#[test]
fn several_are_hidden_and_broken_ones_too() {
    let all = [[254, 8, 0, 0, 0, 0, 0, 0], [3, 3, 7, 1, 253, 4, 9, 9], [254, 8, 1, 1, 1, 1, 1, 1]];
    let mut frame = segment(false, &all.concat(), b"");
    hide_all(&mut frame, 34);
    let kinds = [54, 66, 70].map(|at: usize| frame[at]);
    assert_eq!((kinds, sum(&frame, false)), ([HIDDEN; 3], 0));
    // Longer than the header, or of no length: nobody reads on, and nobody reads this one.
    for broken in [[254, 40, 0, 0], [254, 0, 0, 0], [254, 1, 0, 0], [1, 1, 254, 8]] {
        let mut frame = segment(false, &broken, b"");
        hide_all(&mut frame, 34);
        assert!(!frame[54..58].contains(&254), "{broken:?}: {:?}", &frame[54..58]);
        assert_eq!(sum(&frame, false), 0);
    }
}

#[test]
fn other_options_stay_as_they_are() {
    let options = [
        2, 4, 5, 0xb4, 4, 2, 8, 10, 254, 8, 253, 20, 254, 254, 253, 253, 1, 3, 3, 254, 34, 6, 254,
        8, 9, 9, 0, 254, 8, 0, 0, 0,
    ];
    let mut frame = segment(true, &options, b"");
    let before = frame.clone();
    hide_all(&mut frame, 54);
    assert_eq!(frame, before);
}

#[test]
fn it_has_to_fit_header_and_link() {
    let tcp = |words: u8| Tcp { offset: words << 4, ..Tcp::default() };
    assert!(fits::<V4>(&tcp(13), 100, 0) && !fits::<V4>(&tcp(14), 100, 0));
    assert!(fits::<V6>(&tcp(10), 100, 0) && !fits::<V6>(&tcp(11), 100, 0));
    assert!(fits::<V4>(&tcp(5), 1492, 1500) && !fits::<V4>(&tcp(5), 1493, 1500));
    assert!(fits::<V6>(&tcp(5), 1480, 1500) && !fits::<V6>(&tcp(5), 1481, 1500));
    assert!(!fits::<V4>(&tcp(5), 65_530, 0));
    assert!(!fits::<crate::parse::V4Options>(&tcp(5), 100, 0));
    assert!(!fits::<crate::parse::V6Extended>(&tcp(5), 100, 0));
}

#[test]
fn flows_are_read_as_before() {
    let before = segment(false, &[], b"x");
    let mut after = [vec![0; 8], before.clone()].concat();
    insert::<V4>(after.as_mut_slice()).expect("it fits");
    let flow = |frame: &[u8]| outline::<V4>(frame).expect("plain").flow;
    assert_eq!(flow(&after), flow(&before));
}
