//! Requests about commands: start, feed, signal, attach, list, forget.

use super::conn::Stream;
use super::exec::{Attachment, Channel, Exec, OnDisconnect, Stdin, STDIN_WINDOW};
use super::exec_request::{self, ExecRequest, Rejected, StdinMode, DEFAULT_WINDOW};
use super::requests::{exec_ref, Refusal};
use super::server::{Server, MAX_EXECS, TOKEN_STDERR, TOKEN_STDOUT};
use crate::fields::FieldWriter;
use crate::frame::{code, kind, Message, ProtocolError};
use crate::spawn::{Plan, SpawnError, Step};
use crate::{pty, sys, users};
use std::collections::VecDeque;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

const PATH_MAX: usize = 4096;

type Handled = Result<(), ProtocolError>;

/// Both ends of a command's standard streams.
struct Streams {
    child: [RawFd; 3],
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    /// Ends for the child, closed here once it has them.
    _lent: Vec<OwnedFd>,
}

impl Server {
    pub(super) fn exec(&mut self, conn: u64, m: Message<'_>) -> Handled {
        let result = match exec_request::parse(m.payload) {
            Err(Rejected::Protocol(err)) => return Err(err),
            Err(Rejected::Invalid(why)) => Err(Refusal::new(code::INVALID, why)),
            Ok(request) => self.start_exec(conn, m.stream, request),
        };
        match result {
            Err(refusal) => self.answer(conn, m.stream, Err(refusal)),
            Ok(id) => {
                let pid = self.execs.get(&id).map_or(0, |e| e.pid);
                let started = FieldWriter::new().u32(1, id).u32(2, pid as u32).0;
                self.reply(conn, m.stream, kind::STARTED, &started);
            }
        }
        Ok(())
    }

