//! One connection to the host.

use crate::frame::FrameReader;
use crate::outbuf::OutBuf;
use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// What a stream id of this connection stands for while it is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    Exec(u32),
    Job(u32),
}

pub struct Conn {
    pub id: u64,
    input: OwnedFd,
    /// A socket is both; pipes are two.
    output: Option<OwnedFd>,
    pub reader: FrameReader,
    pub out: OutBuf,
    pub readable: bool,
    pub writable: bool,
    pub greeted: bool,
    pub streams: HashMap<u32, Stream>,
    /// No more input is taken; the connection ends when `out` is written.
    pub closing: bool,
    pub dead: bool,
    /// The inherited pipes: there is only one such connection, ever.
    pub is_stdio: bool,
}

impl Conn {
    pub fn new(id: u64, input: OwnedFd, output: Option<OwnedFd>) -> Conn {
        Conn {
            id,
            is_stdio: output.is_some(),
            input,
            output,
            reader: FrameReader::new(),
            out: OutBuf::default(),
            readable: true,
            writable: true,
            greeted: false,
            streams: HashMap::new(),
            closing: false,
            dead: false,
        }
    }

    pub fn input_fd(&self) -> RawFd {
        self.input.as_raw_fd()
    }

    pub fn output_fd(&self) -> RawFd {
        self.output.as_ref().unwrap_or(&self.input).as_raw_fd()
    }

    pub fn flush(&mut self) {
        if self.dead || !self.writable || self.out.pending() == 0 {
            return;
        }
        match self.out.flush(self.output_fd()) {
            Ok(done) => self.writable = done,
            Err(_) => self.dead = true,
        }
    }
}
