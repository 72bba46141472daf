//! Frames between the platform's process and this helper, over its stdin and stdout.
//!
//! Every frame is `u32 length` (of what follows) `u32 id` and then, little endian throughout:
//! request:  `u32 steps`, each `u32 fields`, each `u32 length` bytes;
//! response: `u8 status` (0 done, 1 failed), `u32 steps`, each `u32 µs`, `u32 length` bytes;
//!           after a failure the last entry is `{"step","op","errno","message"}` in JSON.
//! event:    id 0, then `u32 length` bytes of JSON.

use std::io::{self, Read, Write};
use std::sync::Mutex;

/// A config.json and a few long paths: far below this. A longer frame is a broken peer.
const FRAME_BYTES_MAX: usize = 16 << 20;

pub type Fields = Vec<Vec<u8>>;

pub struct Request {
    pub id: u32,
    pub steps: Vec<Fields>,
}

pub struct StepResult {
    pub micros: u32,
    pub bytes: Vec<u8>,
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn u32(&mut self) -> io::Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().unwrap_or_default()))
    }

    fn take(&mut self, n: usize) -> io::Result<&'a [u8]> {
        if n > self.0.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "frame is shorter than it says"));
        }
        let (head, rest) = self.0.split_at(n);
        self.0 = rest;
        Ok(head)
    }
}

/// The next request; `None` when the peer has closed.
pub fn read_request(input: &mut impl Read) -> io::Result<Option<Request>> {
    let mut head = [0u8; 4];
    match input.read_exact(&mut head) {
        Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let len = u32::from_le_bytes(head) as usize;
    if len > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame is too long"));
    }
    let mut body = vec![0; len];
    input.read_exact(&mut body)?;
    parse_request(&body).map(Some)
}

fn parse_request(body: &[u8]) -> io::Result<Request> {
    let mut cursor = Cursor(body);
    let id = cursor.u32()?;
    let count = cursor.u32()?;
    let mut steps = Vec::new();
    for _ in 0..count {
        let fields = cursor.u32()?;
        let mut step = Vec::new();
        for _ in 0..fields {
            let len = cursor.u32()? as usize;
            step.push(cursor.take(len)?.to_vec());
        }
        steps.push(step);
    }
    if !cursor.0.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame has bytes left over"));
    }
    Ok(Request { id, steps })
}

/// The way back; shared by all threads.
pub struct Output(Mutex<std::fs::File>);

impl Output {
    pub fn new(file: std::fs::File) -> Output {
        Output(Mutex::new(file))
    }

    pub fn respond(&self, id: u32, failed: bool, results: &[StepResult]) {
        let mut body = Vec::with_capacity(64);
        body.extend_from_slice(&id.to_le_bytes());
        body.push(failed.into());
        body.extend_from_slice(&(results.len() as u32).to_le_bytes());
        for result in results {
            body.extend_from_slice(&result.micros.to_le_bytes());
            body.extend_from_slice(&(result.bytes.len() as u32).to_le_bytes());
            body.extend_from_slice(&result.bytes);
        }
        self.send(&body);
    }

    pub fn event(&self, json: &str) {
        let mut body = Vec::with_capacity(json.len() + 8);
        body.extend_from_slice(&0u32.to_le_bytes());
        body.extend_from_slice(&(json.len() as u32).to_le_bytes());
        body.extend_from_slice(json.as_bytes());
        self.send(&body);
    }

    fn send(&self, body: &[u8]) {
        let mut frame = Vec::with_capacity(body.len() + 4);
        frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
        frame.extend_from_slice(body);
        let mut file = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if file.write_all(&frame).is_err() {
            // Nobody is left to serve; everything of ours is reclaimed by the next driver.
            std::process::exit(0);
        }
    }
}

/// A JSON string literal.
pub fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for ch in text.chars() {
        match ch {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            ch if (ch as u32) < 0x20 || ch as u32 == 0x7f => out.push_str(&format!("\\u{:04x}", ch as u32)),
            ch => out.push(ch),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_back_field_by_field() {
        let mut frame = Vec::new();
        for n in [7u32, 1, 2, 1] {
            frame.extend_from_slice(&n.to_le_bytes());
        }
        frame.push(b'a');
        frame.extend_from_slice(&0u32.to_le_bytes());
        let mut wire = (frame.len() as u32).to_le_bytes().to_vec();
        wire.extend_from_slice(&frame);
        let request = read_request(&mut wire.as_slice()).unwrap().unwrap();
        assert_eq!(request.id, 7);
        assert_eq!(request.steps, vec![vec![b"a".to_vec(), Vec::new()]]);
    }

    #[test]
    fn malformed_frames_are_errors_and_never_panics() {
        assert!(parse_request(&[1, 0, 0]).is_err());
        for cut in 0..64 {
            let bytes: Vec<u8> = (0..cut).map(|n: u8| n.wrapping_mul(37)).collect();
            let _ = parse_request(&bytes);
        }
        let mut huge = Vec::new();
        for n in [1u32, 1, 1, u32::MAX] {
            huge.extend_from_slice(&n.to_le_bytes());
        }
        assert!(parse_request(&huge).is_err());
    }

    #[test]
    fn control_characters_are_escaped_in_json() {
        assert_eq!(json_string("a\"\\\n\u{1}é"), "\"a\\\"\\\\\\n\\u0001é\"");
    }
}
