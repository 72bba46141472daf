//! The one attribute that layers of our own need.

use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::os::fd::AsRawFd;

use super::sys;
use super::tree::cstring;

/// Makes a directory of an overlay layer hide what lower layers have below the same name.
pub fn make_opaque(path: &[u8]) -> io::Result<()> {
    extern "C" {
        fn fsetxattr(fd: c_int, name: *const c_char, value: *const c_void, len: usize, flags: c_int) -> c_int;
    }
    let dir = sys::open_at(sys::AT_FDCWD, &cstring(path)?, sys::O_DIRECTORY | sys::O_NOFOLLOW, 0)?;
    let name = c"trusted.overlay.opaque";
    sys::check(unsafe { fsetxattr(dir.as_raw_fd(), name.as_ptr(), c"y".as_ptr().cast(), 1, 0) }).map(drop)
}
