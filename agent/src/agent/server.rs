//! The event loop: who is ready, who is owed what, when to look again.
//!
//! Exec pipes and connections are registered edge-triggered and remembered as
//! ready until they would block. So flow control costs no system call, and a
//! hung-up pipe that may not be read yet does not spin the loop.

use super::conn::{Conn, Stream};
use super::exec::{Exec, OnDisconnect};
use super::jobs::Jobs;
use crate::cgroup;
use crate::frame::{kind, FrameReader};
use crate::outbuf::REPLY_LIMIT;
use crate::spawn::{Rlimit, Spawner};
use crate::sys::{self, Epoll, EpollEvent};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub const MAX_CONNECTIONS: usize = 8;
pub const MAX_EXECS: usize = 1024;
/// Ended execs that nobody attached to, kept for a later attachment.
const MAX_ENDED_KEPT: usize = 64;
/// Pipes held open by processes that outlive their command.
const MAX_SINKS: usize = 256;
/// Input taken from one connection before everything else gets its turn.
const READS_PER_TURN: usize = 8;
/// While frozen state may be restored around us, look without being woken.
const QUIESCED_TICK: Duration = Duration::from_millis(50);

pub enum Transport {
    /// A unix socket at this path.
    Listen(PathBuf),
    /// Descriptors 0 and 1.
    Stdio,
}

pub struct Options {
    pub transport: Transport,
    /// Accept peers of our own PID namespace too. For tests outside a container.
    pub allow_local_peers: bool,
}

pub(super) const TOKEN_SIGNAL: u64 = 1 << 56;
pub(super) const TOKEN_LISTENER: u64 = 2 << 56;
pub(super) const TOKEN_CONN: u64 = 3 << 56;
pub(super) const TOKEN_STDOUT: u64 = 4 << 56;
pub(super) const TOKEN_STDERR: u64 = 5 << 56;
pub(super) const TOKEN_STDIN: u64 = 6 << 56;
pub(super) const TOKEN_SINK: u64 = 7 << 56;
const TOKEN_JOBS: u64 = 8 << 56;
const TOKEN_KIND: u64 = 0xff << 56;

struct Listener {
    socket: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
}

/// A pipe that a daemonised process still writes to; its output goes nowhere,
/// so that it is neither blocked nor killed by SIGPIPE.
struct Sink {
    fd: OwnedFd,
    ready: bool,
}

pub struct Server {
    pub(super) epoll: Epoll,
    signals: OwnedFd,
    listener: Option<Listener>,
    allow_local_peers: bool,
    pub(super) conns: BTreeMap<u64, Conn>,
    pub(super) execs: BTreeMap<u32, Exec>,
    pub(super) by_pid: HashMap<i32, u32>,
    sinks: BTreeMap<u64, Sink>,
    pub(super) jobs: Jobs,
    pub(super) spawner: Spawner,
    pub(super) null: OwnedFd,
    pub(super) nofile: Option<Rlimit>,
    pub(super) next_exec: u32,
    next_token: u64,
    scratch: Vec<u8>,
    pub(super) oom_seen: Option<u64>,
    pub(super) orphans_reaped: u64,
    /// Set between QUIESCE and RESUME or the next greeting.
    pub(super) quiesced: bool,
    pub(super) sandbox_id: Vec<u8>,
    pub(super) stopping: bool,
}

