//! The rule case by case. That it holds over time is proved by the random histories of `lb_userspace::plan`.

use super::*;

const OWNER: BackendId = BackendId(1);
const BASE: BackendId = BackendId(2);
const THIRD: BackendId = BackendId(3);
const NOW: u64 = 1_000_000;
const ISN: u32 = 7_000;
const SYN: Segment = Segment::Opening { isn: ISN };

/// One flow's pins, and what became of them.
#[derive(Default)]
struct Table {
    unconfirmed: Option<Pin>,
    confirmed: Option<Pin>,
    full: bool,
    down: Vec<BackendId>,
    writes: u32,
    refused: u32,
}

impl Table {
    fn put(full: bool, place: &mut Option<Pin>, writes: &mut u32, pin: &Pin) -> bool {
        if full && place.is_none() {
            return false;
        }
        *place = Some(*pin);
        *writes += 1;
        true
    }
}

impl Pins for Table {
    fn unconfirmed(&self) -> Option<Pin> {
        self.unconfirmed
    }
    fn confirmed(&self) -> Option<Pin> {
        self.confirmed
    }
    fn put_unconfirmed(&mut self, pin: &Pin) -> bool {
        Self::put(self.full, &mut self.unconfirmed, &mut self.writes, pin)
    }
    fn put_confirmed(&mut self, pin: &Pin) -> bool {
        Self::put(self.full, &mut self.confirmed, &mut self.writes, pin)
    }
    fn remove_unconfirmed(&mut self) {
        self.unconfirmed = None;
    }
    fn remove_confirmed(&mut self) {
        self.confirmed = None;
    }
    fn is_down(&self, backend: BackendId) -> bool {
        self.down.contains(&backend)
    }
    fn now(&self) -> u64 {
        NOW
    }
    fn refused(&mut self) {
        self.refused += 1;
    }
}

fn pin(backend: BackendId) -> Pin {
    Pin { backend, last_seen: NOW, created: NOW, client_isn: ISN, service: 9, ..Pin::default() }
}

fn data(sequence: u32) -> Segment {
    Segment::Other { sequence, acknowledgement: 0, length: 10, closing: false }
}

fn context(phase: Phase) -> Context {
    let base = if phase == Phase::Pinned { BackendId::NONE } else { BASE };
    let slot = Slot::new(OWNER, base, phase, 0);
    Context { slot, base, service: 9, sees_replies: false }
}

fn ask(phase: Phase, segment: Segment, table: &mut Table) -> BackendId {
    select(&context(phase), &segment, table)
}

const CHANGED: [Phase; 2] = [Phase::Window, Phase::Harvest];

#[test]
fn settled_is_the_owner_and_nothing_is_looked_at() {
    let mut table = Table { confirmed: Some(pin(THIRD)), ..Table::default() };
    assert_eq!(ask(Phase::Settled, SYN, &mut table), OWNER);
    assert_eq!(ask(Phase::Settled, data(1), &mut table), OWNER);
    assert_eq!(table.writes, 0);
}

#[test]
fn openers_go_to_the_owner_pinned_and_their_handshake_confirms() {
    for phase in CHANGED {
        let mut table = Table::default();
        assert_eq!(ask(phase, SYN, &mut table), OWNER);
        assert_eq!(table.unconfirmed, Some(pin(OWNER)));
        assert_eq!(ask(phase, data(ISN + 1), &mut table), OWNER);
        assert_eq!((table.unconfirmed, table.confirmed), (None, Some(pin(OWNER))));
    }
}

#[test]
fn a_retransmitted_syn_follows_its_pin_wherever_the_slot_has_gone() {
    for phase in [Phase::Window, Phase::Harvest, Phase::Pinned] {
        let mut table = Table { unconfirmed: Some(pin(THIRD)), ..Table::default() };
        assert_eq!(ask(phase, SYN, &mut table), THIRD);
        assert_eq!(table.writes, 0);
        table.down = vec![THIRD];
        assert_eq!(ask(phase, SYN, &mut table), OWNER);
        assert_eq!(table.unconfirmed, Some(pin(OWNER)), "pinned anew");
    }
}