    fn start_exec(&mut self, conn: u64, stream: u32, mut r: ExecRequest) -> Result<u32, Refusal> {
        self.evict_ended();
        if self.execs.len() >= MAX_EXECS {
            return Err(Refusal::new(code::LIMIT, "too many commands at once"));
        }
        let identity = match &r.user {
            None => None,
            Some(user) => Some(users::resolve(user).map_err(|why| Refusal::new(code::UNKNOWN_USER, why))?),
        };
        if r.default_home && !r.env.iter().any(|e| e.to_bytes().starts_with(b"HOME=")) {
            r.env.push(home_entry(identity.as_ref()));
        }
        let streams = self.open_streams(&r).map_err(no_resources)?;
        if let (Some(_), Some(identity)) = (&streams.terminal, &identity) {
            let owner = sys::fchown(streams.child[0], identity.uid, u32::MAX);
            owner.map_err(|err| no_resources(err))?;
        }
        let mut rlimits = r.rlimits;
        if let Some(own) = &self.nofile {
            if !rlimits.iter().any(|l| l.resource == own.resource) {
                rlimits.push(crate::spawn::Rlimit { ..*own });
            }
        }
        let plan = Plan {
            argv: r.argv,
            env: r.env,
            cwd: r.cwd,
            identity: identity.map(|i| (i.uid, i.gid, i.groups)),
            stdio: streams.child,
            controlling_tty: r.pty.is_some(),
            rlimits,
            oom_score_adj: r.oom_score_adj,
            umask: r.umask,
            capabilities: r.capabilities,
            no_new_privs: r.no_new_privs,
        };
        let started = Instant::now();
        let pid = self.spawner.spawn(&plan).map_err(|err| spawn_refusal(&plan, err))?;
        let id = self.next_exec;
        self.next_exec = self.next_exec.wrapping_add(1).max(1);
        let ring = r.ring_bytes as usize;
        // A kept exec must be able to replay all that is unacknowledged.
        let window = if ring > 0 { r.window.min(r.ring_bytes) } else { r.window } as u64;
        let (buf, close_when_empty) = match r.stdin {
            StdinMode::Inline(data) => (VecDeque::from(data), true),
            _ => (VecDeque::new(), false),
        };
        let is_terminal = streams.terminal.is_some();
        let exec = Exec {
            id,
            pid,
            name: plan.argv.first().map(|a| a.to_bytes().to_vec()).unwrap_or_default(),
            started,
            policy: r.on_disconnect,
            attached: Some(Attachment { conn, stream }),
            out: [
                Channel::new(Some(streams.stdout), ring, window),
                Channel::new(streams.stderr, ring, window),
            ],
            stdin: streams.stdin.map(|fd| Stdin {
                fd,
                buf,
                close_when_empty,
                registered: false,
                writable: true,
                is_terminal,
                owed: 0,
                consumed: 0,
            }),
            terminal: streams.terminal,
            drain: Duration::from_millis(r.drain_ms as u64),
            ended: None,
            finished: false,
            drain_expired: false,
            abandoned: false,
        };
        for (channel, token) in exec.out.iter().zip([TOKEN_STDOUT, TOKEN_STDERR]) {
            if let Some(fd) = &channel.fd {
                let watched = self.epoll.add(fd.as_raw_fd(), sys::EPOLLIN | sys::EPOLLET, token | id as u64);
                if let Err(err) = watched {
                    let _ = sys::kill(-pid, sys::SIGKILL); // reaped as an orphan
                    return Err(no_resources(err));
                }
            }
        }
        self.by_pid.insert(pid, id);
        self.execs.insert(id, exec);
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.streams.insert(stream, Stream::Exec(id));
        }
        Ok(id)
    }

    fn open_streams(&self, r: &ExecRequest) -> io::Result<Streams> {
        if let Some((cols, rows)) = r.pty {
            let pty = pty::open(cols, rows)?;
            let slave = pty.slave.as_raw_fd();
            let stdin = if r.stdin == StdinMode::None { None } else { Some(sys::dup_above(pty.master.as_raw_fd(), 3)?) };
            return Ok(Streams {
                child: [slave; 3],
                stdin,
                stdout: sys::dup_above(pty.master.as_raw_fd(), 3)?,
                stderr: None,
                terminal: Some(pty.master),
                _lent: vec![pty.slave],
            });
        }
        let (stdout, child_out) = sys::pipe()?;
        let (stderr, child_err) = sys::pipe()?;
        sys::set_nonblocking(stdout.as_raw_fd())?;
        sys::set_nonblocking(stderr.as_raw_fd())?;
        let mut child = [self.null.as_raw_fd(), child_out.as_raw_fd(), child_err.as_raw_fd()];
        let mut lent = vec![child_out, child_err];
        let stdin = if r.stdin == StdinMode::None {
            None
        } else {
            let (child_in, stdin) = sys::pipe()?;
            sys::set_nonblocking(stdin.as_raw_fd())?;
            child[0] = child_in.as_raw_fd();
            lent.push(child_in);
            Some(stdin)
        };
        Ok(Streams { child, stdin, stdout, stderr: Some(stderr), terminal: None, _lent: lent })
    }

    fn exec_of(&mut self, conn: u64, stream: u32) -> Option<&mut Exec> {
        match self.conns.get(&conn)?.streams.get(&stream)? {
            Stream::Exec(id) => self.execs.get_mut(id),
            Stream::Job(_) => None,
        }
    }

    pub(super) fn stdin(&mut self, conn: u64, m: Message<'_>) -> Handled {
        let Some(exec) = self.exec_of(conn, m.stream) else { return Ok(()) }; // crossed with its end
        let Some(stdin) = &mut exec.stdin else { return Ok(()) };
        if stdin.close_when_empty {
            return Err(ProtocolError("STDIN after its end"));
        }
        if stdin.owed + m.payload.len() > STDIN_WINDOW {
            return Err(ProtocolError("STDIN beyond its window"));
        }
        stdin.owed += m.payload.len();
        stdin.buf.extend(m.payload);
        Ok(())
    }

    pub(super) fn stdin_close(&mut self, conn: u64, m: Message<'_>) -> Handled {
        if let Some(stdin) = self.exec_of(conn, m.stream).and_then(|e| e.stdin.as_mut()) {
            if stdin.is_terminal && !stdin.close_when_empty {
                stdin.buf.push_back(4); // a terminal's end of input is a character
            }
            stdin.close_when_empty = true;
        }
        Ok(())
    }

    pub(super) fn signal(&mut self, conn: u64, m: Message<'_>) -> Handled {
        let r = exec_ref(m.payload)?;
        let result = match self.execs.get(&r.exec) {
            Some(exec) if !exec.finished => {
                let signal = r.first.unwrap_or(0) as i32;
                sys::kill(-exec.pid, signal).map_err(|err| Refusal {
                    code: code::NO_SUCH_EXEC,
                    errno: sys::errno_of(&err),
                    message: "the signal could not be delivered".into(),
                })
            }
            _ => Err(Refusal::new(code::NO_SUCH_EXEC, "no such running command")),
        };
        self.answer(conn, m.stream, result.map(|()| Vec::new()));
        Ok(())
    }

    pub(super) fn resize(&mut self, conn: u64, m: Message<'_>) -> Handled {
        let r = exec_ref(m.payload)?;
        let (cols, rows) = (r.first.unwrap_or(0) as u16, r.second.unwrap_or(0) as u16);
        let result = match self.execs.get(&r.exec).map(|e| (e.pid, &e.terminal)) {
            Some((pid, Some(terminal))) => resize_terminal(terminal.as_raw_fd(), pid, cols, rows).map_err(no_resources),
            Some((_, None)) => Err(Refusal::new(code::INVALID, "the command has no terminal")),
            None => Err(Refusal::new(code::NO_SUCH_EXEC, "no such running command")),
        };
        self.answer(conn, m.stream, result.map(|()| Vec::new()));
        Ok(())
    }

    /// Takes over an exec's streams from a cursor each; the largest number
    /// stands for "from now on".
    pub(super) fn attach(&mut self, conn: u64, m: Message<'_>) -> Handled {
        let r = exec_ref(m.payload)?;
        let window = r.third.unwrap_or(DEFAULT_WINDOW as u64).min(u32::MAX as u64);
        let Some(exec) = self.execs.get_mut(&r.exec).filter(|e| !e.abandoned) else {
            self.answer(conn, m.stream, Err(Refusal::new(code::NO_SUCH_EXEC, "no such command")));
            return Ok(());
        };
        let asked = [r.first.unwrap_or(0), r.second.unwrap_or(0)];
        let mut cursors = [0; 2];
        for (i, channel) in exec.out.iter().enumerate() {
            cursors[i] = if asked[i] == u64::MAX { channel.seen } else { asked[i].max(channel.base()) };
            if cursors[i] > channel.seen {
                let refusal = Refusal::new(code::INVALID, "the cursor is ahead of the output");
                self.answer(conn, m.stream, Err(refusal));
                return Ok(());
            }
        }
        let attached = FieldWriter::new()
            .u32(1, exec.id)
            .u32(2, exec.pid as u32)
            .u64(3, cursors[0])
            .u64(4, cursors[1])
            .u8(5, exec.stdin.is_some() as u8)
            .u8(6, exec.terminal.is_some() as u8)
            .u32(7, exec.stdin.as_ref().map_or(0, |s| STDIN_WINDOW.saturating_sub(s.owed)) as u32)
            .0;
        for (channel, cursor) in exec.out.iter_mut().zip(cursors) {
            let ring = if channel.ring.is_some() { window.min(u32::MAX as u64) } else { window };
            channel.attach(cursor, ring);
            channel.ready = true;
        }
        let before = exec.attached.replace(Attachment { conn, stream: m.stream });
        let id = exec.id;
        if let Some(before) = before {
            self.end_stream(before);
            let taken = Refusal::new(code::CANCELLED, "another connection attached to the command");
            self.reply(before.conn, before.stream, kind::ERROR, &taken.payload());
        }
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.streams.insert(m.stream, Stream::Exec(id));
        }
        self.reply(conn, m.stream, kind::ATTACHED, &attached);
        Ok(())
    }

    /// Ends the stream and leaves the command running.
    pub(super) fn detach_request(&mut self, conn: u64, m: Message<'_>) -> Handled {
        let Some(exec) = self.exec_of(conn, m.stream) else { return Ok(()) };
        if exec.policy == OnDisconnect::Kill {
            return Err(ProtocolError("DETACH from a command that is not kept"));
        }
        exec.attached = None;
        self.end_stream(Attachment { conn, stream: m.stream });
        self.answer(conn, m.stream, Ok(Vec::new()));
        Ok(())
    }

    fn end_stream(&mut self, at: Attachment) {
        if let Some(conn) = self.conns.get_mut(&at.conn) {
            conn.streams.remove(&at.stream);
        }
    }

    pub(super) fn list_execs(&mut self, conn: u64, m: Message<'_>) -> Handled {
        let mut all = FieldWriter::new();
        for exec in self.execs.values().filter(|e| !e.abandoned) {
            let one = FieldWriter::new()
                .u32(1, exec.id)
                .u32(2, exec.pid as u32)
                .u8(3, exec.ended.is_some() as u8)
                .u8(4, exec.attached.is_some() as u8)
                .u8(5, exec.terminal.is_some() as u8)
                .u64(6, exec.out[0].base())
                .u64(7, exec.out[0].seen)
                .u64(8, exec.out[1].base())
                .u64(9, exec.out[1].seen)
                .u64(10, exec.started.elapsed().as_millis() as u64)
                .bytes(11, &exec.name[..exec.name.len().min(256)])
                .0;
            all = all.bytes(1, &one);
        }
        self.answer(conn, m.stream, Ok(all.0));
        Ok(())
    }

    /// Drops an ended exec's record, or lets go of a running one's output.
    pub(super) fn forget(&mut self, conn: u64, m: Message<'_>) -> Handled {
        let r = exec_ref(m.payload)?;
        let result = match self.execs.get(&r.exec) {
            Some(exec) if exec.finished && exec.attached.is_none() => {
                self.execs.remove(&r.exec);
                Ok(Vec::new())
            }
            Some(_) => Err(Refusal::new(code::INVALID, "the command is running or attached")),
            None => Err(Refusal::new(code::NO_SUCH_EXEC, "no such command")),
        };
        self.answer(conn, m.stream, result);
        Ok(())
    }

    /// Sends EXIT once everything before it was sent.
    pub(super) fn report_end(&mut self, id: u32) {
        let Some(exec) = self.execs.get_mut(&id) else { return };
        if !exec.finished {
            return;
        }
        if exec.abandoned {
            self.execs.remove(&id);
            return;
        }
        let (Some(attached), Some(ended), true) = (exec.attached, &exec.ended, exec.all_sent()) else { return };
        let status = ended.status;
        let signal = status & 0x7f;
        let exit = FieldWriter::new()
            .u32(1, ((status >> 8) & 0xff) as u32)
            .u32(2, signal as u32)
            .u8(3, (signal != 0 && status & 0x80 != 0) as u8)
            .u64(4, ended.user_us)
            .u64(5, ended.system_us)
            .u64(6, ended.maxrss_bytes)
            .u64(7, ended.wall_us)
            .u8(8, ended.oom)
            .u64(9, exec.out[0].seen)
            .u64(10, exec.out[1].seen)
            .u8(11, exec.drain_expired as u8)
            .0;
        exec.attached = None;
        let kept = exec.policy != OnDisconnect::Kill;
        self.end_stream(attached);
        self.reply(attached.conn, attached.stream, kind::EXIT, &exit);
        if kept {
            self.evict_ended();
        } else {
            self.execs.remove(&id);
        }
    }

    /// Everything in the sandbox but the agent. Outside a PID namespace of our
    /// own only what we started: `kill(-1)` there would reach the whole host.
    pub(super) fn signal_everything(&mut self, signal: i32) -> Result<(), Refusal> {
        if sys::getpid() == 1 {
            return match sys::kill(-1, signal) {
                Err(err) if err.raw_os_error() != Some(sys::ESRCH) => Err(no_resources(err)),
                _ => Ok(()),
            };
        }
        for exec in self.execs.values().filter(|e| !e.finished) {
            let _ = sys::kill(-exec.pid, signal); // an empty group is already done
        }
        Ok(())
    }
}

