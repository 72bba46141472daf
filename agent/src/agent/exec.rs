//! One running command: its pipes, cursors, credit and end.
//!
//! I1. A channel's bytes leave in order; `sent <= seen`, and without a ring
//!     `sent == seen`: nothing is buffered here.
//! I2. Never more bytes are sent than the peer granted (`credit`).
//! I3. EXIT is sent once per attachment, after every byte counted in it.

use crate::frame::kind;
use crate::outbuf::{read_append, OutBuf};
use crate::ring::Ring;
use crate::sys;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Unconsumed stdin bytes that a peer may have in flight per exec.
pub const STDIN_WINDOW: usize = 256 * 1024;
/// Consumed stdin is granted again in steps of at least this, or when idle.
const STDIN_GRANT_STEP: usize = 64 * 1024;
/// Frames read from one channel before others get their turn.
const FRAMES_PER_TURN: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnDisconnect {
    Kill,
    /// Runs on; output beyond the ring replaces the oldest.
    KeepNewest,
    /// Runs on; it is slowed when the ring holds unread output.
    KeepAll,
}

#[derive(Clone, Copy)]
pub struct Attachment {
    pub conn: u64,
    pub stream: u32,
}

pub struct Channel {
    pub fd: Option<OwnedFd>,
    /// The descriptor may have bytes or an end we have not seen yet.
    pub ready: bool,
    pub ring: Option<Ring>,
    /// Bytes read from the process, and bytes sent to the peer.
    pub seen: u64,
    pub sent: u64,
    acked: u64,
    credit: u64,
    /// Bytes that were in the pipe when the process ended: never cut off.
    must_read: u64,
}

impl Channel {
    pub fn new(fd: Option<OwnedFd>, ring_bytes: usize, credit: u64) -> Channel {
        Channel {
            fd,
            ready: true,
            ring: (ring_bytes > 0).then(|| Ring::new(ring_bytes)),
            seen: 0,
            sent: 0,
            acked: 0,
            credit,
            must_read: 0,
        }
    }

    /// The oldest byte that an attachment can still ask for.
    pub fn base(&self) -> u64 {
        self.ring.as_ref().map_or(self.sent, Ring::base)
    }

    pub fn attach(&mut self, cursor: u64, credit: u64) {
        self.sent = cursor;
        self.acked = cursor;
        self.credit = credit;
    }

    /// False when the peer grants more than it ever could have received.
    pub fn grant(&mut self, n: u64) -> bool {
        self.credit += n;
        self.acked = (self.acked + n).min(self.sent);
        self.credit <= u32::MAX as u64
    }

    /// How many bytes may be read from the process now.
    fn appetite(&self, attached: bool, policy: OnDisconnect, room: usize) -> usize {
        match &self.ring {
            None if attached => (self.credit.min(room as u64)) as usize,
            None => 0,
            Some(ring) => match (attached, policy) {
                (false, OnDisconnect::KeepNewest) => usize::MAX,
                (_, OnDisconnect::KeepAll) => ring.free_from(self.acked),
                (true, _) => ring.free_from(self.sent),
                (false, OnDisconnect::Kill) => 0,
            },
        }
    }

    fn has_unsent(&self) -> bool {
        self.sent < self.seen
    }

    fn end(&mut self) {
        self.fd = None;
        self.ready = false;
        self.must_read = 0;
    }
}

pub struct Stdin {
    pub fd: OwnedFd,
    pub buf: VecDeque<u8>,
    pub close_when_empty: bool,
    /// Whether a would-block registered the descriptor, and its last event.
    pub registered: bool,
    pub writable: bool,
    pub is_terminal: bool,
    /// Bytes taken from the peer against its window, still in `buf`.
    pub owed: usize,
    pub consumed: usize,
}

pub struct Ended {
    pub status: i32,
    pub user_us: u64,
    pub system_us: u64,
    pub maxrss_bytes: u64,
    pub wall_us: u64,
    /// 0 unknown, 1 no, 2 yes.
    pub oom: u8,
    at: Instant,
    settled_at: Option<Instant>,
    last_data: Instant,
}