#[test]
fn unpinned_flows_stay_with_the_base_and_a_harvest_pins_them() {
    let mut table = Table::default();
    assert_eq!(ask(Phase::Window, data(1), &mut table), BASE);
    assert_eq!(table.writes, 0);
    assert_eq!(ask(Phase::Harvest, data(1), &mut table), BASE);
    assert_eq!(table.confirmed, Some(Pin { client_isn: 0, ..pin(BASE) }));
    let mut table = Table { down: vec![BASE], ..Table::default() };
    assert_eq!(ask(Phase::Harvest, data(1), &mut table), OWNER);
    assert_eq!(table.writes, 0, "nothing is harvested for a base that is DOWN");
    let mut table = Table { full: true, ..Table::default() };
    assert_eq!(ask(Phase::Harvest, data(1), &mut table), BASE);
    assert_eq!(table.refused, 1);
}

#[test]
fn a_harvest_pins_even_where_the_base_is_the_owner() {
    let slot = Slot::new(OWNER, OWNER, Phase::Harvest, 0);
    let context = Context { slot, base: OWNER, service: 9, sees_replies: false };
    let mut table = Table::default();
    assert_eq!(select(&context, &data(1), &mut table), OWNER);
    assert_eq!(table.confirmed.map(|pin| pin.backend), Some(OWNER));
}

#[test]
fn a_packet_that_does_not_fit_the_handshake_confirms_nothing() {
    for sequence in [ISN, ISN.wrapping_sub(1), ISN + 65_536, 0, u32::MAX] {
        let mut table = Table { unconfirmed: Some(pin(OWNER)), ..Table::default() };
        assert_eq!(ask(Phase::Window, data(sequence), &mut table), BASE, "{sequence}");
        let mut table = Table { confirmed: Some(pin(THIRD)), ..table };
        assert_eq!(
            ask(Phase::Window, data(sequence), &mut table),
            THIRD,
            "a mere SYN wins nothing"
        );
        assert_eq!(table.unconfirmed, Some(pin(OWNER)));
    }
    for (isn, sequence) in
        [(ISN, ISN + 1), (ISN, ISN + 65_535), (u32::MAX, 0), (u32::MAX - 5, 65_000)]
    {
        let unconfirmed = Some(Pin { client_isn: isn, ..pin(OWNER) });
        let mut table = Table { unconfirmed, confirmed: Some(pin(THIRD)), ..Table::default() };
        assert_eq!(ask(Phase::Window, data(sequence), &mut table), OWNER, "{isn} {sequence}");
        assert_eq!(table.confirmed, unconfirmed, "the new flow's pin replaces the earlier one's");
    }
}

#[test]
fn where_replies_are_seen_the_servers_number_has_to_fit_too() {
    let context = Context { sees_replies: true, ..context(Phase::Window) };
    let reply = |acknowledgement| Segment::Other {
        sequence: ISN + 1,
        acknowledgement,
        length: 0,
        closing: false,
    };
    let mut table = Table { unconfirmed: Some(pin(OWNER)), ..Table::default() };
    assert_eq!(select(&context, &reply(501), &mut table), BASE, "no SYN-ACK seen");
    let mut answered = pin(OWNER);
    assert!(!note_syn_ack(&mut answered, 500, ISN + 2), "an answer to another SYN");
    assert!(note_syn_ack(&mut answered, 500, ISN + 1));
    assert!(!note_syn_ack(&mut answered, 500, ISN + 1), "known");
    for wrong in [500, 0, 500 + 65_536] {
        let mut table = Table { unconfirmed: Some(answered), ..Table::default() };
        assert_eq!(select(&context, &reply(wrong), &mut table), BASE, "{wrong}");
    }
    let mut table = Table { unconfirmed: Some(answered), ..Table::default() };
    assert_eq!(select(&context, &reply(501), &mut table), OWNER);
    assert_eq!(table.confirmed, Some(answered));
}

