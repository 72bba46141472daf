//! The tail of a kept process's output, addressed by absolute byte cursors.

use std::collections::VecDeque;

/// Holds the bytes `[base, head)` of an endless stream, at most `cap` of them.
pub struct Ring {
    bytes: VecDeque<u8>,
    base: u64,
    cap: usize,
}

impl Ring {
    pub fn new(cap: usize) -> Ring {
        Ring { bytes: VecDeque::new(), base: 0, cap }
    }

    /// The oldest cursor that can still be read.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// The cursor of the next byte to arrive.
    pub fn head(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// How much can be added without losing a byte at or after `keep`.
    pub fn free_from(&self, keep: u64) -> usize {
        let held = self.head().saturating_sub(keep.max(self.base)) as usize;
        self.cap - held.min(self.cap)
    }

    /// Adds bytes; the oldest give way.
    pub fn push(&mut self, data: &[u8]) {
        let skipped = data.len().saturating_sub(self.cap);
        let overflow = (self.bytes.len() + data.len() - skipped).saturating_sub(self.cap);
        self.bytes.drain(..overflow);
        self.base += (overflow + skipped) as u64;
        self.bytes.extend(&data[skipped..]);
    }

    /// Appends up to `max` bytes from `cursor` to `out`; returns how many.
    pub fn copy_from(&self, cursor: u64, max: usize, out: &mut Vec<u8>) -> usize {
        let offset = cursor.saturating_sub(self.base) as usize;
        let n = max.min(self.bytes.len().saturating_sub(offset));
        let (a, b) = self.bytes.as_slices();
        let from_a = &a[offset.min(a.len())..(offset + n).min(a.len())];
        out.extend_from_slice(from_a);
        let left = n - from_a.len();
        let start = offset.saturating_sub(a.len());
        out.extend_from_slice(&b[start.min(b.len())..(start + left).min(b.len())]);
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_always_holds_the_newest_bytes_of_the_stream() {
        let mut rng = crate::testing::Rng::new(11);
        for _ in 0..300 {
            let cap = 1 + rng.below(64);
            let mut ring = Ring::new(cap);
            let mut all: Vec<u8> = Vec::new();
            for _ in 0..40 {
                let data = rng.bytes(100);
                ring.push(&data);
                all.extend(&data);
                assert_eq!(ring.head(), all.len() as u64);
                assert_eq!(ring.base(), all.len().saturating_sub(cap) as u64);
                let cursor = ring.base() + rng.below(cap + 1).min((ring.head() - ring.base()) as usize) as u64;
                let max = rng.below(80);
                let mut out = Vec::new();
                let n = ring.copy_from(cursor, max, &mut out);
                assert_eq!(n, out.len());
                assert_eq!(out, all[cursor as usize..][..n]);
                assert_eq!(n, max.min(all.len() - cursor as usize));
            }
        }
    }
}