pub struct Exec {
    pub id: u32,
    pub pid: i32,
    pub name: Vec<u8>,
    pub started: Instant,
    pub policy: OnDisconnect,
    pub attached: Option<Attachment>,
    /// Stdout and stderr; a terminal has the first only.
    pub out: [Channel; 2],
    pub stdin: Option<Stdin>,
    pub terminal: Option<OwnedFd>,
    pub drain: Duration,
    pub ended: Option<Ended>,
    /// The end is settled: no more output will be read.
    pub finished: bool,
    pub drain_expired: bool,
    /// Nobody wants its output any more; it only waits to be reaped.
    pub abandoned: bool,
}

impl Exec {
    /// Reads from the process and queues frames. True when more could be done
    /// at once if `out` were empty.
    pub fn pump_output(&mut self, out: Option<&mut OutBuf>, scratch: &mut [u8]) {
        let attached = out.is_some() && self.attached.is_some();
        let mut nowhere = OutBuf::default();
        let out = out.unwrap_or(&mut nowhere);
        let stream = self.attached.map_or(0, |a| a.stream);
        let mut got_data = false;
        for (index, channel) in self.out.iter_mut().enumerate() {
            let frame_kind = if index == 0 { kind::STDOUT } else { kind::STDERR };
            for _ in 0..FRAMES_PER_TURN {
                if !channel.ready {
                    break;
                }
                let Some(fd) = channel.fd.as_ref().map(|fd| fd.as_raw_fd()) else { break };
                let want = if self.abandoned {
                    usize::MAX
                } else {
                    channel.appetite(attached, self.policy, out.room())
                };
                if want == 0 {
                    break;
                }
                let result = if channel.ring.is_none() && !self.abandoned {
                    out.data(frame_kind, stream, want, |buf, max| read_append(fd, buf, max))
                } else {
                    let max = want.min(scratch.len());
                    sys::read_into(fd, &mut scratch[..max])
                };
                match result {
                    Ok(0) => channel.end(),
                    Ok(n) => {
                        got_data = true;
                        channel.seen += n as u64;
                        channel.must_read = channel.must_read.saturating_sub(n as u64);
                        match &mut channel.ring {
                            Some(ring) if !self.abandoned => ring.push(&scratch[..n]),
                            Some(_) => channel.sent = channel.seen,
                            None => {
                                channel.sent = channel.seen;
                                channel.credit = channel.credit.saturating_sub(n as u64);
                            }
                        }
                    }
                    Err(err) if sys::would_block(&err) => channel.ready = false,
                    // A terminal whose last user is gone answers EIO: its end.
                    Err(_) => channel.end(),
                }
            }
            if attached {
                send_from_ring(channel, frame_kind, stream, out);
            }
        }
        if got_data {
            if let Some(ended) = &mut self.ended {
                ended.last_data = Instant::now();
            }
        }
    }

    /// Whether `pump_output` would make progress without a new event.
    pub fn is_runnable(&self, room: Option<usize>) -> bool {
        let attached = room.is_some() && self.attached.is_some();
        let room = room.unwrap_or(0);
        self.out.iter().any(|channel| {
            let can_read = channel.ready
                && channel.fd.is_some()
                && (self.abandoned || channel.appetite(attached, self.policy, room) > 0);
            let can_send = attached
                && channel.ring.is_some()
                && channel.has_unsent()
                && channel.credit > 0
                && room > 0;
            can_read || can_send
        })
    }

