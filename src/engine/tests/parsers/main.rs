//! Every parser that reads bytes from a peer, under seeded mutations of sound input.
//!
//! A case is a seed: it decides the sound input, what is done to it and how it is cut into
//! reads. No parser may panic, hold more than its limit or change its verdict with the cuts;
//! where somebody else's parser reads the same bytes, the two must agree. A failure prints the
//! seed; put it in place of the range to replay it alone.

mod command;
mod head;
mod ids;
mod reader;

use uproar_engine::random::Random;

/// What a seed decides.
struct Dice(Random);

impl Dice {
    /// A number below `sides`.
    fn roll(&mut self, sides: usize) -> usize {
        self.0.below(sides as u32) as usize
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.roll(256) as u8).collect()
    }

    fn text(&mut self, chars: usize) -> String {
        (0..chars).map(|_| self.pick(&['a', 'Z', ' ', '"', 'é', '€', '\u{ffff}', '🎉'])).collect()
    }

    /// Damages `bytes` in up to three places; one case in four stays sound. `favourites` are
    /// bytes that mean something to the parser under test.
    fn damage(&mut self, bytes: &mut Vec<u8>, favourites: &[u8]) {
        for _ in 0..self.roll(4) {
            let at = self.roll(bytes.len() + 1);
            let end = (at + self.roll(9)).min(bytes.len());
            match self.roll(8) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.roll(8),
                1 if at < bytes.len() => bytes[at] = self.pick(favourites),
                2 => bytes.insert(at, self.pick(favourites)),
                3 => drop(bytes.drain(at..end)),
                4 => bytes.extend_from_within(at..end),
                5 => bytes.truncate(at),
                6 => {
                    let noise = self.roll(6);
                    let noise = self.bytes(noise);
                    drop(bytes.splice(at..end, noise));
                }
                _ => bytes[at..end].reverse(),
            }
        }
    }

    /// Cuts `bytes` into reads of up to a size that differs from case to case.
    fn chunks<'b>(&mut self, mut bytes: &'b [u8]) -> Vec<&'b [u8]> {
        let len_max = self.pick(&[1, 3, 20, 200]);
        let mut chunks = Vec::new();
        while !bytes.is_empty() {
            let (chunk, rest) = bytes.split_at((1 + self.roll(len_max)).min(bytes.len()));
            chunks.push(chunk);
            bytes = rest;
        }
        chunks
    }
}

/// Runs a case for each seed and names the seed of one that panics.
fn for_seeds(seeds: std::ops::Range<u64>, mut case: impl FnMut(&mut Dice)) {
    struct Named(u64);
    impl Drop for Named {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("failed with seed {}: for_seeds({0}..{0} + 1, ...) replays it", self.0);
            }
        }
    }
    for seed in seeds {
        let named = Named(seed);
        case(&mut Dice(Random::new(named.0)));
    }
}