fn home_entry(identity: Option<&users::Identity>) -> CString {
    let from_account = match identity {
        Some(identity) => identity.home.clone(),
        None => Some(b"/root".to_vec()),
    };
    let mut entry = b"HOME=".to_vec();
    entry.extend(from_account.unwrap_or_else(|| b"/".to_vec()));
    CString::new(entry).unwrap_or_else(|_| c"HOME=/".to_owned())
}

/// Linux tells the foreground group itself; gVisor only stores the size. A second
/// signal for the same change makes a program look at the size twice.
fn resize_terminal(terminal: RawFd, leader: i32, cols: u16, rows: u16) -> io::Result<()> {
    sys::set_winsize(terminal, cols, rows)?;
    let group = sys::foreground_group(terminal).unwrap_or(leader);
    match sys::kill(-group, sys::SIGWINCH) {
        Err(err) if sys::errno_of(&err) != sys::ESRCH => Err(err),
        _ => Ok(()), // nobody is left to be told
    }
}

fn no_resources(err: io::Error) -> Refusal {
    Refusal { code: code::NO_RESOURCES, errno: sys::errno_of(&err), message: err.to_string() }
}


fn spawn_refusal(plan: &Plan, err: SpawnError) -> Refusal {
    let name = plan.argv.first().map(|a| a.to_string_lossy().into_owned()).unwrap_or_default();
    let name: String = name.chars().take(200).collect();
    let reason = io::Error::from_raw_os_error(err.errno);
    let (code, message) = match (err.step, err.errno) {
        (Step::Clone, _) => (code::NO_RESOURCES, format!("no new process: {reason}")),
        (Step::Directory, _) => {
            (code::BAD_CWD, format!("working directory {}: {reason}", plan.cwd.to_string_lossy()))
        }
        (Step::Exec, sys::ENOENT | sys::ENOTDIR) => {
            (code::COMMAND_NOT_FOUND, format!("command {name:?} (or its interpreter) does not exist"))
        }
        (Step::Exec, sys::E2BIG) => {
            (code::ARGUMENTS_TOO_BIG, "arguments and environment exceed the kernel's limit".to_owned())
        }
        // What gVisor says of arguments above its limits.
        (Step::Exec, sys::ENAMETOOLONG) if plan.argv.first().is_some_and(|name| name.as_bytes().len() < PATH_MAX) => {
            (code::ARGUMENTS_TOO_BIG, "arguments and environment exceed the kernel's limit".to_owned())
        }
        (Step::Exec, sys::EACCES | sys::EPERM | sys::ENOEXEC | sys::EISDIR | sys::ELOOP) => {
            (code::NOT_EXECUTABLE, format!("command {name:?} can not be executed: {reason}"))
        }
        (Step::Exec, sys::ENOMEM | sys::EAGAIN | sys::EMFILE | sys::ENFILE) => {
            (code::NO_RESOURCES, format!("command {name:?}: {reason}"))
        }
        (step, _) => (code::EXEC_FAILED, format!("{step:?}: {reason}")),
    };
    Refusal { code, errno: err.errno, message }
}