impl Server {
    /// Prepares the process (signals, descriptors, hardening) and opens the
    /// transport. With a socket, announces readiness on descriptor 1 and then
    /// lets go of the inherited descriptors: a checkpoint then has no pipe
    /// that leads outside.
    pub fn start(options: Options) -> io::Result<Server> {
        let stdio = match options.transport {
            Transport::Stdio => Some((sys::dup_above(0, 3)?, sys::dup_above(1, 3)?)),
            Transport::Listen(_) => None,
        };
        sys::keep_heap_small();
        sys::close_inherited_but(stdio.as_ref().map(|(input, output)| [input.as_raw_fd(), output.as_raw_fd()]));
        let signals = sys::block_signals()?;
        sys::forbid_inspection()?;
        if sys::getpid() != 1 {
            sys::become_subreaper()?;
        }
        let null = fs::File::options().read(true).write(true).open("/dev/null")?;
        if !null.metadata()?.file_type().is_char_device() {
            return Err(io::Error::other("/dev/null is not a device"));
        }
        let null = sys::dup_above(null.as_raw_fd(), 3)?;
        let nofile = sys::raise_nofile().ok().map(|[soft, hard]| Rlimit {
            resource: sys::nofile_resource(),
            soft,
            hard,
        });
        let mut server = Server {
            epoll: Epoll::new()?,
            signals,
            listener: None,
            allow_local_peers: options.allow_local_peers,
            conns: BTreeMap::new(),
            execs: BTreeMap::new(),
            by_pid: HashMap::new(),
            sinks: BTreeMap::new(),
            jobs: Jobs::new()?,
            spawner: Spawner::new(),
            null,
            nofile,
            next_exec: 1,
            next_token: 1,
            scratch: vec![0; 64 * 1024],
            oom_seen: cgroup::oom_kills(),
            orphans_reaped: 0,
            quiesced: false,
            sandbox_id: Vec::new(),
            stopping: false,
        };
        server.epoll.add(server.signals.as_raw_fd(), sys::EPOLLIN, TOKEN_SIGNAL)?;
        server.epoll.add(server.jobs.wake_fd(), sys::EPOLLIN, TOKEN_JOBS)?;
        match (options.transport, stdio) {
            (Transport::Listen(path), _) => {
                server.listen(path)?;
                sys::write_from(1, b"faas-agent ready\n")?;
                for fd in 0..3 {
                    sys::replace_fd(server.null.as_raw_fd(), fd)?;
                }
            }
            (Transport::Stdio, Some((input, output))) => {
                // Descriptor 2 stays for whoever debugs the runtime; the
                // protocol never touches it and children never inherit it.
                sys::replace_fd(server.null.as_raw_fd(), 0)?;
                sys::replace_fd(server.null.as_raw_fd(), 1)?;
                sys::set_nonblocking(input.as_raw_fd())?;
                sys::set_nonblocking(output.as_raw_fd())?;
                server.add_conn(input, Some(output))?;
            }
            (Transport::Stdio, None) => return Err(sys::os_error(sys::EINVAL)),
        }
        Ok(server)
    }