#[test]
fn a_second_syn_keeps_the_backend_and_either_handshake_completes() {
    for (sequence, isn) in [(ISN + 1, ISN), (90_001, 90_000)] {
        let mut table = Table { unconfirmed: Some(pin(THIRD)), ..Table::default() };
        assert_eq!(ask(Phase::Window, Segment::Opening { isn: 90_000 }, &mut table), THIRD);
        let noted = Pin { flags: pin_flag::SECOND_ISN, closing_sequence: 90_000, ..pin(THIRD) };
        assert_eq!(table.unconfirmed, Some(noted));
        assert_eq!(ask(Phase::Window, Segment::Opening { isn: 90_000 }, &mut table), THIRD);
        assert_eq!(ask(Phase::Window, data(sequence), &mut table), THIRD);
        assert_eq!(table.confirmed, Some(Pin { client_isn: isn, ..pin(THIRD) }));
    }
}

#[test]
fn a_syn_long_after_the_first_opens_anew() {
    let old = NOW - YOUNG_JIFFIES;
    let unconfirmed = Some(Pin { created: old, last_seen: old, ..pin(THIRD) });
    let mut table = Table { unconfirmed, ..Table::default() };
    assert_eq!(ask(Phase::Window, Segment::Opening { isn: 5 }, &mut table), OWNER);
    assert_eq!(table.unconfirmed, Some(Pin { client_isn: 5, ..pin(OWNER) }));
}

#[test]
fn a_late_copy_of_a_syn_follows_the_pin_its_handshake_made() {
    for phase in [Phase::Window, Phase::Harvest, Phase::Pinned] {
        let mut table = Table { confirmed: Some(pin(THIRD)), ..Table::default() };
        assert_eq!(ask(phase, SYN, &mut table), THIRD);
        assert_eq!((table.writes, table.unconfirmed), (0, None));
    }
}

#[test]
fn an_opener_without_room_goes_where_its_later_packets_will() {
    for phase in CHANGED {
        let mut table = Table { full: true, ..Table::default() };
        assert_eq!(ask(phase, SYN, &mut table), BASE);
        assert_eq!(table.refused, 1);
        table.down = vec![BASE];
        assert_eq!(ask(phase, SYN, &mut table), OWNER);
    }
    let earlier = Pin { client_isn: 1, last_seen: NOW - TOUCH_JIFFIES, ..pin(THIRD) };
    for phase in [Phase::Window, Phase::Harvest, Phase::Pinned] {
        let mut table = Table { full: true, confirmed: Some(earlier), ..Table::default() };
        assert_eq!(ask(phase, SYN, &mut table), THIRD, "by the earlier flow's pin");
        assert_eq!(table.confirmed.map(|pin| pin.last_seen), Some(NOW), "which is kept alive");
    }
}

#[test]
fn a_confirmed_pin_without_room_stays_where_it_is() {
    let mut table = Table { full: true, unconfirmed: Some(pin(THIRD)), ..Table::default() };
    assert_eq!(ask(Phase::Window, data(ISN + 1), &mut table), THIRD);
    assert_eq!(table.unconfirmed, Some(Pin { flags: pin_flag::PROMOTED, ..pin(THIRD) }));
    assert_eq!(table.refused, 1);
    assert_eq!(ask(Phase::Harvest, data(77), &mut table), THIRD, "whatever the sequence number");
    assert_eq!(ask(Phase::Harvest, Segment::Opening { isn: 1 }, &mut table), THIRD, "as confirmed");
    assert_eq!((table.refused, table.writes), (1, 1), "and is not written each time");
    table.full = false;
    let old = NOW - TOUCH_JIFFIES;
    table.unconfirmed = table.unconfirmed.map(|pin| Pin { last_seen: old, ..pin });
    assert_eq!(ask(Phase::Pinned, data(77), &mut table), THIRD);
    assert_eq!((table.unconfirmed, table.confirmed), (None, Some(pin(THIRD))), "moved at last");
}

