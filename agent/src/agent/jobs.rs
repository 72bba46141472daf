//! File operations run on worker threads, at most `RUNNING_MAX` at a time, so
//! that a slow disk never holds up a command's output. A worker talks to the
//! event loop through a bounded queue each way:
//!
//! I1. input held for a job never exceeds `JOB_WINDOW`, which the peer's
//!     credit enforces;
//! I2. a worker waits when it has no credit or `OUTPUT_MAX` waits to be sent;
//! I3. a cancelled job's worker gets an error at its next step and ends.

use super::conn::Stream;
use super::files::{self, Request};
use super::requests::Refusal;
use super::server::Server;
use crate::frame::{code, kind, Message, ProtocolError, MAX_PAYLOAD};
use crate::outbuf::HIGH_WATER;
use crate::sys;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

pub const JOB_WINDOW: usize = 256 * 1024;
const OUTPUT_MAX: usize = 256 * 1024;
const GRANT_STEP: usize = 64 * 1024;
const RUNNING_MAX: usize = 4;
const WAITING_MAX: usize = 64;
const WORKER_STACK: usize = 256 * 1024;

#[derive(Default)]
struct Pipes {
    input: VecDeque<Vec<u8>>,
    input_bytes: usize,
    input_ended: bool,
    consumed: usize,
    output: VecDeque<Vec<u8>>,
    output_bytes: usize,
    credit: u64,
    cancelled: bool,
    result: Option<Result<Vec<u8>, Refusal>>,
}

/// A worker's end of its job.
pub(super) struct Shared {
    pipes: Mutex<Pipes>,
    changed: Condvar,
    wake: Arc<OwnedFd>,
}

pub(super) struct Job {
    conn: u64,
    stream: u32,
    shared: Arc<Shared>,
    request: Option<Request>,
    running: bool,
    /// QUIESCE's own work, which goes on while everything else is held.
    is_quiesce: bool,
}

pub(super) struct Jobs {
    all: BTreeMap<u32, Job>,
    next: u32,
    wake: Arc<OwnedFd>,
}

