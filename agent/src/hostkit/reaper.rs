//! Children and adopted orphans: one thread reaps them all.
//!
//! The helper is a child subreaper, so a container's first process becomes its child when the runtime's
//! own process ends; its end is then an event instead of something to poll for.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::sys::{self, c};
use super::wire::Output;

/// Ends of processes nobody asked about yet, kept for a launch that learns its pid a moment later.
const UNCLAIMED_MAX: usize = 4096;

#[derive(Default)]
struct Table {
    /// Children of ours that somebody waits for; the status once they ended.
    awaited: HashMap<i32, Option<i32>>,
    /// First processes of sandboxes whose end is reported as an event.
    watched: HashMap<i32, ()>,
    unclaimed: Vec<(i32, i32)>,
}

pub struct Reaper {
    table: Mutex<Table>,
    changed: Condvar,
}

impl Reaper {
    /// Must run before any other thread starts: they inherit the blocked signal.
    pub fn start(output: Arc<Output>) -> io::Result<Arc<Reaper>> {
        let mut mask: sys::SigSet = [0; 16];
        mask[0] = 1 << (sys::SIGCHLD - 1);
        // SAFETY: plain system calls on valid memory.
        let fd = unsafe {
            sys::check(c::sigprocmask(0, &mask, std::ptr::null_mut()))?;
            sys::check(c::prctl(36 /* PR_SET_CHILD_SUBREAPER */, 1usize, 0usize, 0usize, 0usize))?;
            OwnedFd::from_raw_fd(sys::check(c::signalfd(-1, &mask, sys::O_CLOEXEC))?)
        };
        let reaper = Arc::new(Reaper { table: Mutex::default(), changed: Condvar::new() });
        let own = reaper.clone();
        std::thread::spawn(move || {
            let mut info = [0u8; 128];
            loop {
                own.reap_all(&output);
                if sys::read(fd.as_raw_fd(), &mut info).is_err() {
                    std::process::abort();
                }
            }
        });
        Ok(reaper)
    }

    fn reap_all(&self, output: &Output) {
        loop {
            let mut status = 0;
            // Held over the wait: a child can not end between its fork and its entry in the table.
            let mut table = self.lock();
            let pid = unsafe { c::waitpid(-1, &mut status, 1 /* WNOHANG */) };
            if pid <= 0 {
                return;
            }
            if let Some(slot) = table.awaited.get_mut(&pid) {
                *slot = Some(status);
                self.changed.notify_all();
            } else if table.watched.remove(&pid).is_some() {
                drop(table);
                output.event(&exit_event(pid, status));
            } else {
                if table.unclaimed.len() >= UNCLAIMED_MAX {
                    table.unclaimed.remove(0);
                }
                table.unclaimed.push((pid, status));
            }
        }
    }

    /// Runs `fork` so that the child is known before it can be reaped.
    pub fn spawn(&self, fork: impl FnOnce() -> io::Result<i32>) -> io::Result<i32> {
        let mut table = self.lock();
        let pid = fork()?;
        table.awaited.insert(pid, None);
        Ok(pid)
    }

    /// Waits for a child made by `spawn`; `None` when the time is over and it still runs.
    pub fn wait(&self, pid: i32, deadline: Instant) -> Option<i32> {
        let mut table = self.lock();
        loop {
            if let Some(Some(status)) = table.awaited.get(&pid).copied() {
                table.awaited.remove(&pid);
                return Some(status);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            table = self.changed.wait_timeout(table, left.min(Duration::from_secs(5))).unwrap_or_else(|p| p.into_inner()).0;
        }
    }

    /// Reports the end of `pid` as an event; at once when it already ended since the mark was taken.
    pub fn watch(&self, pid: i32, output: &Output) {
        let mut table = self.lock();
        if let Some(at) = table.unclaimed.iter().position(|(ended, _)| *ended == pid) {
            let (_, status) = table.unclaimed.remove(at);
            drop(table);
            output.event(&exit_event(pid, status));
            return;
        }
        table.watched.insert(pid, ());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn exit_event(pid: i32, status: i32) -> String {
    let (code, signal) = decode(status);
    format!("{{\"event\":\"exit\",\"pid\":{pid},\"code\":{},\"signal\":{}}}", or_null(code), or_null(signal))
}

/// (exit code, signal) of a wait status.
pub fn decode(status: i32) -> (Option<i32>, Option<i32>) {
    if status & 0x7f == 0 {
        (Some(status >> 8 & 0xff), None)
    } else {
        (None, Some(status & 0x7f))
    }
}

pub fn or_null(value: Option<i32>) -> String {
    value.map_or("null".into(), |n| n.to_string())
}