#[test]
fn pinned_slots_pin_nothing_new() {
    let mut table = Table::default();
    assert_eq!(ask(Phase::Pinned, SYN, &mut table), OWNER);
    assert_eq!(ask(Phase::Pinned, data(ISN + 1), &mut table), OWNER);
    assert_eq!(table.writes, 0);
    let mut table = Table { confirmed: Some(pin(THIRD)), ..Table::default() };
    assert_eq!(ask(Phase::Pinned, data(1), &mut table), THIRD);
    table.down = vec![THIRD];
    assert_eq!(ask(Phase::Pinned, data(1), &mut table), OWNER);
}

#[test]
fn in_pinned_the_completed_handshake_removes_an_earlier_flows_pin() {
    let earlier = Pin { client_isn: 1, ..pin(THIRD) };
    let mut table = Table { confirmed: Some(earlier), ..Table::default() };
    assert_eq!(ask(Phase::Pinned, SYN, &mut table), OWNER);
    assert_eq!(table.unconfirmed, Some(pin(OWNER)));
    assert_eq!(ask(Phase::Pinned, data(500_000), &mut table), THIRD, "the SYN alone does not");
    assert_eq!(ask(Phase::Pinned, data(ISN + 1), &mut table), OWNER);
    assert_eq!((table.unconfirmed, table.confirmed), (None, None));
}

#[test]
fn a_handshake_that_ends_in_pinned_keeps_the_backend_it_began_with() {
    let mut table = Table { unconfirmed: Some(pin(THIRD)), ..Table::default() };
    assert_eq!(ask(Phase::Pinned, data(ISN + 1), &mut table), THIRD);
    assert_eq!(table.confirmed, Some(pin(THIRD)));
}

#[test]
fn a_slot_without_owner_opens_nothing_and_keeps_its_flows() {
    let slot = Slot::new(BackendId::NONE, BASE, Phase::Window, 0);
    let context = Context { slot, base: BASE, service: 9, sees_replies: false };
    let mut table = Table::default();
    assert_eq!(select(&context, &SYN, &mut table), BackendId::NONE);
    assert_eq!(table.writes, 0);
    assert_eq!(select(&context, &data(1), &mut table), BASE);
    table.confirmed = Some(pin(THIRD));
    assert_eq!(select(&context, &data(1), &mut table), THIRD);
    table.down = vec![THIRD];
    assert_eq!(select(&context, &data(1), &mut table), BackendId::NONE);
}

#[test]
fn where_everything_is_down_a_flow_stays_with_the_owner_it_was_sent_to() {
    let mut table = Table { down: vec![OWNER, BASE], ..Table::default() };
    assert_eq!(ask(Phase::Window, SYN, &mut table), OWNER);
    table.down = vec![OWNER];
    assert_eq!(
        ask(Phase::Window, data(ISN + 1), &mut table),
        OWNER,
        "not the base, which is UP again"
    );
}

#[test]
fn pins_are_written_seldom_but_at_once_when_a_flow_closes_or_goes_on() {
    let packet = |sequence, length, closing| Segment::Other {
        sequence,
        acknowledgement: 0,
        length,
        closing,
    };
    let mut table = Table { confirmed: Some(pin(THIRD)), ..Table::default() };
    let expect = |segment, writes, flags, table: &mut Table| {
        let before = table.writes;
        assert_eq!(ask(Phase::Window, segment, table), THIRD);
        let pin = table.confirmed.expect("never removed");
        assert_eq!((table.writes - before, pin.flags), (writes, flags), "{segment:?}");
    };
    expect(packet(100, 10, false), 0, 0, &mut table);
    expect(packet(110, 5, true), 1, pin_flag::CLOSING, &mut table);
    expect(packet(115, 0, false), 0, pin_flag::CLOSING, &mut table);
    expect(packet(110, 5, true), 0, pin_flag::CLOSING, &mut table);
    expect(packet(114, 1, true), 0, pin_flag::CLOSING, &mut table);
    expect(packet(115, 1, false), 1, 0, &mut table);
    expect(packet(115, 1, true), 1, pin_flag::CLOSING, &mut table);
    expect(packet(300, 0, true), 1, pin_flag::CLOSING, &mut table);
    expect(packet(114, 0, false), 1, 0, &mut table);
    table.confirmed = Some(Pin { last_seen: NOW - TOUCH_JIFFIES + 1, ..pin(THIRD) });
    expect(packet(1, 0, false), 0, 0, &mut table);
    table.confirmed = Some(Pin { last_seen: NOW - TOUCH_JIFFIES, ..pin(THIRD) });
    expect(packet(1, 0, false), 1, 0, &mut table);
    assert_eq!(table.confirmed, Some(pin(THIRD)));
}

