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
        let null_out = process::dev_null(sys::O_WRONLY)?;
        let (ready_read, ready_write) = sys::pipe()?;
        let stdio =
            Stdio { stdin: in_read.as_raw_fd(), stdout: ready_write.as_raw_fd(), stderr: null_out.as_raw_fd() };
        let pid = self.program.start(reaper, &stdio)?;
        let fork_us = begun.elapsed().as_micros();
        drop((ready_write, in_read));

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
                return Ok(self.failed("agent", &format!("The agent ended before it was ready: {line:?}.")));
            }
            Some(_) => {}
            }
        }
        let start_ticks = start_ticks(main).unwrap_or(0);
        reaper.watch(main, output);
        let fds: Vec<String> = pipes.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
        let json = format!(
            "{{\"ok\":true,\"pid\":{main},\"startTicks\":{start_ticks},\"pipes\":[{}],\"forkUs\":{fork_us},\"runtimeUs\":{},\"readyUs\":{}}}",
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

/// When a process began, in the kernel's ticks: with the pid it names one process for ever.
pub fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, also parentheses and blanks.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}
