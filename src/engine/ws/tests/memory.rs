//! Where the bytes of a message live, and how many of them the reader keeps.

use super::*;

#[test]
fn a_whole_message_is_handed_out_of_the_input_itself() {
    for opcode in [TEXT, BINARY, PING] {
        let mut bytes = frame(opcode, true, b"where am I");
        let home = bytes.as_ptr_range();
        let mut reader = Reader::default();
        let mut input = bytes.as_mut_slice();
        let payload = match reader.read(&mut input, &LIMITS).unwrap().unwrap() {
            Incoming::Text(text) => text.as_bytes(),
            Incoming::Binary(bytes) | Incoming::Ping(bytes) => bytes,
            other => panic!("{other:?}"),
        };
        assert_eq!(payload, b"where am I");
        assert!(home.contains(&payload.as_ptr()));
        assert!(reader.is_idle());
    }
}

/// Holds for every cut inside the header and right behind it.
#[test]
fn a_cut_header_costs_the_payload_no_copy() {
    let whole = frame(TEXT, true, b"where am I");
    for cut in 1..=6 {
        let mut reader = Reader::default();
        let mut read = Vec::new();
        feed(&mut reader, &whole[..cut], &LIMITS, &mut read).unwrap();
        assert!(!reader.is_idle());
        let mut rest = whole[cut..].to_vec();
        let home = rest.as_ptr_range();
        let mut input = rest.as_mut_slice();
        let Ok(Some(Incoming::Text(text))) = reader.read(&mut input, &LIMITS) else {
            panic!("the rest of the message, cut at {cut}")
        };
        assert_eq!(text, "where am I");
        assert!(home.contains(&text.as_ptr()), "{cut}");
        assert!(reader.is_idle(), "{cut}");
    }
}

#[test]
fn a_cut_control_frame_is_forgotten_within_a_message() {
    let mut reader = Reader::default();
    let mut read = Vec::new();
    feed(&mut reader, &frame(BINARY, false, &[7; 20]), &LIMITS, &mut read).unwrap();
    let held = reader.bytes_held();
    for chunk in frame(PING, true, &[9; 125]).chunks(50) {
        feed(&mut reader, chunk, &LIMITS, &mut read).unwrap();
    }
    assert_eq!(read, [Owned::Ping(vec![9; 125])]);
    assert_eq!(reader.bytes_held(), held);
}

#[test]
fn what_is_only_announced_takes_no_memory() {
    let whole = frame(BINARY, true, &vec![1; 16 << 20]);
    let mut reader = Reader::default();
    let mut read = Vec::new();
    let mut arrived = 0;
    for chunk in whole.chunks(1_400) {
        feed(&mut reader, chunk, &ROOMY, &mut read).unwrap();
        arrived += chunk.len();
        if arrived < whole.len() {
            assert!(reader.bytes_held() <= 2 * arrived + 256, "{}", reader.bytes_held());
        }
    }
    assert_eq!(read, [Owned::Binary(vec![1; 16 << 20])]);
    assert!(reader.is_idle());
    assert_eq!(reader.bytes_held(), 0);
}

#[test]
fn doubling_stops_at_the_limit() {
    let mut reader = Reader::default();
    let mut read = Vec::new();
    for (first, chunk) in [(TEXT, "x".repeat(900)), (CONTINUE, "y".repeat(500))] {
        feed(&mut reader, &frame(first, false, chunk.as_bytes()), &LIMITS, &mut read).unwrap();
        assert!(reader.bytes_held() <= 1_500 + 256, "{}", reader.bytes_held());
    }
    assert_eq!(read, []);
}
