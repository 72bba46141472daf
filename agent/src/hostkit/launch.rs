//! Starts a runtime that detaches from the container it made, and waits until the agent inside says it is ready.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::process::{self, Program, Stdio};
use super::reaper::{decode, Reaper};
use super::sys;
use super::wire::{json_string, Output};

const READY_LINE_BYTES_MAX: usize = 1024;
const LOG_BYTES_MAX: usize = 16 * 1024;

pub struct Launch {
    pub program: Program,
    pub pid_file: CString,
    /// Where the runtime writes why it failed.
    pub log_file: CString,
    /// The line that the agent prints when it listens. Empty: it speaks on its standard streams at once.
    pub ready_prefix: String,
    pub deadline: Instant,
}

impl Launch {
    /// JSON of what came of it, and descriptors that the caller fetches and lets close.
    /// Only an inability to start the runtime at all is an error.
    pub fn run(&self, reaper: &Reaper, output: &Output) -> io::Result<(String, Vec<OwnedFd>)> {
        let begun = Instant::now();
        let speaks = self.ready_prefix.is_empty();
        let (in_read, in_write) = if speaks {
            let (read, write) = sys::pipe()?;
            (read, Some(write))
        } else {
            (process::dev_null(sys::O_RDONLY)?, None)
        };
        // A listening agent lets go of its standard streams once it is ready, so its last words cost nothing.
        // One that speaks on them keeps the third for good.
        let (err_read, err_write) = if speaks {
            (None, process::dev_null(sys::O_WRONLY)?)
        } else {
            let (read, write) = sys::pipe()?;
            (Some(read), write)
        };
        let (ready_read, ready_write) = sys::pipe()?;
        let stdio =
            Stdio { stdin: in_read.as_raw_fd(), stdout: ready_write.as_raw_fd(), stderr: err_write.as_raw_fd() };
        let pid = self.program.start(reaper, &stdio)?;
        let fork_us = begun.elapsed().as_micros();
        drop((ready_write, in_read, err_write));

        let status = match reaper.wait(pid, self.deadline) {
            Some(status) => status,
            None => {
                process::kill_group(pid);
                reaper.wait(pid, Instant::now() + Duration::from_secs(5));
                return Ok(self.failed("timeout", "The runtime did not finish in time."));
            }
        };
        let runtime_us = begun.elapsed().as_micros();
        if decode(status).0 != Some(0) {
            let (code, signal) = decode(status);
            let how = match signal {
                Some(signal) => format!("The runtime was ended by signal {signal}."),
                None => format!("The runtime exited with {}.", code.unwrap_or(-1)),
            };
            return Ok(self.failed("runtime", &how));
        }
        let main = self.main_process()?;
        let mut pipes = Vec::new();
        if let Some(in_write) = in_write {
            pipes = vec![in_write, ready_read];
        } else {
            match process::read_line(ready_read, READY_LINE_BYTES_MAX, self.deadline)? {
            None => return Ok(self.failed("timeout", "The agent did not become ready in time.")),
            Some(line) if !line.starts_with(&self.ready_prefix) => {
                let words = last_words(err_read.as_ref());
                return Ok(self.failed("agent", &format!("The agent ended before it was ready: {line:?} {words:?}.")));
            }
            Some(_) => {}
            }
        }
        reaper.watch(main, output);
        let fds: Vec<String> = pipes.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
        let json = format!(
            "{{\"ok\":true,\"pid\":{main},\"pipes\":[{}],\"forkUs\":{fork_us},\"runtimeUs\":{},\"readyUs\":{}}}",
            fds.join(","),
            runtime_us - fork_us,
            begun.elapsed().as_micros() - runtime_us,
        );
        Ok((json, pipes))
    }

    fn main_process(&self) -> io::Result<i32> {
        let text = process::read_small(&self.pid_file, 32)?;
        String::from_utf8_lossy(&text)
            .trim()
            .parse()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the runtime's pid file holds no number"))
    }

    fn failed(&self, kind: &str, message: &str) -> (String, Vec<OwnedFd>) {
        let log = match process::read_small(&self.log_file, LOG_BYTES_MAX) {
            Ok(log) => String::from_utf8_lossy(&log).into_owned(),
            Err(err) => format!("(no log: {err})"),
        };
        let json = format!(
            "{{\"ok\":false,\"kind\":{},\"message\":{},\"log\":{}}}",
            json_string(kind),
            json_string(message),
            json_string(&log)
        );
        (json, Vec::new())
    }
}

/// What is in the pipe right now.
fn last_words(fd: Option<&OwnedFd>) -> String {
    let Some(fd) = fd else { return String::new() };
    let mut fds = [sys::PollFd { fd: fd.as_raw_fd(), events: sys::POLLIN, revents: 0 }];
    let mut buf = [0u8; 1024];
    match sys::poll(&mut fds, 100) {
        Ok(true) => sys::read(fd.as_raw_fd(), &mut buf).map_or(String::new(), |n| String::from_utf8_lossy(&buf[..n]).trim().into()),
        _ => String::new(),
    }
}
