//! User namespaces as values: a mapping of ids, held open by descriptor.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::sys::{self, c};

pub struct IdRange {
    pub base: u32,
    pub count: u32,
}

/// A user namespace that maps ids `0..count` inside to `base..base + count` outside.
pub fn create(ids: &IdRange) -> io::Result<OwnedFd> {
    unshared(ids, sys::CLONE_NEWUSER).map(|(user, _)| user)
}

/// A user namespace and a network namespace that belongs to it.
pub fn create_with_net(ids: &IdRange) -> io::Result<(OwnedFd, OwnedFd)> {
    match unshared(ids, sys::CLONE_NEWUSER | sys::CLONE_NEWNET)? {
        (user, Some(net)) => Ok((user, net)),
        _ => Err(io::Error::other("no network namespace was made")),
    }
}

fn unshared(ids: &IdRange, flags: i32) -> io::Result<(OwnedFd, Option<OwnedFd>)> {
    let (wait_read, wait_write) = sys::pipe()?;
    let (done_read, done_write) = sys::pipe()?;
    // SAFETY: the child makes system calls only. It ends when our side of the pipe closes.
    let pid = sys::check(unsafe { c::fork() })?;
    if pid == 0 {
        unsafe {
            c::prctl(1 /* PR_SET_PDEATHSIG */, sys::SIGKILL as usize, 0usize, 0usize, 0usize);
            c::close(wait_write.as_raw_fd());
            c::close(done_read.as_raw_fd());
            let ok: u8 = if c::unshare(flags) == 0 { 0 } else { c::errno() as u8 };
            c::write(done_write.as_raw_fd(), (&ok as *const u8).cast(), 1);
            let mut byte = [0u8; 1];
            c::read(wait_read.as_raw_fd(), byte.as_mut_ptr().cast(), 1);
            c::_exit(0)
        }
    }
    drop(done_write);
    drop(wait_read);
    let made = (|| {
        let mut errno = [0u8; 1];
        if sys::read(done_read.as_raw_fd(), &mut errno)? != 1 || errno[0] != 0 {
            return Err(io::Error::from_raw_os_error(errno[0].max(1).into()));
        }
        let map = format!("0 {} {}\n", ids.base, ids.count);
        for file in ["uid_map", "gid_map"] {
            let path = CString::new(format!("/proc/{pid}/{file}"))?;
            let fd = sys::open_at(sys::AT_FDCWD, &path, sys::O_WRONLY, 0)?;
            sys::write_once(fd.as_raw_fd(), map.as_bytes())?;
        }
        let open = |kind: &str| {
            let path = CString::new(format!("/proc/{pid}/ns/{kind}"))?;
            sys::open_at(sys::AT_FDCWD, &path, sys::O_RDONLY, 0)
        };
        let net = if flags & sys::CLONE_NEWNET == 0 { None } else { Some(open("net")?) };
        Ok((open("user")?, net))
    })();
    // Not by closing the pipe: a child forked meanwhile may hold a copy of it. The reaper's thread takes the status.
    unsafe { c::kill(pid, sys::SIGKILL) };
    drop(wait_write);
    made
}
