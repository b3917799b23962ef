//! What a comment of ours carries in its text: who posted it, which one it is, and when it
//! was *due*.
//!
//! Latency runs from the due instant, not from the send, so a stalled publisher or server
//! cannot hide the wait it caused. The marker is fixed-width hex at the start of the text,
//! found with one substring search and decoded without parsing the frame around it; the
//! padding after it follows from the marker, so a sampled check can demand every byte.

use memchr::memmem::Finder;

/// What every marker begins with; also what the search looks for.
const LEAD: &[u8; 4] = b"~upr";
/// `~upr` + run 4 + publisher 6 + sequence 8 + due 16 hex digits + `~`.
pub(crate) const MARKER_BYTES: usize = 4 + 4 + 6 + 8 + 16 + 1;

/// One comment's identity and due instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// Which run posted it; comments of other runs are not measured.
    pub(crate) run: u16,
    /// The publisher, 24 bits.
    pub(crate) publisher: u32,
    /// 0, 1, 2 … per publisher.
    pub(crate) sequence: u32,
    /// When the schedule wanted it posted, in monotonic nanoseconds.
    pub(crate) due_ns: u64,
}

impl Marker {
    /// Publisher and sequence in one number: the identity that all viewers must agree on.
    pub(crate) fn identity(self) -> u64 {
        u64::from(self.publisher) << 32 | u64::from(self.sequence)
    }

    /// Appends the marker, then padding up to `text_bytes` in all (at least the marker).
    pub(crate) fn write(self, text_bytes: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(LEAD);
        write_hex(u64::from(self.run), 4, out);
        write_hex(u64::from(self.publisher), 6, out);
        write_hex(u64::from(self.sequence), 8, out);
        write_hex(self.due_ns, 16, out);
        out.push(b'~');
        let mut letter = (self.identity() % 26) as u8;
        while out.len() - start < text_bytes {
            out.push(b'a' + letter);
            letter = if letter == 25 { 0 } else { letter + 1 };
        }
    }
}

/// Finds markers in payloads. Holds the prepared search.
#[derive(Debug)]
pub(crate) struct MarkerFinder(Finder<'static>);

impl MarkerFinder {
    pub(crate) fn new() -> Self {
        Self(Finder::new(LEAD))
    }

    /// The first marker in `payload`, if there is a whole one.
    pub(crate) fn find(&self, payload: &[u8]) -> Option<Marker> {
        self.find_at(payload).map(|(_, marker)| marker)
    }

    /// The same and where it begins.
    pub(crate) fn find_at(&self, payload: &[u8]) -> Option<(usize, Marker)> {
        let at = self.0.find(payload)?;
        let body = payload.get(at + LEAD.len()..at + MARKER_BYTES)?;
        if body[34] != b'~' {
            return None;
        }
        let marker = Marker {
            run: read_hex(&body[..4])? as u16,
            publisher: read_hex(&body[4..10])? as u32,
            sequence: read_hex(&body[10..18])? as u32,
            due_ns: read_hex(&body[18..34])?,
        };
        Some((at, marker))
    }
}

fn write_hex(value: u64, digits: u32, out: &mut Vec<u8>) {
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(value >> (digit * 4) & 0xf) as usize]);
    }
}

fn read_hex(digits: &[u8]) -> Option<u64> {
    let mut value = 0;
    let mut bad = 0;
    for &digit in digits {
        let nibble = NIBBLES[digit as usize];
        bad |= nibble;
        value = value << 4 | u64::from(nibble & 0xf);
    }
    (bad < 16).then_some(value)
}

/// Value of each hex digit, 255 for everything else.
const NIBBLES: [u8; 256] = {
    let mut table = [255; 256];
    let mut i = 0;
    while i < 16 {
        table[b"0123456789abcdef"[i] as usize] = i as u8;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    const MARKER: Marker =
        Marker { run: 0xbeef, publisher: 0x12_3456, sequence: 77, due_ns: 0x0123_4567_89ab_cdef };

    #[test]
    fn a_marker_survives_any_surrounding_and_has_the_asked_size() {
        let mut text = b"{\"text\":\"".to_vec();
        MARKER.write(200, &mut text);
        assert_eq!(text.len(), 9 + 200);
        assert_eq!(MarkerFinder::new().find(&text), Some(MARKER));
    }

    #[test]
    fn damaged_and_cut_markers_are_not_found() {
        let mut text = Vec::new();
        MARKER.write(0, &mut text);
        assert_eq!(text.len(), MARKER_BYTES);
        assert_eq!(MarkerFinder::new().find(&text[..MARKER_BYTES - 1]), None);
        text[10] = b'G';
        assert_eq!(MarkerFinder::new().find(&text), None);
    }
}
