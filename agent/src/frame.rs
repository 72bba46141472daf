//! Frames: a fixed header, then at most 64 KiB of payload.
//!
//! Invariants of the reader, whatever bytes arrive:
//! I1. it never allocates more than one frame plus one message being assembled;
//! I2. a frame is judged by its header before its payload is waited for;
//! I3. after an error it yields nothing more.

pub const HEADER_LEN: usize = 12;
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// A request may span frames (large argv, environment, inline stdin) up to this.
pub const MAX_MESSAGE: usize = 8 * 1024 * 1024;
/// More fragments of the same message follow.
pub const FLAG_MORE: u8 = 1;

/// Frame types. The number space is tabled in `docs/agent-protocol.md`.
pub mod kind {
    pub const HELLO: u8 = 0x01;
    pub const READY: u8 = 0x02;
    pub const PING: u8 = 0x03;
    pub const PONG: u8 = 0x04;
    pub const ERROR: u8 = 0x05;
    pub const OK: u8 = 0x06;
    pub const SHUTDOWN: u8 = 0x07;
    pub const CANCEL: u8 = 0x08;
    pub const WINDOW: u8 = 0x09;

    pub const EXEC: u8 = 0x10;
    pub const STARTED: u8 = 0x11;
    pub const STDOUT: u8 = 0x12;
    pub const STDERR: u8 = 0x13;
    pub const STDIN: u8 = 0x14;
    pub const STDIN_CLOSE: u8 = 0x15;
    pub const EXIT: u8 = 0x16;
    pub const SIGNAL: u8 = 0x17;
    pub const RESIZE: u8 = 0x18;
    pub const LIST_EXECS: u8 = 0x19;
    pub const ATTACH: u8 = 0x1a;
    pub const ATTACHED: u8 = 0x1b;
    pub const DETACH: u8 = 0x1c;
    pub const FORGET: u8 = 0x1d;
    pub const KILL_ALL: u8 = 0x1e;

    pub const DATA: u8 = 0x20;
    pub const DATA_END: u8 = 0x21;
    pub const STAT: u8 = 0x22;
    pub const LIST: u8 = 0x23;
    pub const MKDIR: u8 = 0x24;
    pub const REMOVE: u8 = 0x25;
    pub const MOVE: u8 = 0x26;
    pub const READ: u8 = 0x27;
    pub const WRITE: u8 = 0x28;
    pub const TAR_IN: u8 = 0x29;
    pub const TAR_OUT: u8 = 0x2a;

    pub const QUIESCE: u8 = 0x30;
    pub const RESUME: u8 = 0x31;
    pub const RESEED: u8 = 0x32;
}

/// Codes of the ERROR frame.
pub mod code {
    pub const PROTOCOL: u16 = 1;
    pub const VERSION: u16 = 2;
    pub const LIMIT: u16 = 3;
    pub const NO_SUCH_EXEC: u16 = 4;
    pub const INVALID: u16 = 5;
    pub const CANCELLED: u16 = 6;
    pub const UNSUPPORTED: u16 = 7;

    pub const COMMAND_NOT_FOUND: u16 = 16;
    pub const NOT_EXECUTABLE: u16 = 17;
    pub const BAD_CWD: u16 = 18;
    pub const UNKNOWN_USER: u16 = 19;
    pub const ARGUMENTS_TOO_BIG: u16 = 20;
    pub const NO_RESOURCES: u16 = 21;
    pub const EXEC_FAILED: u16 = 22;

    pub const FILE: u16 = 32;
    pub const ESCAPE: u16 = 33;
    pub const BAD_ARCHIVE: u16 = 34;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub len: usize,
    pub stream: u32,
    pub kind: u8,
    pub flags: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolError(pub &'static str);

impl Header {
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0u8; HEADER_LEN];
        out[0..4].copy_from_slice(&(self.len as u32).to_le_bytes());
        out[4..8].copy_from_slice(&self.stream.to_le_bytes());
        out[8] = self.kind;
        out[9] = self.flags;
        out
    }

    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Header, ProtocolError> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let len = word(0) as usize;
        if len > MAX_PAYLOAD {
            return Err(ProtocolError("frame larger than the limit"));
        }
        if bytes[9] & !FLAG_MORE != 0 {
            return Err(ProtocolError("unknown frame flags"));
        }
        if bytes[10] != 0 || bytes[11] != 0 {
            return Err(ProtocolError("reserved header bytes are not zero"));
        }
        Ok(Header { len, stream: word(4), kind: bytes[8], flags: bytes[9] })
    }
}