    /// Runs until SHUTDOWN, or until the inherited pipes close.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent { events: 0, data: 0 }; 64];
        let mut wake_at: Option<Instant> = None;
        loop {
            let timeout = self.timeout_ms(wake_at);
            let n = self.epoll.wait(&mut events, timeout)?;
            for event in &events[..n] {
                self.note(event.data, event.events);
            }
            if self.quiesced {
                self.expect_restored_descriptors();
            }
            self.read_conns();
            wake_at = self.pump();
            self.flush_conns();
            if self.stopping && self.conns.values().all(|c| c.out.pending() == 0) {
                return Ok(());
            }
        }
    }

    fn timeout_ms(&self, wake_at: Option<Instant>) -> i32 {
        if self.is_runnable() {
            return 0;
        }
        let mut left = wake_at.map(|at| at.saturating_duration_since(Instant::now()));
        if self.quiesced {
            left = Some(left.map_or(QUIESCED_TICK, |l| l.min(QUIESCED_TICK)));
        }
        // Rounded up: waking early would find nothing due and spin.
        left.map_or(-1, |l| l.as_micros().div_ceil(1000).min(60_000) as i32)
    }

    fn is_runnable(&self) -> bool {
        let takes_input = |c: &Conn| c.readable && !c.closing && !c.dead && c.out.pending() < REPLY_LIMIT;
        self.conns.values().any(takes_input)
            || self.sinks.values().any(|s| s.ready)
            || self.jobs.has_sendable(self.quiesced, |conn| self.conns.get(&conn).is_some_and(|c| c.out.room() > 0))
            || (!self.quiesced && self.execs.values().any(|e| e.is_runnable(self.room_for(e))))
    }

    fn room_for(&self, exec: &Exec) -> Option<usize> {
        let conn = self.conns.get(&exec.attached?.conn)?;
        Some(conn.out.room())
    }

    fn note(&mut self, token: u64, events: u32) {
        let id = token & !TOKEN_KIND;
        let gone = events & (sys::EPOLLHUP | sys::EPOLLERR) != 0;
        match token & TOKEN_KIND {
            TOKEN_SIGNAL => self.reap_all(),
            TOKEN_LISTENER => self.accept_all(),
            TOKEN_JOBS => self.clear_job_wake(),
            TOKEN_CONN => {
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.readable |= gone || events & (sys::EPOLLIN | sys::EPOLLRDHUP) != 0;
                    conn.writable |= gone || events & sys::EPOLLOUT != 0;
                }
            }
            TOKEN_STDOUT | TOKEN_STDERR => {
                let index = (token & TOKEN_KIND == TOKEN_STDERR) as usize;
                if let Some(exec) = self.execs.get_mut(&(id as u32)) {
                    exec.out[index].ready = true;
                }
            }
            TOKEN_STDIN => {
                if let Some(stdin) = self.execs.get_mut(&(id as u32)).and_then(|e| e.stdin.as_mut()) {
                    stdin.writable = true;
                }
            }
            TOKEN_SINK => {
                if let Some(sink) = self.sinks.get_mut(&id) {
                    sink.ready = true;
                }
            }
            _ => {}
        }
    }

    /// A checkpoint may give us new pipes behind old numbers and lose edges:
    /// until the host speaks again, nothing is believed to be "not ready".
    fn expect_restored_descriptors(&mut self) {
        for conn in self.conns.values_mut() {
            conn.readable = true;
            conn.writable = true;
        }
        self.accept_all();
    }

    pub(super) fn mark_all_ready(&mut self) {
        for exec in self.execs.values_mut() {
            for channel in &mut exec.out {
                channel.ready = true;
            }
            if let Some(stdin) = &mut exec.stdin {
                stdin.writable = true;
            }
        }
        self.reap_all();
    }

    // ---- the socket ---------------------------------------------------------

    fn listen(&mut self, path: PathBuf) -> io::Result<()> {
        let listener = bind(&path)?;
        self.epoll.add(listener.socket.as_raw_fd(), sys::EPOLLIN, TOKEN_LISTENER)?;
        self.listener = Some(listener);
        Ok(())
    }

    /// The guest may delete the socket file. Without a connection nobody could
    /// tell us to make it again, so it is looked after whenever we have none.
    fn mend_listener(&mut self) {
        if !self.conns.is_empty() {
            return;
        }
        let Some(listener) = &self.listener else { return };
        if inode_of(&listener.path) == Some(listener.inode) {
            return;
        }
        let path = listener.path.clone();
        // On failure (a full or read-only disk) the next wake-up tries again.
        if let Ok(fresh) = bind(&path) {
            if self.epoll.add(fresh.socket.as_raw_fd(), sys::EPOLLIN, TOKEN_LISTENER).is_ok() {
                self.listener = Some(fresh);
            }
        }
    }

    fn accept_all(&mut self) {
        while let Some(listener) = &self.listener {
            let Ok(socket) = sys::accept(listener.socket.as_raw_fd()) else { return };
            // A process of this sandbox has a number in our namespace; the
            // host's processes do not, and read as 0.
            let foreign = sys::peer_pid(socket.as_raw_fd()).is_ok_and(|pid| pid == 0);
            if !foreign && !self.allow_local_peers {
                continue;
            }
            if self.conns.len() >= MAX_CONNECTIONS {
                let Some(silent) = self.conns.values().find(|c| !c.greeted).map(|c| c.id) else { continue };
                self.drop_conn(silent);
            }
            if let Err(err) = self.add_conn(socket, None) {
                eprintln!("faas-agent: a connection could not be watched: {err}");
            }
        }
    }

    fn add_conn(&mut self, input: OwnedFd, output: Option<OwnedFd>) -> io::Result<()> {
        let id = self.next_token;
        self.next_token += 1;
        let watch = sys::EPOLLIN | sys::EPOLLRDHUP | sys::EPOLLET;
        match &output {
            None => self.epoll.add(input.as_raw_fd(), watch | sys::EPOLLOUT, TOKEN_CONN | id)?,
            Some(output) => {
                self.epoll.add(input.as_raw_fd(), watch, TOKEN_CONN | id)?;
                self.epoll.add(output.as_raw_fd(), sys::EPOLLOUT | sys::EPOLLET, TOKEN_CONN | id)?;
            }
        }
        self.conns.insert(id, Conn::new(id, input, output));
        Ok(())
    }

    // ---- input --------------------------------------------------------------

    fn read_conns(&mut self) {
        let ids: Vec<u64> = self.conns.keys().copied().collect();
        for id in ids {
            for _ in 0..READS_PER_TURN {
                if !self.read_conn(id) {
                    break;
                }
            }
        }
    }

    /// Takes one read's worth of input. False when there is no more for now.
    fn read_conn(&mut self, id: u64) -> bool {
        let Some(conn) = self.conns.get_mut(&id) else { return false };
        if conn.dead || conn.closing || !conn.readable || conn.out.pending() >= REPLY_LIMIT {
            return false;
        }
        let fd = conn.input_fd();
        match sys::read_into(fd, conn.reader.space()) {
            Ok(0) => {
                conn.dead = true;
                return false;
            }
            Ok(n) => conn.reader.filled(n),
            Err(err) if sys::would_block(&err) => {
                conn.readable = false;
                return false;
            }
            Err(_) => {
                conn.dead = true;
                return false;
            }
        }
        self.handle_input(id);
        true
    }

    fn handle_input(&mut self, id: u64) {
        // The reader is taken out so that a message can borrow it while the
        // rest of the server acts on the message.
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let mut reader = std::mem::replace(&mut conn.reader, FrameReader::placeholder());
        loop {
            let result = match reader.next() {
                Ok(Some(message)) => self.handle(id, message),
                Ok(None) => break,
                Err(err) => Err(err),
            };
            if let Err(err) = result {
                self.refuse(id, err);
                break;
            }
            if self.conns.get(&id).is_none_or(|c| c.closing) {
                break;
            }
        }
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.reader = reader;
        }
    }

    // ---- output -------------------------------------------------------------

    /// Moves what can be moved; returns the next moment something falls due.
    fn pump(&mut self) -> Option<Instant> {
        self.drain_sinks();
        self.pump_jobs();
        if self.quiesced {
            return None;
        }
        let mut due: Option<Instant> = None;
        let now = Instant::now();
        let ids: Vec<u32> = self.execs.keys().copied().collect();
        for id in ids {
            let at = self.pump_exec(id, now);
            due = match (due, at) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        due
    }

    fn pump_exec(&mut self, id: u32, now: Instant) -> Option<Instant> {
        let exec = self.execs.get_mut(&id)?;
        let epoll = &self.epoll;
        let grant = exec.pump_stdin(|fd| {
            let watch = sys::EPOLLOUT | sys::EPOLLET;
            epoll.add(fd.as_raw_fd(), watch, TOKEN_STDIN | id as u64)
        });
        let mut conn = exec.attached.and_then(|a| self.conns.get_mut(&a.conn)).filter(|c| !c.dead);
        if let (true, Some(conn), Some(attached)) = (grant > 0, conn.as_mut(), exec.attached) {
            let mut payload = [0u8; 5];
            payload[1..].copy_from_slice(&(grant as u32).to_le_bytes());
            conn.out.message(kind::WINDOW, attached.stream, &payload);
        }
        exec.pump_output(conn.map(|c| &mut c.out), &mut self.scratch);
        let (left_open, due) = exec.settle(now);
        for fd in left_open {
            self.add_sink(fd);
        }
        self.report_end(id);
        due
    }

    fn add_sink(&mut self, fd: OwnedFd) {
        if self.sinks.len() >= MAX_SINKS {
            self.sinks.pop_first();
        }
        let token = self.next_token;
        self.next_token += 1;
        // The descriptor is already watched under its exec's token; a
        // duplicate can carry its own.
        let Ok(copy) = sys::dup_above(fd.as_raw_fd(), 3) else { return };
        drop(fd);
        if self.epoll.add(copy.as_raw_fd(), sys::EPOLLIN | sys::EPOLLET, TOKEN_SINK | token).is_ok() {
            self.sinks.insert(token, Sink { fd: copy, ready: true });
        }
    }

    fn drain_sinks(&mut self) {
        let scratch = &mut self.scratch;
        self.sinks.retain(|_, sink| {
            if !sink.ready {
                return true;
            }
            match sys::read_into(sink.fd.as_raw_fd(), scratch) {
                Ok(0) => false,
                Ok(_) => true,
                Err(err) if sys::would_block(&err) => {
                    sink.ready = false;
                    true
                }
                Err(_) => false,
            }
        });
    }

    fn flush_conns(&mut self) {
        let mut dead = Vec::new();
        for conn in self.conns.values_mut() {
            conn.flush();
            if conn.dead || (conn.closing && conn.out.pending() == 0) {
                dead.push(conn.id);
            }
        }
        for id in dead {
            self.drop_conn(id);
        }
        self.mend_listener();
    }

    /// Forgets a connection; what it ran goes on or ends by its own policy.
    pub(super) fn drop_conn(&mut self, id: u64) {
        let Some(conn) = self.conns.remove(&id) else { return };
        self.release_streams(&conn.streams);
        if conn.is_stdio {
            self.stopping = true; // nobody can ever reach us again
        }
    }

    pub(super) fn release_streams(&mut self, streams: &HashMap<u32, Stream>) {
        for stream in streams.values() {
            match stream {
                Stream::Exec(exec_id) => self.detach(*exec_id),
                Stream::Job(job_id) => self.cancel_job(*job_id),
            }
        }
    }

    fn detach(&mut self, exec_id: u32) {
        let quiesced = self.quiesced;
        let Some(exec) = self.execs.get_mut(&exec_id) else { return };
        exec.attached = None;
        // A connection closed for a checkpoint is not a lost host.
        if exec.policy == OnDisconnect::Kill && !quiesced {
            exec.abandoned = true;
            exec.stdin = None;
            if exec.ended.is_none() {
                let _ = sys::kill(-exec.pid, sys::SIGKILL); // gone already is as good
            }
        }
    }

    // ---- children -----------------------------------------------------------

    pub(super) fn reap_all(&mut self) {
        let mut buf = [0u8; 1024];
        while matches!(sys::read_into(self.signals.as_raw_fd(), &mut buf), Ok(n) if n > 0) {}
        let now = Instant::now();
        while let Some(reaped) = sys::reap(-1, false) {
            match self.by_pid.remove(&reaped.pid).and_then(|id| self.execs.get_mut(&id)) {
                Some(exec) => {
                    let oom = if reaped.status == 0 { 1 } else { oom_hint(&mut self.oom_seen) };
                    exec.note_end(&reaped, oom, now);
                }
                None => self.orphans_reaped += 1,
            }
        }
    }

    /// Keeps the number of ended, unclaimed execs bounded.
    pub(super) fn evict_ended(&mut self) {
        let ended: Vec<u32> = self
            .execs
            .values()
            .filter(|e| e.finished && e.attached.is_none())
            .map(|e| e.id)
            .collect();
        for id in ended.iter().take(ended.len().saturating_sub(MAX_ENDED_KEPT)) {
            self.execs.remove(id);
        }
    }
}

/// 0 unknown, 1 no, 2 yes: a kill was counted since the last look.
fn oom_hint(seen: &mut Option<u64>) -> u8 {
    match (cgroup::oom_kills(), *seen) {
        (Some(now), Some(before)) => {
            *seen = Some(now);
            1 + (now > before) as u8
        }
        (now, _) => {
            *seen = now;
            0
        }
    }
}

fn bind(path: &Path) -> io::Result<Listener> {
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty() && !p.exists()) {
        fs::create_dir_all(parent)?;
        fs::set_permissions(parent, fs::Permissions::from_mode(0o700))?;
    }
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let socket = UnixListener::bind(path)?;
    socket.set_nonblocking(true)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let inode = inode_of(path).ok_or_else(|| sys::os_error(sys::ENOENT))?;
    Ok(Listener { socket, path: path.to_owned(), inode })
}

fn inode_of(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|m| (m.dev(), m.ino()))
}