#[test]
fn a_flow_whose_first_packet_closes_it_is_closing() {
    let segment =
        Segment::Other { sequence: ISN + 1, acknowledgement: 0, length: 1, closing: true };
    let closing = |pin: Pin, end| Pin { flags: pin_flag::CLOSING, closing_sequence: end, ..pin };
    let mut table = Table { unconfirmed: Some(pin(OWNER)), ..Table::default() };
    assert_eq!(ask(Phase::Window, segment, &mut table), OWNER);
    assert_eq!(table.confirmed, Some(closing(pin(OWNER), ISN + 2)));
    let mut table = Table::default();
    assert_eq!(ask(Phase::Harvest, segment, &mut table), BASE);
    let harvested = Pin { client_isn: 0, ..pin(BASE) };
    assert_eq!(table.confirmed, Some(closing(harvested, ISN + 2)));
}

#[test]
fn flows_of_a_backend_that_is_down_go_to_the_owner_and_come_back_with_it() {
    for phase in [Phase::Window, Phase::Harvest, Phase::Pinned] {
        let mut table =
            Table { confirmed: Some(pin(THIRD)), down: vec![THIRD], ..Table::default() };
        assert_eq!(ask(phase, data(1), &mut table), OWNER);
        table.down.clear();
        assert_eq!(ask(phase, data(1), &mut table), THIRD);
    }
}

#[test]
fn an_old_rings_slot_says_where_its_unpinned_flows_live() {
    for (phase, expected) in [
        (Phase::Settled, OWNER),
        (Phase::Window, BASE),
        (Phase::Harvest, BASE),
        (Phase::Pinned, OWNER),
    ] {
        assert_eq!(home(Slot::new(OWNER, BASE, phase, 0)), expected);
    }
}

#[test]
fn an_error_about_a_flow_goes_where_the_flow_is_and_writes_nothing() {
    let phases = [Phase::Window, Phase::Harvest, Phase::Pinned];
    let promoted = Pin { flags: pin_flag::PROMOTED, ..pin(BASE) };
    let rows = [
        // confirmed, unconfirmed, DOWN, and where it goes by phase
        (None, None, None, [BASE, BASE, OWNER]),
        (None, None, Some(BASE), [OWNER; 3]),
        (Some(pin(THIRD)), None, None, [THIRD; 3]),
        (Some(pin(THIRD)), None, Some(THIRD), [OWNER; 3]),
        (None, Some(pin(THIRD)), None, [THIRD; 3]),
        (Some(pin(THIRD)), Some(pin(BASE)), None, [THIRD; 3]),
        (Some(pin(THIRD)), Some(promoted), None, [BASE; 3]),
    ];
    for (row, (confirmed, unconfirmed, down, expected)) in rows.into_iter().enumerate() {
        let down = down.into_iter().collect();
        let table = Table { confirmed, unconfirmed, down, ..Table::default() };
        for (phase, backend) in phases.into_iter().zip(expected) {
            assert_eq!(whereabouts(&context(phase), &table), backend, "row {row}, {phase:?}");
        }
        assert_eq!(whereabouts(&context(Phase::Settled), &table), OWNER, "row {row}");
        assert_eq!((table.confirmed, table.unconfirmed), (confirmed, unconfirmed), "row {row}");
    }
}