/// Frames that carry raw bytes and therefore never span frames.
fn is_raw(frame_kind: u8) -> bool {
    matches!(frame_kind, kind::STDIN | kind::DATA | kind::WINDOW | kind::STDOUT | kind::STDERR)
}

/// One whole message: a frame, or the joined fragments of one.
#[derive(Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub kind: u8,
    pub stream: u32,
    pub payload: &'a [u8],
}

/// Turns a byte stream into messages.
pub struct FrameReader {
    buf: Box<[u8]>, // I1: never grows
    start: usize,
    end: usize,
    assembly: Vec<u8>,
    assembling: Option<(u8, u32)>,
    delivered: bool,
    failed: Option<ProtocolError>,
}

impl FrameReader {
    pub fn new() -> FrameReader {
        FrameReader::over(vec![0; 2 * (HEADER_LEN + MAX_PAYLOAD)].into_boxed_slice())
    }

    /// A stand-in that holds nothing, while the real one is borrowed.
    pub fn placeholder() -> FrameReader {
        FrameReader::over(Box::default())
    }

    fn over(buf: Box<[u8]>) -> FrameReader {
        FrameReader {
            buf,
            start: 0,
            end: 0,
            assembly: Vec::new(),
            assembling: None,
            delivered: false,
            failed: None,
        }
    }

