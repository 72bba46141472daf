//! User namespaces as values: a mapping of ids, held open by descriptor.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::sys::{self, c};

/// A user namespace that maps ids `0..count` inside to `base..base + count` outside.
pub fn create(base: u32, count: u32) -> io::Result<OwnedFd> {
    let (wait_read, wait_write) = sys::pipe()?;
    let (done_read, done_write) = sys::pipe()?;
    // SAFETY: the child makes system calls only. It ends when our side of the pipe closes.
    let pid = sys::check(unsafe { c::fork() })?;
    if pid == 0 {
        unsafe {
            c::close(wait_write.as_raw_fd());
            c::close(done_read.as_raw_fd());
            let ok: u8 = if c::unshare(sys::CLONE_NEWUSER) == 0 { 0 } else { c::errno() as u8 };
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
        let map = format!("0 {base} {count}\n");
        for file in ["uid_map", "gid_map"] {
            let path = CString::new(format!("/proc/{pid}/{file}"))?;
            let fd = sys::open_at(sys::AT_FDCWD, &path, sys::O_WRONLY, 0)?;
            sys::write_once(fd.as_raw_fd(), map.as_bytes())?;
        }
        let path = CString::new(format!("/proc/{pid}/ns/user"))?;
        sys::open_at(sys::AT_FDCWD, &path, sys::O_RDONLY, 0)
    })();
    drop(wait_write);
    // The reaper's thread takes the child's status.
    made
}
