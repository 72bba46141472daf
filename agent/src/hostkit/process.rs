//! Starts programs: descriptors, cgroups, namespaces and mounts are arranged between fork and exec.
//!
//! I1. Everything the child needs is built before the fork; after it only system calls are made.
//! I2. A child that can not exec says which step failed, through a pipe that closes on exec.

use std::ffi::{c_char, c_int, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Instant;

use super::mounts::MountPlan;
use super::reaper::{decode, Reaper};
use super::sys::{self, c};
use super::tree::cstring;

pub struct Program {
    pub argv: Vec<CString>,
    pub env: Vec<CString>,
    pub cwd: Option<CString>,
    /// `cgroup.procs` files that the child enters before anything else.
    pub cgroup_procs: Vec<OwnedFd>,
    pub mounts: Option<MountPlan>,
    pub netns: Option<RawFd>,
    /// Killed with this helper: for tools; not for runtimes, whose containers go on.
    pub dies_with_us: bool,
}

pub struct Stdio {
    pub stdin: RawFd,
    pub stdout: RawFd,
    pub stderr: RawFd,
}

const STAGES: [&str; 7] = ["cgroup", "mount namespace", "mounts", "network namespace", "stdio", "cwd", "exec"];

impl Program {
    pub fn parse_list(bytes: &[u8]) -> io::Result<Vec<CString>> {
        bytes.split(|b| *b == 0).filter(|part| !part.is_empty()).map(cstring).collect()
    }

    /// Starts it; the caller reaps.
    pub fn start(&self, reaper: &Reaper, stdio: &Stdio) -> io::Result<i32> {
        let argv: Vec<*const c_char> = pointers(&self.argv);
        let env: Vec<*const c_char> = pointers(&self.env);
        let (report_in, report_out) = sys::pipe()?;
        let pid = reaper.spawn(|| {
            // SAFETY: the child makes system calls only and ends in exec or _exit.
            let pid = sys::check(unsafe { c::fork() })?;
            if pid == 0 {
                unsafe { self.child(&argv, &env, stdio, report_out.as_raw_fd()) }
            }
            Ok(pid)
        })?;
        drop(report_out);
        let mut report = [0u8; 8];
        let mut got = 0;
        while got < report.len() {
            match sys::read(report_in.as_raw_fd(), &mut report[got..])? {
                0 => break,
                n => got += n,
            }
        }
        if got == report.len() {
            reaper.wait(pid, Instant::now() + std::time::Duration::from_secs(5));
            let errno = i32::from_ne_bytes([report[0], report[1], report[2], report[3]]);
            let stage = STAGES.get(report[4] as usize).copied().unwrap_or("start");
            let cause = io::Error::from_raw_os_error(errno);
            return Err(io::Error::new(cause.kind(), Staged { stage, errno }));
        }
        Ok(pid)
    }

    /// # Safety
    /// Runs in the forked child; never returns.
    unsafe fn child(&self, argv: &[*const c_char], env: &[*const c_char], stdio: &Stdio, report: RawFd) -> ! {
        let fail = |stage: u8| -> ! {
            let mut message = [0u8; 8];
            message[..4].copy_from_slice(&c::errno().to_ne_bytes());
            message[4] = stage;
            c::write(report, message.as_ptr().cast(), message.len());
            c::_exit(127)
        };
        c::setsid();
        if self.dies_with_us {
            c::prctl(1 /* PR_SET_PDEATHSIG */, sys::SIGKILL as usize, 0usize, 0usize, 0usize);
        }
        let empty: sys::SigSet = [0; 16];
        c::sigprocmask(2, &empty, std::ptr::null_mut());
        c::signal(sys::SIGPIPE, 0);
        sys::default_stop_signals();
        for procs in &self.cgroup_procs {
            if c::write(procs.as_raw_fd(), b"0".as_ptr().cast(), 1) != 1 {
                fail(0);
            }
        }
        if let Some(plan) = &self.mounts {
            if c::unshare(sys::CLONE_NEWNS) != 0 {
                fail(1);
            }
            if !plan.apply() {
                fail(2);
            }
        }
        if let Some(netns) = self.netns {
            if c::setns(netns, sys::CLONE_NEWNET) != 0 {
                fail(3);
            }
        }
        for (from, to) in [(stdio.stdin, 0), (stdio.stdout, 1), (stdio.stderr, 2)] {
            if c::dup2(from, to) < 0 {
                fail(4);
            }
        }
        sys::cloexec_from_3();
        if let Some(cwd) = &self.cwd {
            if c::chdir(cwd.as_ptr()) != 0 {
                fail(5);
            }
        }
        c::execve(argv[0], argv.as_ptr(), env.as_ptr());
        fail(6)
    }
}

#[derive(Debug)]
struct Staged {
    stage: &'static str,
    errno: i32,
}

impl std::error::Error for Staged {}

impl std::fmt::Display for Staged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.stage, io::Error::from_raw_os_error(self.errno))
    }
}