    /// Room for more bytes: never empty while every message was taken. Call
    /// `filled` with how many were put there.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        } else if self.buf.len() - self.end < HEADER_LEN + MAX_PAYLOAD {
            self.buf.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.buf[self.end..]
    }

    pub fn filled(&mut self, n: usize) {
        self.end = (self.end + n).min(self.buf.len());
    }

    /// Whether the bytes seen so far end inside a frame or a spanning message.
    pub fn is_mid_message(&self) -> bool {
        self.start != self.end || self.assembling.is_some()
    }

    /// The next whole message, or none until more bytes arrive.
    pub fn next(&mut self) -> Result<Option<Message<'_>>, ProtocolError> {
        if let Some(err) = self.failed {
            return Err(err); // I3
        }
        if self.delivered {
            self.delivered = false;
            self.assembly = Vec::new();
        }
        loop {
            let waiting = self.end - self.start;
            if waiting < HEADER_LEN {
                return Ok(None);
            }
            let mut raw = [0u8; HEADER_LEN];
            raw.copy_from_slice(&self.buf[self.start..self.start + HEADER_LEN]);
            let header = match Header::decode(&raw).and_then(|h| self.admit(h)) {
                Ok(header) => header,
                Err(err) => {
                    self.failed = Some(err);
                    return Err(err); // I2
                }
            };
            if waiting < HEADER_LEN + header.len {
                return Ok(None);
            }
            let from = self.start + HEADER_LEN;
            let to = from + header.len;
            self.start = to;
            let more = header.flags & FLAG_MORE != 0;
            if !more && self.assembling.is_none() {
                let payload = &self.buf[from..to];
                return Ok(Some(Message { kind: header.kind, stream: header.stream, payload }));
            }
            self.assembly.extend_from_slice(&self.buf[from..to]);
            if more {
                self.assembling = Some((header.kind, header.stream));
                continue;
            }
            self.assembling = None;
            self.delivered = true;
            let payload = &self.assembly[..];
            return Ok(Some(Message { kind: header.kind, stream: header.stream, payload }));
        }
    }

    fn admit(&self, header: Header) -> Result<Header, ProtocolError> {
        let more = header.flags & FLAG_MORE != 0;
        if more && is_raw(header.kind) {
            return Err(ProtocolError("a data frame can not be continued"));
        }
        if more && header.len == 0 {
            return Err(ProtocolError("an empty fragment"));
        }
        if let Some(current) = self.assembling {
            if current != (header.kind, header.stream) {
                return Err(ProtocolError("a message was interrupted by another frame"));
            }
        }
        if self.assembly.len() + header.len > MAX_MESSAGE && (more || self.assembling.is_some()) {
            return Err(ProtocolError("message larger than the limit"));
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Header { len: payload.len(), stream, kind, flags }.encode().to_vec();
        out.extend_from_slice(payload);
        out
    }

    /// Feeds `bytes` in pieces of `step`; collects messages until an error.
    fn read_all(bytes: &[u8], step: usize) -> (Vec<(u8, u32, Vec<u8>)>, Option<ProtocolError>) {
        let mut reader = FrameReader::new();
        let mut out = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let space = reader.space();
            let n = step.min(bytes.len() - at).min(space.len());
            assert!(n > 0, "the reader refused bytes");
            space[..n].copy_from_slice(&bytes[at..at + n]);
            reader.filled(n);
            at += n;
            loop {
                match reader.next() {
                    Ok(Some(m)) => out.push((m.kind, m.stream, m.payload.to_vec())),
                    Ok(None) => break,
                    Err(err) => return (out, Some(err)),
                }
            }
        }
        (out, None)
    }

    #[test]
    fn frames_survive_any_chunking() {
        let mut bytes = frame(kind::PING, 0, 7, b"hello");
        bytes.extend(frame(kind::EXEC, FLAG_MORE, 9, &[1; MAX_PAYLOAD]));
        bytes.extend(frame(kind::EXEC, 0, 9, &[2; 10]));
        bytes.extend(frame(kind::STDIN, 0, 9, &[3; MAX_PAYLOAD]));
        for step in [1, 11, 12, 13, 4096, 100_000, 1 << 20] {
            let (got, err) = read_all(&bytes, step);
            assert_eq!(err, None);
            let sizes: Vec<usize> = got.iter().map(|m| m.2.len()).collect();
            assert_eq!(sizes, [5, MAX_PAYLOAD + 10, MAX_PAYLOAD], "step {step}");
        }
    }

    #[test]
    fn an_oversized_frame_is_refused_by_its_header_alone() {
        let header = Header { len: MAX_PAYLOAD + 1, stream: 1, kind: kind::PING, flags: 0 };
        let (_, err) = read_all(&header.encode(), 12);
        assert_eq!(err, Some(ProtocolError("frame larger than the limit")));
    }

    #[test]
    fn an_interrupted_message_is_refused() {
        let mut bytes = frame(kind::EXEC, FLAG_MORE, 9, b"a");
        bytes.extend(frame(kind::PING, 0, 1, b""));
        assert!(read_all(&bytes, 64).1.is_some());
    }

    #[test]
    fn a_message_past_the_limit_is_refused() {
        let mut bytes = Vec::new();
        for _ in 0..(MAX_MESSAGE / MAX_PAYLOAD + 1) {
            bytes.extend(frame(kind::EXEC, FLAG_MORE, 9, &[0; MAX_PAYLOAD]));
        }
        assert_eq!(read_all(&bytes, 1 << 16).1, Some(ProtocolError("message larger than the limit")));
    }

    #[test]
    fn random_bytes_never_panic_and_errors_are_final() {
        let mut rng = crate::testing::Rng::new(0x5eed);
        for _ in 0..3000 {
            let mut bytes = Vec::new();
            for _ in 0..rng.below(6) {
                if rng.below(3) == 0 {
                    let junk = rng.below(200);
                    bytes.extend((0..junk).map(|_| rng.next_u32() as u8));
                } else {
                    let body = rng.bytes(300);
                    bytes.extend(frame(rng.next_u32() as u8, (rng.below(8) == 0) as u8, rng.below(4) as u32, &body));
                }
            }
            let step = 1 + rng.below(400);
            let (first, err) = read_all(&bytes, step);
            let (second, err2) = read_all(&bytes, 1 << 20);
            assert_eq!((first, err), (second, err2), "chunking changed the outcome");
        }
    }
}
