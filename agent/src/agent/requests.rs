//! What each message asks for. A `ProtocolError` returned from here ends the
//! connection; anything else a peer gets wrong is answered on its stream.

use super::conn::Stream;
use super::exec::STDIN_WINDOW;
use super::jobs::JOB_WINDOW;
use super::server::{Server, MAX_EXECS};
use crate::fields::{as_u16, as_u32, as_u64, FieldWriter, Fields};
use crate::frame::{code, kind, Message, ProtocolError, MAX_MESSAGE, MAX_PAYLOAD};
use crate::outbuf::OutBuf;
use crate::sys;
use std::time::{SystemTime, UNIX_EPOCH};

pub const PROTOCOL_VERSION: u16 = 1;
const MAGIC: &[u8] = b"FAAS";
/// Bit numbers: 0 terminal, 1 attach and replay, 2 files, 3 tar, 4 quiesce, 5 reseed.
const FEATURES: u64 = 0b11_1111;
const PING_MAX: usize = 64;

type Handled = Result<(), ProtocolError>;

/// An answer that says no.
pub(super) struct Refusal {
    pub code: u16,
    pub errno: i32,
    pub message: String,
}

impl Refusal {
    pub fn new(code: u16, message: impl Into<String>) -> Refusal {
        Refusal { code, errno: 0, message: message.into() }
    }

    pub fn payload(&self) -> Vec<u8> {
        FieldWriter::new()
            .u16(1, self.code)
            .u32(2, self.errno as u32)
            .bytes(3, self.message.as_bytes())
            .0
    }
}

impl Server {
    pub(super) fn out(&mut self, conn: u64) -> Option<&mut OutBuf> {
        self.conns.get_mut(&conn).map(|c| &mut c.out)
    }

    pub(super) fn reply(&mut self, conn: u64, stream: u32, frame_kind: u8, payload: &[u8]) {
        if let Some(out) = self.out(conn) {
            out.message(frame_kind, stream, payload);
        }
    }

    pub(super) fn answer(&mut self, conn: u64, stream: u32, result: Result<Vec<u8>, Refusal>) {
        match result {
            Ok(payload) => self.reply(conn, stream, kind::OK, &payload),
            Err(refusal) => self.reply(conn, stream, kind::ERROR, &refusal.payload()),
        }
    }