fn pointers(list: &[CString]) -> Vec<*const c_char> {
    list.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

pub fn dev_null(flags: c_int) -> io::Result<OwnedFd> {
    sys::open_at(sys::AT_FDCWD, c"/dev/null", flags, 0)
}

/// What a finished tool said. Output beyond the bound is cut at the front.
pub struct Finished {
    pub status: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub timed_out: bool,
}

impl Finished {
    pub fn json(&self) -> String {
        let (code, signal) = decode(self.status);
        format!(
            "{{\"code\":{},\"signal\":{},\"timedOut\":{},\"stdout\":{},\"stderr\":{}}}",
            super::reaper::or_null(code),
            super::reaper::or_null(signal),
            self.timed_out,
            super::wire::json_string(&String::from_utf8_lossy(&self.stdout)),
            super::wire::json_string(&String::from_utf8_lossy(&self.stderr)),
        )
    }
}

/// Runs a program to its end, or kills it at the deadline.
pub fn run(program: &Program, input: &[u8], output_max: usize, reaper: &Reaper, deadline: Instant) -> io::Result<Finished> {
    let (in_read, in_write) = sys::pipe()?;
    let (out_read, out_write) = sys::pipe()?;
    let (err_read, err_write) = sys::pipe()?;
    let stdio = Stdio { stdin: in_read.as_raw_fd(), stdout: out_write.as_raw_fd(), stderr: err_write.as_raw_fd() };
    let pid = program.start(reaper, &stdio)?;
    drop((in_read, out_write, err_write));
    let mut finished = Finished { status: 0, stdout: Vec::new(), stderr: Vec::new(), timed_out: false };
    let feeder = {
        let input = input.to_vec();
        std::thread::spawn(move || {
            // A tool that does not read its input is no error; it says so by its exit code.
            let _ = sys::write_all(in_write.as_raw_fd(), &input);
        })
    };
    let mut open = [Some(out_read), Some(err_read)];
    while open.iter().any(Option::is_some) {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds: Vec<sys::PollFd> = open
            .iter()
            .map(|fd| sys::PollFd { fd: fd.as_ref().map_or(-1, |fd| fd.as_raw_fd()), events: sys::POLLIN, revents: 0 })
            .collect();
        if left.is_zero() || !sys::poll(&mut fds, left.as_millis().min(60_000) as i32 + 1)? {
            if deadline <= Instant::now() {
                finished.timed_out = true;
                kill_group(pid);
                break;
            }
            continue;
        }
        for (at, ready) in fds.iter().enumerate() {
            let Some(fd) = open[at].as_ref().filter(|_| ready.revents != 0) else { continue };
            let mut buf = [0u8; 16 * 1024];
            let n = sys::read(fd.as_raw_fd(), &mut buf)?;
            if n == 0 {
                open[at] = None;
                continue;
            }
            let kept = if at == 0 { &mut finished.stdout } else { &mut finished.stderr };
            kept.extend_from_slice(&buf[..n]);
            if kept.len() > output_max {
                kept.drain(..kept.len() - output_max);
            }
        }
    }
    finished.status = match reaper.wait(pid, deadline) {
        Some(status) => status,
        None => {
            finished.timed_out = true;
            kill_group(pid);
            reaper.wait(pid, Instant::now() + std::time::Duration::from_secs(5)).unwrap_or(sys::SIGKILL)
        }
    };
    drop(open);
    let _ = feeder.join();
    Ok(finished)
}

/// The child leads a session and group of its own, see `child`.
pub fn kill_group(pid: i32) {
    unsafe {
        c::kill(-pid, sys::SIGKILL);
        c::kill(pid, sys::SIGKILL);
    }
}

/// Reads up to a newline from a pipe. `Ok(None)` at the deadline; an empty line when the writers are gone.
pub fn read_line(fd: OwnedFd, bytes_max: usize, deadline: Instant) -> io::Result<Option<String>> {
    let raw = fd.as_raw_fd();
    let mut line = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [sys::PollFd { fd: raw, events: sys::POLLIN, revents: 0 }];
        if left.is_zero() {
            return Ok(None);
        }
        if !sys::poll(&mut fds, left.as_millis().min(60_000) as i32 + 1)? || fds[0].revents == 0 {
            continue;
        }
        let mut byte = [0u8; 1];
        if sys::read(raw, &mut byte)? == 0 || byte[0] == b'\n' || line.len() >= bytes_max {
            return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
        }
        line.push(byte[0]);
    }
}

/// A whole small file.
pub fn read_small(path: &CString, bytes_max: usize) -> io::Result<Vec<u8>> {
    let fd = sys::open_at(sys::AT_FDCWD, path, sys::O_RDONLY, 0)?;
    // SAFETY: the descriptor is handed over, not copied.
    let file = unsafe { File::from_raw_fd(std::os::fd::IntoRawFd::into_raw_fd(fd)) };
    let mut data = Vec::new();
    file.take(bytes_max as u64).read_to_end(&mut data)?;
    Ok(data)
}
