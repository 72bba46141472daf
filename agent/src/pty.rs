//! Pseudo-terminals, opened without trusting the guest's /dev.

use crate::sys;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

pub struct Pty {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

pub fn open(cols: u16, rows: u16) -> io::Result<Pty> {
    let flags = sys::O_RDWR | sys::O_NOCTTY | sys::O_NONBLOCK;
    // A container's own instance first; /dev/ptmx may be a bind of the host's.
    let master = sys::open_at(sys::AT_FDCWD, c"/dev/pts/ptmx", flags, 0)
        .or_else(|_| sys::open_at(sys::AT_FDCWD, c"/dev/ptmx", flags, 0))?;
    let file = File::from(master);
    let meta = file.metadata()?;
    // Major 5, minor 2 is the multiplexer; anything else was put there by the guest.
    if !meta.file_type().is_char_device() || meta.rdev() != (5 << 8) + 2 {
        return Err(sys::os_error(sys::ENOTTY));
    }
    let master = OwnedFd::from(file);
    let fd = master.as_raw_fd();
    sys::unlock_pty(fd)?;
    let slave = match sys::pty_peer(fd) {
        Ok(slave) => slave,
        // Kernels (and gVisor) without TIOCGPTPEER: by its number.
        Err(_) => {
            let path = format!("/dev/pts/{}\0", sys::pty_number(fd)?);
            let path = std::ffi::CStr::from_bytes_with_nul(path.as_bytes())
                .map_err(|_| sys::os_error(sys::EINVAL))?;
            sys::open_at(sys::AT_FDCWD, path, sys::O_RDWR | sys::O_NOCTTY, 0)?
        }
    };
    sys::set_winsize(fd, cols, rows)?;
    Ok(Pty { master, slave })
}
