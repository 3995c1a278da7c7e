use super::*;

const PAYLOAD: usize = 42;

/// A frame with this payload.
fn read(payload: &[u8]) -> Header {
    let mut frame = vec![0xff; PAYLOAD];
    frame.extend_from_slice(payload);
    Header::read(frame.as_slice(), PAYLOAD)
}

fn long(first: u8, version: u32, length: u8) -> Vec<u8> {
    let mut bytes = vec![first];
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.push(length);
    bytes
}

#[test]
fn a_first_byte_says_what_a_packet_is() {
    for first in 0..=u8::MAX {
        let is_long = first >= 0x80;
        let kind = (first >> 4) & 3;
        for (version, opening) in [(1, [0, 1]), (0x6b33_43cf, [1, 2])] {
            let header = read(&long(first, version, 8));
            let opens = is_long && opening.contains(&kind);
            assert_eq!(header.opens, opens, "{first:#x} of version {version:#x}");
            let id = match (is_long, opens) {
                (false, _) => PAYLOAD as u16 + 1,
                (true, true) => 0,
                (true, false) => PAYLOAD as u16 + 6,
            };
            assert_eq!(header.id, id, "{first:#x} of version {version:#x}");
        }
        assert_eq!(read(&long(first, 0xdead_beef, 8)).opens, is_long, "a version of the future");
        let negotiation = read(&long(first, 0, 8));
        assert!(!negotiation.opens, "a version negotiation opens nothing");
        assert_eq!(negotiation.id != 0, !is_long);
    }
}

#[test]
fn what_is_cut_short_has_no_id() {
    assert_eq!(read(&[]), Header::NOTHING);
    let whole = long(0xe0, 1, 20);
    for length in 1..whole.len() {
        assert_eq!(read(&whole[..length]), Header::NOTHING, "{length} bytes");
    }
    assert_eq!(read(&whole), Header { opens: false, id: PAYLOAD as u16 + 6, length: 20 });
    assert_eq!(read(&long(0xe0, 1, 255)).length, 255, "lengths beyond 20 are told as they are");
    assert_eq!(read(&[0x40]), Header { opens: false, id: PAYLOAD as u16 + 1, length: 20 });
}

#[test]
fn each_config_id_has_a_length_of_its_own() {
    let formats = (0..CONFIGS).fold(Formats::default(), |all, config| all.with(config, config + 1));
    for first in 0..=u8::MAX {
        let config = u32::from(first >> 5);
        let expected = (config < CONFIGS).then_some((config, config + 1));
        assert_eq!(formats.of(first), expected);
        assert_eq!(Formats::default().of(first), None);
    }
    let longest = Formats::default().with(6, SERVER_ID as u32);
    assert_eq!(longest.of(0xc0), Some((6, 15)));
    assert_eq!(longest.of(0xe0), None);
    assert_eq!(Formats(u32::MAX).of(0xff), None, "config id 7 never names a server");
}
