use super::*;

const PAYLOAD: usize = 42;
const UDP: usize = PAYLOAD - 8;

/// A frame with this payload and these bytes behind it.
fn read_padded(payload: &[u8], padding: &[u8]) -> Header {
    let mut frame = vec![0xff; PAYLOAD];
    frame[UDP + 4..UDP + 6].copy_from_slice(&(payload.len() as u16 + 8).to_be_bytes());
    frame.extend_from_slice(payload);
    frame.extend_from_slice(padding);
    Header::read(frame.as_slice(), UDP)
}

/// A frame with this payload.
fn read(payload: &[u8]) -> Header {
    read_padded(payload, &[])
}

/// A long header with an id of so many bytes, and one byte more.
fn with_id(first: u8, version: u32, length: u8) -> Vec<u8> {
    [long(first, version, length), vec![7; usize::from(length) + 1]].concat()
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
            let header = read(&with_id(first, version, 8));
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
        let negotiation = read(&with_id(first, 0, 8));
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
    assert_eq!(read(&whole), Header::NOTHING, "nothing of it is there");
    let id = PAYLOAD as u16 + 6;
    for there in 1..30 {
        let cut = [&whole[..], &vec![7; there]].concat();
        let length = there.min(20) as u8;
        assert_eq!(read(&cut), Header { opens: false, id, length });
    }
    assert_eq!(read(&with_id(0xe0, 1, 255)).length, 255, "lengths beyond 20 are told as they are");
    assert_eq!(read(&with_id(0xe0, 1, 0)), Header::NOTHING, "an id without a byte is none");
    assert_eq!(read(&[0x40]), Header::NOTHING);
    let short = read(&[0x40; 50]);
    assert_eq!(short, Header { opens: false, id: PAYLOAD as u16 + 1, length: 20 });
}

/// Short frames are padded, with whatever was in the sender's memory.
#[test]
fn what_follows_a_datagram_is_no_part_of_it() {
    let padding = with_id(0xe0, 1, 20);
    assert_eq!(read_padded(&[], &padding), Header::NOTHING);
    assert_eq!(read_padded(&[], &[0x40; 30]), Header::NOTHING);
    let whole = with_id(0xe0, 1, 20);
    for length in 0..whole.len() {
        let (payload, padding) = whole.split_at(length);
        assert_eq!(read_padded(payload, padding), read(payload), "{length} bytes");
    }
    for length in 0..30 {
        let payload = vec![0x40; length];
        assert_eq!(read_padded(&payload, &[0x40; 30]), read(&payload), "{length} bytes");
    }
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