fn cancelled() -> io::Error {
    io::Error::other("cancelled")
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pipes> {
        // No code panics while holding it; a poisoned lock has intact data.
        self.pipes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify_loop(&self) {
        // Only fails when the counter is full, and then it is readable anyway.
        let _ = sys::write_from(self.wake.as_raw_fd(), &1u64.to_ne_bytes());
    }

    /// The next piece of input, empty at its end.
    pub fn take_input(&self) -> io::Result<Vec<u8>> {
        let mut pipes = self.lock();
        loop {
            if pipes.cancelled {
                return Err(cancelled());
            }
            if let Some(chunk) = pipes.input.pop_front() {
                pipes.input_bytes -= chunk.len();
                pipes.consumed += chunk.len();
                if pipes.consumed >= GRANT_STEP || pipes.input.is_empty() {
                    self.notify_loop();
                }
                return Ok(chunk);
            }
            if pipes.input_ended {
                return Ok(Vec::new());
            }
            pipes = self.changed.wait(pipes).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Queues output, waiting for credit and room.
    pub fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        let mut pipes = self.lock();
        while !bytes.is_empty() {
            if pipes.cancelled {
                return Err(cancelled());
            }
            let room = OUTPUT_MAX.saturating_sub(pipes.output_bytes);
            let n = bytes.len().min(MAX_PAYLOAD).min(room).min(pipes.credit.min(usize::MAX as u64) as usize);
            if n == 0 {
                self.notify_loop();
                pipes = self.changed.wait(pipes).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (now, later) = bytes.split_at(n);
            bytes = later;
            pipes.credit -= n as u64;
            pipes.output_bytes += n;
            // Small pieces join: a tar stream is made of 512-byte blocks.
            match pipes.output.back_mut() {
                Some(last) if last.len() + n <= MAX_PAYLOAD => last.extend_from_slice(now),
                _ => pipes.output.push_back(now.to_vec()),
            }
            if pipes.output_bytes >= MAX_PAYLOAD {
                self.notify_loop();
            }
        }
        Ok(())
    }

    fn finish(&self, result: Result<Vec<u8>, Refusal>) {
        self.lock().result = Some(result);
        self.notify_loop();
    }
}

impl Jobs {
    pub fn new() -> io::Result<Jobs> {
        Ok(Jobs { all: BTreeMap::new(), next: 1, wake: Arc::new(sys::eventfd()?) })
    }

    pub fn wake_fd(&self) -> i32 {
        self.wake.as_raw_fd()
    }

    /// Whether `pump_jobs` could send something at once.
    pub fn has_sendable(&self, quiesced: bool, has_room: impl Fn(u64) -> bool) -> bool {
        self.all
            .values()
            .filter(|job| job.is_quiesce || !quiesced)
            .any(|job| has_room(job.conn) && !job.shared.lock().output.is_empty())
    }

    fn running(&self) -> usize {
        self.all.values().filter(|j| j.running).count()
    }
}

impl Server {
    pub(super) fn start_job(&mut self, conn: u64, m: Message<'_>) -> Result<(), ProtocolError> {
        let is_quiesce = m.kind == kind::QUIESCE;
        let request = match files::parse(m.kind, m.payload)? {
            Ok(request) => request,
            Err(refusal) => {
                self.answer(conn, m.stream, Err(refusal));
                return Ok(());
            }
        };
        if self.jobs.all.len() >= RUNNING_MAX + WAITING_MAX {
            let refusal = Refusal::new(code::LIMIT, "too many file operations at once");
            self.answer(conn, m.stream, Err(refusal));
            return Ok(());
        }
        if is_quiesce {
            self.quiesced = true;
        }
        let id = self.jobs.next;
        self.jobs.next = self.jobs.next.wrapping_add(1).max(1);
        let pipes = Pipes { credit: request.window as u64, ..Pipes::default() };
        let shared =
            Arc::new(Shared { pipes: Mutex::new(pipes), changed: Condvar::new(), wake: self.jobs.wake.clone() });
        let job = Job { conn, stream: m.stream, shared, request: Some(request), running: false, is_quiesce };
        self.jobs.all.insert(id, job);
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.streams.insert(m.stream, Stream::Job(id));
        }
        self.start_waiting();
        Ok(())
    }

    fn start_waiting(&mut self) {
        let mut running = self.jobs.running();
        for job in self.jobs.all.values_mut() {
            // A quiesce must not queue behind work that it holds up.
            if running >= RUNNING_MAX && !job.is_quiesce {
                continue;
            }
            let Some(request) = job.request.take() else { continue };
            let shared = job.shared.clone();
            let worker = move || {
                let result = files::run(request, &shared);
                shared.finish(result);
            };
            job.running = true;
            running += 1;
            let thread = std::thread::Builder::new().stack_size(WORKER_STACK);
            if let Err(err) = thread.spawn(worker) {
                let errno = sys::errno_of(&err);
                let message = "no worker could be started".to_owned();
                job.shared.finish(Err(Refusal { code: code::NO_RESOURCES, errno, message }));
            }
        }
    }

    pub(super) fn job_input(&mut self, conn: u64, m: Message<'_>) -> Result<(), ProtocolError> {
        let stream = self.conns.get(&conn).and_then(|c| c.streams.get(&m.stream)).copied();
        let job = match stream {
            Some(Stream::Job(id)) => self.jobs.all.get(&id),
            Some(Stream::Exec(_)) => return Err(ProtocolError("file data on the stream of a command")),
            None => None, // crossed with the end of the operation
        };
        let Some(job) = job else { return Ok(()) };
        let mut pipes = job.shared.lock();
        match m.kind {
            kind::CANCEL => pipes.cancelled = true,
            kind::DATA_END => pipes.input_ended = true,
            _ if pipes.input_ended => return Err(ProtocolError("DATA after its end")),
            _ if pipes.input_bytes + pipes.consumed + m.payload.len() > JOB_WINDOW => {
                return Err(ProtocolError("DATA beyond its window"));
            }
            _ => {
                pipes.input_bytes += m.payload.len();
                pipes.input.push_back(m.payload.to_vec());
            }
        }
        drop(pipes);
        job.shared.changed.notify_all();
        Ok(())
    }

    pub(super) fn grant_job(&mut self, id: u32, n: u64) -> bool {
        let Some(job) = self.jobs.all.get(&id) else { return true };
        let mut pipes = job.shared.lock();
        pipes.credit += n;
        let sane = pipes.credit <= u32::MAX as u64;
        drop(pipes);
        job.shared.changed.notify_all();
        sane
    }

    pub(super) fn cancel_job(&mut self, id: u32) {
        if let Some(job) = self.jobs.all.get(&id) {
            job.shared.lock().cancelled = true;
            job.shared.changed.notify_all();
        }
    }

    pub(super) fn clear_job_wake(&mut self) {
        let mut count = [0u8; 8];
        let _ = sys::read_into(self.jobs.wake_fd(), &mut count); // empty is as good
    }

    /// Moves what workers produced, and frees those that are done.
    pub(super) fn pump_jobs(&mut self) {
        let mut done = Vec::new();
        for (id, job) in &mut self.jobs.all {
            if self.quiesced && !job.is_quiesce {
                continue;
            }
            let mut pipes = job.shared.lock();
            let Some(conn) = self.conns.get_mut(&job.conn).filter(|c| !c.dead) else {
                pipes.cancelled = true;
                if pipes.result.is_some() || !job.running {
                    done.push(*id);
                }
                continue;
            };
            let consumed = std::mem::take(&mut pipes.consumed);
            if consumed > 0 && pipes.result.is_none() {
                let mut grant = [0u8; 5];
                grant[1..].copy_from_slice(&(consumed as u32).to_le_bytes());
                conn.out.message(kind::WINDOW, job.stream, &grant);
            }
            let mut moved = false;
            while conn.out.pending() < HIGH_WATER {
                let Some(chunk) = pipes.output.pop_front() else { break };
                pipes.output_bytes -= chunk.len();
                conn.out.message(kind::DATA, job.stream, &chunk);
                moved = true;
            }
            if moved {
                job.shared.changed.notify_all();
            }
            if pipes.cancelled && !job.running && pipes.result.is_none() {
                pipes.result = Some(Err(Refusal::new(code::CANCELLED, "cancelled")));
            }
            if pipes.output.is_empty() {
                if let Some(result) = pipes.result.take() {
                    conn.streams.remove(&job.stream);
                    match result {
                        Ok(payload) => conn.out.message(kind::OK, job.stream, &payload),
                        Err(refusal) => conn.out.message(kind::ERROR, job.stream, &refusal.payload()),
                    }
                    done.push(*id);
                }
            }
        }
        if !done.is_empty() {
            for id in done {
                self.jobs.all.remove(&id);
            }
            self.start_waiting();
        }
    }
}