    /// Tells the peer what it did wrong, then ends the connection.
    pub(super) fn refuse(&mut self, conn: u64, err: ProtocolError) {
        self.reply(conn, 0, kind::ERROR, &Refusal::new(code::PROTOCOL, err.0).payload());
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.closing = true;
        }
    }

    pub(super) fn handle(&mut self, conn: u64, m: Message<'_>) -> Handled {
        let greeted = self.conns.get(&conn).is_some_and(|c| c.greeted);
        if m.kind == kind::HELLO {
            return self.hello(conn, m, greeted);
        }
        if !greeted {
            return Err(ProtocolError("the first message is not HELLO"));
        }
        if m.stream == 0 {
            return Err(ProtocolError("stream 0 belongs to the connection"));
        }
        match m.kind {
            kind::STDIN => self.stdin(conn, m),
            kind::STDIN_CLOSE => self.stdin_close(conn, m),
            kind::WINDOW => self.window(conn, m),
            kind::DATA | kind::DATA_END | kind::CANCEL => self.job_input(conn, m),
            kind::DETACH => self.detach_request(conn, m),
            _ => {
                let taken = self.conns.get(&conn).is_some_and(|c| c.streams.contains_key(&m.stream));
                if taken {
                    return Err(ProtocolError("the stream id is in use"));
                }
                self.request(conn, m)
            }
        }
    }

    /// Messages that open a stream and get an answer.
    fn request(&mut self, conn: u64, m: Message<'_>) -> Handled {
        if self.quiesced && !matches!(m.kind, kind::PING | kind::RESUME | kind::SHUTDOWN) {
            let refusal = Refusal::new(code::INVALID, "the agent is quiesced");
            self.answer(conn, m.stream, Err(refusal));
            return Ok(());
        }
        match m.kind {
            kind::PING => self.ping(conn, m),
            kind::EXEC => self.exec(conn, m),
            kind::ATTACH => self.attach(conn, m),
            kind::SIGNAL => self.signal(conn, m),
            kind::RESIZE => self.resize(conn, m),
            kind::LIST_EXECS => self.list_execs(conn, m),
            kind::FORGET => self.forget(conn, m),
            kind::KILL_ALL => self.kill_all(conn, m),
            kind::RESUME => self.resume(conn, m),
            kind::SHUTDOWN => self.shutdown(conn, m),
            kind::RESEED => self.reseed(conn, m),
            kind::STAT..=kind::TAR_OUT | kind::QUIESCE => self.start_job(conn, m),
            _ => Err(ProtocolError("unknown message type")),
        }
    }

    fn hello(&mut self, conn: u64, m: Message<'_>, greeted: bool) -> Handled {
        let (mut magic, mut lowest, mut highest) = (false, 0, 0);
        let mut fields = Fields::new(m.payload);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => magic = value == MAGIC,
                2 => lowest = as_u16(value)?,
                3 => highest = as_u16(value)?,
                _ => {} // a newer client may say more; it means nothing to us
            }
        }
        if !magic || m.stream != 0 {
            return Err(ProtocolError("HELLO is malformed"));
        }
        if greeted {
            // Restored inherited pipes: a new host speaks on the old connection.
            let restored = self.quiesced && self.conns.get(&conn).is_some_and(|c| c.is_stdio);
            if !restored {
                return Err(ProtocolError("a second HELLO"));
            }
            let streams = self.conns.get_mut(&conn).map(|c| std::mem::take(&mut c.streams));
            self.release_streams(&streams.unwrap_or_default());
        }
        if !(lowest..=highest).contains(&PROTOCOL_VERSION) {
            let message = format!("this agent speaks version {PROTOCOL_VERSION} only");
            self.reply(conn, 0, kind::ERROR, &Refusal::new(code::VERSION, message).payload());
            if let Some(conn) = self.conns.get_mut(&conn) {
                conn.closing = true;
            }
            return Ok(());
        }
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.greeted = true;
        }
        if self.quiesced {
            // The host that quiesced us closed its connection, but the end of it may be behind this greeting
            // in the queue: let go of its streams now, while that is not yet the loss of a host.
            let others: Vec<u64> = self.conns.keys().copied().filter(|&id| id != conn).collect();
            for id in others {
                let streams = self.conns.get_mut(&id).map(|c| std::mem::take(&mut c.streams));
                self.release_streams(&streams.unwrap_or_default());
            }
            self.leave_quiesce();
        }
        let ready = FieldWriter::new()
            .u16(1, PROTOCOL_VERSION)
            .u64(2, FEATURES)
            .u32(3, MAX_PAYLOAD as u32)
            .u32(4, MAX_MESSAGE as u32)
            .u32(5, MAX_EXECS as u32)
            .u32(6, STDIN_WINDOW as u32)
            .bytes(7, env!("CARGO_PKG_VERSION").as_bytes())
            .u32(8, sys::getpid() as u32)
            .bytes(9, &self.sandbox_id)
            .u64(10, unix_time_ns())
            .u32(11, JOB_WINDOW as u32)
            .0;
        self.reply(conn, 0, kind::READY, &ready);
        Ok(())
    }

    /// Echoes the payload and says how the agent is.
    fn ping(&mut self, conn: u64, m: Message<'_>) -> Handled {
        if m.payload.len() > PING_MAX {
            return Err(ProtocolError("PING is too long"));
        }
        let live = self.execs.values().filter(|e| e.ended.is_none()).count();
        let pong = FieldWriter::new()
            .bytes(1, m.payload)
            .u64(2, unix_time_ns())
            .u32(3, live as u32)
            .u64(4, self.orphans_reaped)
            .0;
        self.reply(conn, m.stream, kind::PONG, &pong);
        Ok(())
    }

    fn window(&mut self, conn: u64, m: Message<'_>) -> Handled {
        let [channel, n @ ..] = m.payload else { return Err(ProtocolError("WINDOW is malformed")) };
        let n = as_u32(n)? as u64;
        let stream = self.conns.get(&conn).and_then(|c| c.streams.get(&m.stream)).copied();
        let granted = match (stream, *channel) {
            (None, _) => true, // crossed with the end of the stream
            (Some(Stream::Exec(id)), 1 | 2) => {
                let exec = self.execs.get_mut(&id);
                exec.is_none_or(|e| e.out[*channel as usize - 1].grant(n))
            }
            (Some(Stream::Job(id)), 0) => self.grant_job(id, n),
            _ => false,
        };
        if granted {
            Ok(())
        } else {
            Err(ProtocolError("WINDOW for no such channel, or too large"))
        }
    }

    fn kill_all(&mut self, conn: u64, m: Message<'_>) -> Handled {
        let signal = signal_field(m.payload)?.unwrap_or(sys::SIGKILL);
        let result = self.signal_everything(signal);
        self.answer(conn, m.stream, result.map(|()| Vec::new()));
        Ok(())
    }

    fn resume(&mut self, conn: u64, m: Message<'_>) -> Handled {
        self.leave_quiesce();
        self.answer(conn, m.stream, Ok(Vec::new()));
        Ok(())
    }

    fn leave_quiesce(&mut self) {
        self.quiesced = false;
        self.mark_all_ready();
    }

    fn shutdown(&mut self, conn: u64, m: Message<'_>) -> Handled {
        self.answer(conn, m.stream, Ok(Vec::new()));
        let _ = self.signal_everything(sys::SIGKILL); // nobody left to kill is fine
        self.stopping = true;
        Ok(())
    }
}

pub(super) fn signal_field(payload: &[u8]) -> Result<Option<i32>, ProtocolError> {
    let mut fields = Fields::new(payload);
    let mut signal = None;
    while let Some((tag, value)) = fields.next()? {
        if tag == 2 {
            signal = Some(as_u32(value)? as i32);
        }
    }
    Ok(signal)
}

/// The exec id in field 1, with field 2 and 3 as numbers where present.
pub(super) struct ExecRef {
    pub exec: u32,
    pub first: Option<u64>,
    pub second: Option<u64>,
    pub third: Option<u64>,
}

pub(super) fn exec_ref(payload: &[u8]) -> Result<ExecRef, ProtocolError> {
    let mut r = ExecRef { exec: 0, first: None, second: None, third: None };
    let mut fields = Fields::new(payload);
    while let Some((tag, value)) = fields.next()? {
        match tag {
            1 => r.exec = as_u32(value)?,
            2 => r.first = Some(as_u64(value)?),
            3 => r.second = Some(as_u64(value)?),
            4 => r.third = Some(as_u64(value)?),
            _ => return Err(ProtocolError("unknown field")),
        }
    }
    Ok(r)
}

pub(super) fn unix_time_ns() -> u64 {
    // Before 1970 the clock is wrong anyway; 0 says so.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}
