//! Bytes waiting to be written to a connection.

use crate::frame::{Header, FLAG_MORE, HEADER_LEN, MAX_PAYLOAD};
use crate::sys;
use std::io;
use std::os::fd::RawFd;

/// Output is not read from processes while more than this waits to be sent.
pub const HIGH_WATER: usize = 256 * 1024;
/// Requests are not read while more than this waits: replies stay bounded too.
pub const REPLY_LIMIT: usize = 1024 * 1024;

#[derive(Default)]
pub struct OutBuf {
    buf: Vec<u8>,
    pos: usize,
}

impl OutBuf {
    pub fn pending(&self) -> usize {
        self.buf.len() - self.pos
    }

    pub fn room(&self) -> usize {
        HIGH_WATER.saturating_sub(self.pending())
    }

    /// Queues a message, split into fragments where it is longer than a frame.
    pub fn message(&mut self, kind: u8, stream: u32, payload: &[u8]) {
        let mut rest = payload;
        loop {
            let (part, left) = rest.split_at(rest.len().min(MAX_PAYLOAD));
            let flags = if left.is_empty() { 0 } else { FLAG_MORE };
            let header = Header { len: part.len(), stream, kind, flags };
            self.buf.extend_from_slice(&header.encode());
            self.buf.extend_from_slice(part);
            rest = left;
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Queues one data frame of at most `max` bytes that `fill` appends in
    /// place; nothing is queued when it appends nothing.
    pub fn data<E>(
        &mut self,
        kind: u8,
        stream: u32,
        max: usize,
        fill: impl FnOnce(&mut Vec<u8>, usize) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let max = max.min(MAX_PAYLOAD);
        let at = self.buf.len();
        self.buf.reserve(HEADER_LEN + max);
        self.buf.extend_from_slice(&[0; HEADER_LEN]);
        match fill(&mut self.buf, max) {
            Ok(n) if n > 0 => {
                let header = Header { len: n, stream, kind, flags: 0 };
                self.buf[at..at + HEADER_LEN].copy_from_slice(&header.encode());
                Ok(n)
            }
            other => {
                self.buf.truncate(at);
                other
            }
        }
    }

    /// Writes what the descriptor takes. `Ok(false)` means it would block.
    pub fn flush(&mut self, fd: RawFd) -> io::Result<bool> {
        while self.pos < self.buf.len() {
            match sys::write_from(fd, &self.buf[self.pos..]) {
                Ok(0) => return Err(sys::os_error(sys::EIO)),
                Ok(n) => self.pos += n,
                Err(err) if err.raw_os_error() == Some(sys::EINTR) => continue,
                Err(err) if sys::would_block(&err) => {
                    self.compact();
                    return Ok(false);
                }
                Err(err) => return Err(err),
            }
        }
        self.pos = 0;
        if self.buf.capacity() > 2 * HIGH_WATER {
            self.buf = Vec::new(); // a burst must not stay resident
        } else {
            self.buf.clear();
        }
        Ok(true)
    }

    fn compact(&mut self) {
        if self.pos >= HIGH_WATER / 2 {
            self.buf.drain(..self.pos);
            self.pos = 0;
        }
    }
}

/// Reads from a descriptor straight into the spare capacity of `buf`.
pub fn read_append(fd: RawFd, buf: &mut Vec<u8>, max: usize) -> io::Result<usize> {
    buf.reserve(max);
    let len = buf.len();
    // SAFETY: `reserve` made `max` bytes writable past `len`; `n` of them are
    // initialised by the read.
    unsafe {
        let n = sys::read_raw(fd, buf.as_mut_ptr().add(len), max)?;
        buf.set_len(len + n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{kind, FrameReader};

    #[test]
    fn a_long_message_is_split_and_reads_back_whole() {
        for len in [0, 1, MAX_PAYLOAD, MAX_PAYLOAD + 1, 3 * MAX_PAYLOAD] {
            let mut out = OutBuf::default();
            let payload = vec![7u8; len];
            out.message(kind::LIST_EXECS, 5, &payload);
            let mut reader = FrameReader::new();
            let mut at = 0;
            let mut got = None;
            while got.is_none() {
                let space = reader.space();
                let n = space.len().min(out.buf.len() - at);
                space[..n].copy_from_slice(&out.buf[at..at + n]);
                reader.filled(n);
                at += n;
                got = reader.next().unwrap().map(|m| (m.stream, m.payload.to_vec()));
            }
            assert_eq!(got, Some((5, payload)));
        }
    }

    #[test]
    fn an_empty_data_frame_leaves_no_trace() {
        let mut out = OutBuf::default();
        let n = out.data::<()>(kind::STDOUT, 1, 100, |_, _| Ok(0));
        assert_eq!((n, out.pending()), (Ok(0), 0));
    }
}