    /// Writes buffered stdin. Returns how many bytes may be granted again.
    pub fn pump_stdin(&mut self, register: impl Fn(&OwnedFd) -> io::Result<()>) -> usize {
        let Some(stdin) = &mut self.stdin else { return 0 };
        let mut broken = false;
        while stdin.writable && !stdin.buf.is_empty() {
            match sys::write_from(stdin.fd.as_raw_fd(), stdin.buf.as_slices().0) {
                Ok(n) => {
                    stdin.buf.drain(..n);
                    let granted = n.min(stdin.owed);
                    stdin.owed -= granted;
                    stdin.consumed += granted;
                }
                Err(err) if err.raw_os_error() == Some(sys::EINTR) => continue,
                Err(err) if sys::would_block(&err) => {
                    stdin.writable = false;
                    if !stdin.registered {
                        stdin.registered = true;
                        broken = register(&stdin.fd).is_err();
                    }
                }
                Err(_) => {
                    broken = true; // the reader is gone; what it did not read is dropped
                    break;
                }
            }
        }
        if broken {
            stdin.consumed += stdin.owed;
            stdin.owed = 0;
            stdin.buf.clear();
        }
        let grant = if stdin.consumed >= STDIN_GRANT_STEP || stdin.buf.is_empty() {
            std::mem::take(&mut stdin.consumed)
        } else {
            0
        };
        if broken || (stdin.buf.is_empty() && stdin.close_when_empty) {
            self.stdin = None;
        }
        grant
    }

    pub fn note_end(&mut self, reaped: &sys::Reaped, oom: u8, now: Instant) {
        let us = |t: sys::Timeval| (t.sec as u64) * 1_000_000 + t.usec as u64;
        self.ended = Some(Ended {
            status: reaped.status,
            user_us: us(reaped.usage.user),
            system_us: us(reaped.usage.system),
            maxrss_bytes: reaped.usage.maxrss_kib as u64 * 1024,
            wall_us: now.duration_since(self.started).as_micros() as u64,
            oom,
            at: now,
            settled_at: None,
            last_data: now,
        });
        self.stdin = None;
        for channel in &mut self.out {
            if let Some(fd) = &channel.fd {
                channel.must_read = sys::bytes_waiting(fd.as_raw_fd());
                channel.ready = true;
            }
        }
    }

    /// Settles the end when all output was read, or when a process that
    /// outlives the command keeps a pipe open. Returns descriptors that are
    /// still open, and when to look again.
    pub fn settle(&mut self, now: Instant) -> (Vec<OwnedFd>, Option<Instant>) {
        let Some(ended) = &mut self.ended else { return (Vec::new(), None) };
        if self.finished {
            return (Vec::new(), None);
        }
        if self.out.iter().all(|c| c.fd.is_none()) {
            self.finished = true;
            self.terminal = None;
            return (Vec::new(), None);
        }
        if self.out.iter().any(|c| c.must_read > 0) {
            return (Vec::new(), None); // held up by the reader, not by the clock
        }
        let settled_at = *ended.settled_at.get_or_insert(now);
        let idle = self.out.iter().all(|c| c.fd.is_none() || !c.ready);
        let hard = settled_at + self.drain * 10;
        let due = if idle { hard.min(ended.last_data.max(ended.at) + self.drain) } else { hard };
        if now < due {
            return (Vec::new(), Some(due));
        }
        self.finished = true;
        self.drain_expired = true;
        self.terminal = None;
        (self.out.iter_mut().filter_map(|c| c.fd.take()).collect(), None)
    }

    /// True when the peer has every byte and may get EXIT.
    pub fn all_sent(&self) -> bool {
        self.out.iter().all(|c| !c.has_unsent())
    }
}

fn send_from_ring(channel: &mut Channel, frame_kind: u8, stream: u32, out: &mut OutBuf) {
    let Some(ring) = &channel.ring else { return };
    while channel.sent < channel.seen && channel.credit > 0 && out.room() > 0 {
        let max = channel.credit.min(out.room() as u64).min(channel.seen - channel.sent) as usize;
        let copied = out.data::<()>(frame_kind, stream, max, |buf, max| {
            Ok(ring.copy_from(channel.sent, max, buf))
        });
        let n = copied.unwrap_or(0);
        if n == 0 {
            return;
        }
        channel.sent += n as u64;
        channel.credit -= n as u64;
    }
}
