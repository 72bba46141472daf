//! Ending and removing whole cgroups, v1 and v2 alike.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::sys;
use super::tree;

/// A cgroup below one of ours that a guest or runtime made; deeper than any of them makes.
const DEPTH_MAX: usize = 16;

fn each_below(dir: &Path, depth: usize, visit: &mut impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() && depth < DEPTH_MAX {
            each_below(&entry.path(), depth + 1, visit)?;
        }
    }
    visit(dir)
}

/// ENODEV and ENOENT: the group went away between two looks.
fn gone(err: &io::Error) -> bool {
    matches!(err.raw_os_error(), Some(sys::ENOENT) | Some(19))
}

fn write_if_there(path: PathBuf, value: &[u8]) -> io::Result<bool> {
    match tree::write_control(path.as_os_str().as_bytes(), value) {
        Ok(()) => Ok(true),
        Err(err) if gone(&err) => Ok(false),
        Err(err) => Err(err),
    }
}

fn pids(dir: &Path) -> io::Result<Vec<i32>> {
    match std::fs::read_to_string(dir.join("cgroup.procs")) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()),
        Err(err) if gone(&err) => Ok(Vec::new()),
        Err(err) => Err(err),
    }
}

/// Kills everything in the groups and below until they are empty. Returns how many processes it met.
pub fn kill_all(groups: &[PathBuf], deadline: Instant) -> io::Result<usize> {
    let mut met = std::collections::HashSet::new();
    loop {
        let mut dying: BTreeMap<i32, OwnedFd> = BTreeMap::new();
        for group in groups {
            each_below(group, 0, &mut |dir| {
                let killed_by_kernel = write_if_there(dir.join("cgroup.kill"), b"1")?;
                for pid in pids(dir)? {
                    let Ok(fd) = sys::pidfd_open(pid) else { continue };
                    if !killed_by_kernel {
                        match sys::pidfd_kill(&fd, sys::SIGKILL) {
                            Err(err) if err.raw_os_error() != Some(sys::ESRCH) => return Err(err),
                            _ => {}
                        }
                    }
                    met.insert(pid);
                    dying.insert(pid, fd);
                }
                // A frozen process can not die; thaw after the kill, so that it never runs again.
                write_if_there(dir.join("freezer.state"), b"THAWED")?;
                if dir.join("cgroup.freeze").exists() {
                    write_if_there(dir.join("cgroup.freeze"), b"0")?;
                }
                Ok(())
            })?;
        }
        if dying.is_empty() {
            return Ok(met.len());
        }
        for fd in dying.values() {
            wait_exit(fd, deadline)?;
        }
        if Instant::now() >= deadline {
            return Err(io::Error::from_raw_os_error(sys::ETIMEDOUT));
        }
    }
}

/// Waits until the process behind a pidfd has ended.
pub fn wait_exit(fd: &OwnedFd, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::from_raw_os_error(sys::ETIMEDOUT));
        }
        let mut fds = [sys::PollFd { fd: fd.as_raw_fd(), events: sys::POLLIN, revents: 0 }];
        if sys::poll(&mut fds, left.as_millis().min(60_000) as i32 + 1)? && fds[0].revents != 0 {
            return Ok(());
        }
    }
}

/// Removes groups and what is below them. A group that is still busy is tried again until the deadline.
pub fn remove_all(groups: &[PathBuf], deadline: Instant) -> io::Result<()> {
    for group in groups {
        each_below(group, 0, &mut |dir| {
            let mut pause = Duration::from_micros(200);
            loop {
                match std::fs::remove_dir(dir) {
                    Ok(()) => return Ok(()),
                    Err(err) if gone(&err) => return Ok(()),
                    // The last task is counted until the kernel has finished with it.
                    Err(err) if err.raw_os_error() == Some(sys::EBUSY) && Instant::now() < deadline => {
                        std::thread::sleep(pause);
                        pause = (pause * 2).min(Duration::from_millis(20));
                    }
                    Err(err) => return Err(err),
                }
            }
        })?;
    }
    Ok(())
}
