//! Network namespaces held by descriptor: no bind mount names them, so none is left when this process ends.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::sys::{self, c};

/// A new network namespace with loopback up.
pub fn create() -> io::Result<OwnedFd> {
    // A namespace belongs to a thread; this one is made for it and ends with it.
    std::thread::spawn(|| {
        sys::check(unsafe { c::unshare(sys::CLONE_NEWNET) })?;
        loopback_up()?;
        sys::open_at(sys::AT_FDCWD, c"/proc/thread-self/ns/net", sys::O_RDONLY, 0)
    })
    .join()
    .unwrap_or_else(|_| Err(io::Error::other("the namespace thread panicked")))
}

fn loopback_up() -> io::Result<()> {
    extern "C" {
        fn socket(domain: i32, kind: i32, protocol: i32) -> i32;
        fn ioctl(fd: i32, request: std::ffi::c_ulong, ...) -> i32;
    }
    use std::os::fd::FromRawFd;
    // SAFETY: the descriptor is new; the request buffer is a whole `struct ifreq`.
    unsafe {
        let fd = OwnedFd::from_raw_fd(sys::check(socket(2 /* AF_INET */, 2 /* SOCK_DGRAM */ | sys::O_CLOEXEC, 0))?);
        let mut request = [0u8; 40];
        request[..2].copy_from_slice(b"lo");
        request[16..18].copy_from_slice(&0x1i16.to_ne_bytes()); // IFF_UP
        sys::check(ioctl(fd.as_raw_fd(), 0x8914 /* SIOCSIFFLAGS */, request.as_mut_ptr()))?;
    }
    Ok(())
}
