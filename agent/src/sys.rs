//! The few kernel calls the agent needs that `std` does not offer.
//!
//! `std` already links libc, so declaring the functions here keeps the crate
//! free of dependencies. Layouts are those of 64-bit Linux (x86_64, aarch64).

use std::ffi::{c_char, c_int, c_long, c_uint, c_ulong, c_void, CStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

pub const EPERM: i32 = 1;
pub const ENOENT: i32 = 2;
pub const ESRCH: i32 = 3;
pub const EINTR: i32 = 4;
pub const EIO: i32 = 5;
pub const E2BIG: i32 = 7;
pub const ENOEXEC: i32 = 8;
pub const EAGAIN: i32 = 11;
pub const ENOMEM: i32 = 12;
pub const EACCES: i32 = 13;
pub const EEXIST: i32 = 17;
pub const EXDEV: i32 = 18;
pub const ENOTDIR: i32 = 20;
pub const EISDIR: i32 = 21;
pub const EINVAL: i32 = 22;
pub const ENFILE: i32 = 23;
pub const EMFILE: i32 = 24;
pub const ENOTTY: i32 = 25;
pub const ENAMETOOLONG: i32 = 36;
pub const ENOSYS: i32 = 38;
pub const ENOTEMPTY: i32 = 39;
pub const ELOOP: i32 = 40;
pub const EOPNOTSUPP: i32 = 95;

pub const O_RDONLY: c_int = 0;
pub const O_WRONLY: c_int = 1;
pub const O_RDWR: c_int = 2;
pub const O_CREAT: c_int = 0o100;
pub const O_EXCL: c_int = 0o200;
pub const O_NOCTTY: c_int = 0o400;
pub const O_TRUNC: c_int = 0o1000;
pub const O_APPEND: c_int = 0o2000;
pub const O_NONBLOCK: c_int = 0o4000;
pub const O_CLOEXEC: c_int = 0o2000000;
pub const O_PATH: c_int = 0o10000000;
#[cfg(target_arch = "x86_64")]
pub const O_DIRECTORY: c_int = 0o200000;
#[cfg(target_arch = "x86_64")]
pub const O_NOFOLLOW: c_int = 0o400000;
#[cfg(target_arch = "aarch64")]
pub const O_DIRECTORY: c_int = 0o40000;
#[cfg(target_arch = "aarch64")]
pub const O_NOFOLLOW: c_int = 0o100000;

pub const AT_FDCWD: c_int = -100;
pub const AT_SYMLINK_NOFOLLOW: c_int = 0x100;
pub const AT_REMOVEDIR: c_int = 0x200;
pub const AT_EMPTY_PATH: c_int = 0x1000;

pub const EPOLLIN: u32 = 0x1;
pub const EPOLLOUT: u32 = 0x4;
pub const EPOLLERR: u32 = 0x8;
pub const EPOLLHUP: u32 = 0x10;
pub const EPOLLRDHUP: u32 = 0x2000;
pub const EPOLLET: u32 = 1 << 31;

pub const SIGHUP: c_int = 1;
pub const SIGKILL: c_int = 9;
pub const SIGPIPE: c_int = 13;
pub const SIGCHLD: c_int = 17;
pub const SIGSTOP: c_int = 19;
pub const SIGWINCH: c_int = 28;

pub const PROC_SUPER_MAGIC: i64 = 0x9fa0;
pub const SYSFS_MAGIC: i64 = 0x62656572;
pub const CGROUP_SUPER_MAGIC: i64 = 0x27e0eb;
pub const CGROUP2_SUPER_MAGIC: i64 = 0x63677270;

const RLIMIT_NOFILE: c_uint = 7;

#[cfg(target_arch = "x86_64")]
mod nr {
    pub const SETRESUID: i64 = 117;
    pub const SETRESGID: i64 = 119;
    pub const SETGROUPS: i64 = 116;
    pub const CAPGET: i64 = 125;
    pub const CAPSET: i64 = 126;
    pub const GETDENTS64: i64 = 217;
}
#[cfg(target_arch = "aarch64")]
mod nr {
    pub const SETRESUID: i64 = 147;
    pub const SETRESGID: i64 = 149;
    pub const SETGROUPS: i64 = 159;
    pub const CAPGET: i64 = 90;
    pub const CAPSET: i64 = 91;
    pub const GETDENTS64: i64 = 61;
}
const NR_CLOSE_RANGE: i64 = 436;

#[repr(C)]
#[cfg_attr(target_arch = "x86_64", repr(packed))]
#[derive(Clone, Copy)]
pub struct EpollEvent {
    pub events: u32,
    pub data: u64,
}

pub type SigSet = [u64; 16];

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Timeval {
    pub sec: i64,
    pub usec: i64,
}

/// `struct rusage`; only the first fields are read.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Rusage {
    pub user: Timeval,
    pub system: Timeval,
    pub maxrss_kib: i64,
    rest: [i64; 13],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Winsize {
    pub rows: u16,
    pub cols: u16,
    pub xpixel: u16,
    pub ypixel: u16,
}

#[repr(C)]
#[derive(Default)]
struct Ucred {
    pid: i32,
    uid: u32,
    gid: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Timespec {
    pub sec: i64,
    pub nsec: i64,
}

pub const UTIME_OMIT: i64 = (1 << 30) - 2;

mod c {
    use super::*;
    extern "C" {
        pub fn epoll_create1(flags: c_int) -> c_int;
        pub fn epoll_ctl(ep: c_int, op: c_int, fd: c_int, event: *mut EpollEvent) -> c_int;
        pub fn epoll_wait(ep: c_int, events: *mut EpollEvent, max: c_int, ms: c_int) -> c_int;
        pub fn signalfd(fd: c_int, mask: *const SigSet, flags: c_int) -> c_int;
        pub fn eventfd(init: c_uint, flags: c_int) -> c_int;
        pub fn pipe2(fds: *mut c_int, flags: c_int) -> c_int;
        pub fn read(fd: c_int, buf: *mut c_void, len: usize) -> isize;
        pub fn write(fd: c_int, buf: *const c_void, len: usize) -> isize;
        pub fn dup2(old: c_int, new: c_int) -> c_int;
        pub fn close(fd: c_int) -> c_int;
        pub fn fcntl(fd: c_int, cmd: c_int, ...) -> c_int;
        pub fn ioctl(fd: c_int, req: c_ulong, ...) -> c_int;
        pub fn wait4(pid: i32, status: *mut c_int, options: c_int, ru: *mut Rusage) -> i32;
        pub fn kill(pid: i32, sig: c_int) -> c_int;
        pub fn getpid() -> i32;
        pub fn geteuid() -> u32;
        pub fn prctl(op: c_int, ...) -> c_int;
        pub fn pthread_sigmask(how: c_int, set: *const SigSet, old: *mut SigSet) -> c_int;
        pub fn signal(sig: c_int, handler: usize) -> usize;
        pub fn getsockopt(fd: c_int, level: c_int, name: c_int, v: *mut c_void, l: *mut u32)
            -> c_int;
        pub fn accept4(fd: c_int, addr: *mut c_void, len: *mut u32, flags: c_int) -> c_int;
        pub fn openat(dir: c_int, path: *const c_char, flags: c_int, ...) -> c_int;
        pub fn mkdirat(dir: c_int, path: *const c_char, mode: c_uint) -> c_int;
        pub fn unlinkat(dir: c_int, path: *const c_char, flags: c_int) -> c_int;
        pub fn symlinkat(target: *const c_char, dir: c_int, path: *const c_char) -> c_int;
        pub fn linkat(
            od: c_int,
            op: *const c_char,
            nd: c_int,
            np: *const c_char,
            flags: c_int,
        ) -> c_int;
        pub fn mknodat(dir: c_int, path: *const c_char, mode: c_uint, dev: u64) -> c_int;
        pub fn readlinkat(dir: c_int, path: *const c_char, buf: *mut c_char, len: usize) -> isize;
        pub fn renameat(od: c_int, op: *const c_char, nd: c_int, np: *const c_char) -> c_int;
        pub fn fchownat(dir: c_int, path: *const c_char, u: u32, g: u32, flags: c_int) -> c_int;
        pub fn fchown(fd: c_int, u: u32, g: u32) -> c_int;
        pub fn fchmod(fd: c_int, mode: c_uint) -> c_int;
        pub fn utimensat(
            dir: c_int,
            path: *const c_char,
            times: *const Timespec,
            flags: c_int,
        ) -> c_int;
        pub fn futimens(fd: c_int, times: *const Timespec) -> c_int;
        pub fn fstatfs(fd: c_int, buf: *mut i64) -> c_int;
        pub fn syncfs(fd: c_int) -> c_int;
        pub fn sync();
        pub fn sethostname(name: *const c_char, len: usize) -> c_int;
        pub fn getrlimit(resource: c_uint, lim: *mut [u64; 2]) -> c_int;
        pub fn setrlimit(resource: c_uint, lim: *const [u64; 2]) -> c_int;
        pub fn syscall(nr: c_long, ...) -> c_long;
        pub fn __errno_location() -> *mut c_int;
    }
}

/// Calls that are safe to make between `clone(CLONE_VM)` and `execve`: they
/// neither allocate nor take a lock.
pub mod raw {
    use super::*;
    extern "C" {
        pub fn clone(
            entry: extern "C" fn(*mut c_void) -> c_int,
            stack: *mut c_void,
            flags: c_int,
            arg: *mut c_void,
            ...
        ) -> c_int;
        pub fn execve(
            path: *const c_char,
            argv: *const *const c_char,
            envp: *const *const c_char,
        ) -> c_int;
        pub fn setsid() -> i32;
        pub fn chdir(path: *const c_char) -> c_int;
        pub fn umask(mask: c_uint) -> c_uint;
        pub fn _exit(code: c_int) -> !;
    }
    pub const CLONE_VM: c_int = 0x100;
    pub const CLONE_VFORK: c_int = 0x4000;
    pub const SIG_DFL: usize = 0;

    pub fn errno() -> i32 {
        // SAFETY: glibc returns this thread's errno, always valid.
        unsafe { *c::__errno_location() }
    }
    pub fn set_errno(errno: i32) {
        // SAFETY: as above.
        unsafe { *c::__errno_location() = errno }
    }
    // The glibc wrappers of these signal every thread to follow; in a child
    // that shares the parent's memory that would change the parent. The raw
    // calls change the calling task only.
    pub unsafe fn setgroups(gids: &[u32]) -> bool {
        c::syscall(nr::SETGROUPS as c_long, gids.len(), gids.as_ptr()) == 0
    }
    pub unsafe fn setresgid(gid: u32) -> bool {
        c::syscall(nr::SETRESGID as c_long, gid as c_long, gid as c_long, gid as c_long) == 0
    }
    pub unsafe fn setresuid(uid: u32) -> bool {
        c::syscall(nr::SETRESUID as c_long, uid as c_long, uid as c_long, uid as c_long) == 0
    }
    pub unsafe fn dup2(old: RawFd, new: RawFd) -> bool {
        c::dup2(old, new) == new
    }
    pub unsafe fn setrlimit(resource: u32, soft: u64, hard: u64) -> bool {
        c::setrlimit(resource, &[soft, hard]) == 0
    }
    pub unsafe fn set_controlling_tty(fd: RawFd) -> bool {
        c::ioctl(fd, 0x540E as c_ulong, 0 as c_int) == 0
    }
    pub unsafe fn default_signal(sig: c_int) {
        c::signal(sig, SIG_DFL);
    }
    pub unsafe fn unblock_all_signals() {
        let empty: SigSet = [0; 16];
        c::pthread_sigmask(2, &empty, std::ptr::null_mut());
    }
    pub unsafe fn write_file(path: *const c_char, data: &[u8]) -> bool {
        let fd = c::openat(AT_FDCWD, path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
        if fd < 0 {
            return false;
        }
        let n = c::write(fd, data.as_ptr().cast(), data.len());
        let err = errno();
        c::close(fd);
        *c::__errno_location() = err;
        n == data.len() as isize
    }
    pub unsafe fn no_new_privs() -> bool {
        c::prctl(38, 1 as c_ulong, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) == 0
    }
    /// Drops every capability outside `keep` from the bounding set.
    pub unsafe fn bound_capabilities(keep: u64) -> bool {
        for cap in 0..64u64 {
            let held = c::prctl(23, cap as c_ulong, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong);
            if held < 0 {
                break; // past the kernel's last capability
            }
            if held == 1
                && keep & (1 << cap) == 0
                && c::prctl(24, cap as c_ulong, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) != 0
            {
                return false;
            }
        }
        true
    }
    /// Masks the effective, permitted and inheritable sets with `keep`, and
    /// empties the ambient set.
    pub unsafe fn mask_capabilities(keep: u64) -> bool {
        let header: [u32; 2] = [0x2008_0522, 0];
        let mut sets = [0u32; 6];
        if c::syscall(nr::CAPGET as c_long, header.as_ptr(), sets.as_mut_ptr()) != 0 {
            return false;
        }
        for (i, word) in sets.iter_mut().enumerate() {
            *word &= if i < 3 { keep as u32 } else { (keep >> 32) as u32 };
        }
        c::prctl(47, 4 as c_ulong, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong);
        c::syscall(nr::CAPSET as c_long, header.as_ptr(), sets.as_ptr()) == 0
    }
}

fn check(n: c_int) -> io::Result<c_int> {
    if n < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(n)
    }
}

fn own(n: c_int) -> io::Result<OwnedFd> {
    // SAFETY: a non-negative result is a descriptor nobody else holds.
    check(n).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

pub fn errno_of(err: &io::Error) -> i32 {
    err.raw_os_error().unwrap_or(EIO)
}

pub fn os_error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

pub fn would_block(err: &io::Error) -> bool {
    matches!(err.raw_os_error(), Some(EAGAIN) | Some(EINTR))
}

// ---- epoll, signals, events -------------------------------------------------

pub struct Epoll(OwnedFd);

impl Epoll {
    pub fn new() -> io::Result<Epoll> {
        Ok(Epoll(own(unsafe { c::epoll_create1(O_CLOEXEC) })?))
    }

    pub fn add(&self, fd: RawFd, events: u32, token: u64) -> io::Result<()> {
        let mut event = EpollEvent { events, data: token };
        check(unsafe { c::epoll_ctl(self.0.as_raw_fd(), 1, fd, &mut event) }).map(drop)
    }

    pub fn wait(&self, events: &mut [EpollEvent], timeout_ms: i32) -> io::Result<usize> {
        let n = unsafe {
            c::epoll_wait(
                self.0.as_raw_fd(),
                events.as_mut_ptr(),
                events.len() as c_int,
                timeout_ms,
            )
        };
        match check(n) {
            Ok(n) => Ok(n as usize),
            Err(err) if err.raw_os_error() == Some(EINTR) => Ok(0),
            Err(err) => Err(err),
        }
    }
}

/// Blocks every catchable signal for this thread and those it starts, and
/// returns a descriptor that becomes readable on SIGCHLD.
pub fn block_signals() -> io::Result<OwnedFd> {
    // Faults must still kill the process, so SIGILL, TRAP, ABRT, BUS, FPE and SEGV stay open.
    let mut all: SigSet = [0; 16];
    all[0] = u64::MAX;
    for sig in [4, 5, 6, 7, 8, 11] {
        all[0] &= !(1u64 << (sig - 1));
    }
    let mut chld: SigSet = [0; 16];
    chld[0] = 1 << (SIGCHLD - 1);
    unsafe {
        // Signals ignored by whoever started us would stay ignored in guests.
        for sig in 1..=64 {
            if sig != SIGKILL && sig != SIGSTOP && !(32..34).contains(&sig) {
                // Keep handlers that std installed for stack overflow reports.
                if sig != 7 && sig != 11 {
                    c::signal(sig, raw::SIG_DFL);
                }
            }
        }
        c::signal(SIGPIPE, 1);
        check(c::pthread_sigmask(2, &all, std::ptr::null_mut()))?;
        own(c::signalfd(-1, &chld, O_CLOEXEC | O_NONBLOCK))
    }
}

pub fn eventfd() -> io::Result<OwnedFd> {
    own(unsafe { c::eventfd(0, O_CLOEXEC | O_NONBLOCK) })
}

// ---- descriptors ------------------------------------------------------------

/// (read end, write end), both close-on-exec and blocking.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    check(unsafe { c::pipe2(fds.as_mut_ptr(), O_CLOEXEC) })?;
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

pub fn read_into(fd: RawFd, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the slice is valid for writing.
    unsafe { read_raw(fd, buf.as_mut_ptr(), buf.len()) }
}

/// # Safety
/// `ptr` must be writable for `len` bytes.
pub unsafe fn read_raw(fd: RawFd, ptr: *mut u8, len: usize) -> io::Result<usize> {
    let n = c::read(fd, ptr.cast(), len);
    if n < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(n as usize)
    }
}

pub fn write_from(fd: RawFd, buf: &[u8]) -> io::Result<usize> {
    let n = unsafe { c::write(fd, buf.as_ptr().cast(), buf.len()) };
    if n < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(n as usize)
    }
}

pub fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    unsafe {
        let flags = check(c::fcntl(fd, 3))?;
        check(c::fcntl(fd, 4, flags | O_NONBLOCK)).map(drop)
    }
}

/// A close-on-exec duplicate numbered at least `min`.
pub fn dup_above(fd: RawFd, min: c_int) -> io::Result<OwnedFd> {
    own(unsafe { c::fcntl(fd, 1030, min) })
}

/// Makes `new` refer to what `old` refers to; `new` survives exec.
pub fn replace_fd(old: RawFd, new: RawFd) -> io::Result<()> {
    check(unsafe { c::dup2(old, new) }).map(drop)
}

/// Closes whatever the process was started with beyond the standard three and
/// the two named (both ≥ 3, ascending).
pub fn close_inherited_but(keep: Option<[RawFd; 2]>) {
    let [a, b] = keep.unwrap_or([2, 2]);
    close_range(3, a - 1);
    close_range(a.max(2) + 1, b - 1);
    close_range(b.max(2) + 1, RawFd::MAX);
}

fn close_range(first: RawFd, last: RawFd) {
    if first > last {
        return;
    }
    // Kernels and sandboxes without close_range get the slow way.
    unsafe {
        if c::syscall(NR_CLOSE_RANGE as c_long, first as c_long, last as c_long, 0 as c_long) != 0 {
            for fd in first..=last.min(1023) {
                c::close(fd);
            }
        }
    }
}

/// Bytes waiting to be read from a pipe or terminal.
pub fn bytes_waiting(fd: RawFd) -> u64 {
    let mut n: c_int = 0;
    let ok = unsafe { c::ioctl(fd, 0x541B as c_ulong, &mut n) } == 0;
    if ok {
        n.max(0) as u64
    } else {
        0
    }
}

pub fn accept(listener: RawFd) -> io::Result<OwnedFd> {
    own(unsafe {
        c::accept4(
            listener,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            O_CLOEXEC | O_NONBLOCK,
        )
    })
}

/// The peer's process id in our PID namespace; 0 when it lives outside of it.
pub fn peer_pid(fd: RawFd) -> io::Result<i32> {
    let mut cred = Ucred::default();
    let mut len = std::mem::size_of::<Ucred>() as u32;
    check(unsafe { c::getsockopt(fd, 1, 17, (&mut cred as *mut Ucred).cast(), &mut len) })?;
    Ok(cred.pid)
}

// ---- processes --------------------------------------------------------------

pub struct Reaped {
    pub pid: i32,
    pub status: i32,
    pub usage: Rusage,
}

/// Reaps one ended child, if there is one.
pub fn reap(pid: i32, block: bool) -> Option<Reaped> {
    let mut status = 0;
    let mut usage = Rusage::default();
    loop {
        let got = unsafe { c::wait4(pid, &mut status, if block { 0 } else { 1 }, &mut usage) };
        if got > 0 {
            return Some(Reaped { pid: got, status, usage });
        }
        if got < 0 && raw::errno() == EINTR {
            continue;
        }
        return None;
    }
}

pub fn kill(pid: i32, sig: c_int) -> io::Result<()> {
    check(unsafe { c::kill(pid, sig) }).map(drop)
}

pub fn getpid() -> i32 {
    unsafe { c::getpid() }
}

pub fn effective_uid() -> u32 {
    unsafe { c::geteuid() }
}

/// Makes the allocator give large blocks back at once and share one arena, so
/// that a burst does not stay resident (and does not end up in checkpoints).
pub fn keep_heap_small() {
    #[cfg(target_env = "gnu")]
    {
        extern "C" {
            fn mallopt(parameter: c_int, value: c_int) -> c_int;
        }
        // M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_ARENA_MAX. A refusal only
        // leaves the default.
        unsafe {
            mallopt(-3, 256 * 1024);
            mallopt(-1, 256 * 1024);
            mallopt(-8, 1);
        }
    }
}

/// Hides memory and descriptors from other processes of the same user.
pub fn forbid_inspection() -> io::Result<()> {
    check(unsafe { c::prctl(4, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) }).map(drop)
}

/// Orphans of our children come to us even when we are not PID 1.
pub fn become_subreaper() -> io::Result<()> {
    check(unsafe { c::prctl(36, 1 as c_ulong, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) }).map(drop)
}

/// Raises the soft descriptor limit to the hard one; returns the old pair.
pub fn raise_nofile() -> io::Result<[u64; 2]> {
    let mut old = [0u64; 2];
    check(unsafe { c::getrlimit(RLIMIT_NOFILE, &mut old) })?;
    check(unsafe { c::setrlimit(RLIMIT_NOFILE, &[old[1], old[1]]) })?;
    Ok(old)
}

pub fn nofile_resource() -> u32 {
    RLIMIT_NOFILE
}

// ---- terminals --------------------------------------------------------------

pub fn set_winsize(fd: RawFd, cols: u16, rows: u16) -> io::Result<()> {
    let size = Winsize { rows, cols, xpixel: 0, ypixel: 0 };
    check(unsafe { c::ioctl(fd, 0x5414 as c_ulong, &size) }).map(drop)
}

/// The process group that a terminal's keys and signals go to.
pub fn foreground_group(terminal: RawFd) -> io::Result<i32> {
    let mut group: c_int = 0;
    check(unsafe { c::ioctl(terminal, 0x540f as c_ulong, &mut group) })?;
    if group > 0 { Ok(group) } else { Err(os_error(ESRCH)) }
}

pub fn unlock_pty(master: RawFd) -> io::Result<()> {
    let unlock: c_int = 0;
    check(unsafe { c::ioctl(master, 0x4004_5431 as c_ulong, &unlock) }).map(drop)
}

pub fn pty_number(master: RawFd) -> io::Result<u32> {
    let mut n: c_uint = 0;
    check(unsafe { c::ioctl(master, 0x8004_5430 as c_ulong, &mut n) })?;
    Ok(n)
}

/// Opens the terminal's other side without going through a path.
pub fn pty_peer(master: RawFd) -> io::Result<OwnedFd> {
    own(unsafe { c::ioctl(master, 0x5441 as c_ulong, O_RDWR | O_NOCTTY | O_CLOEXEC) })
}

// ---- files ------------------------------------------------------------------

pub fn open_at(dir: RawFd, path: &CStr, flags: c_int, mode: u32) -> io::Result<OwnedFd> {
    loop {
        match own(unsafe { c::openat(dir, path.as_ptr(), flags | O_CLOEXEC, mode as c_uint) }) {
            Err(err) if err.raw_os_error() == Some(EINTR) => continue,
            other => return other,
        }
    }
}

pub fn mkdir_at(dir: RawFd, path: &CStr, mode: u32) -> io::Result<()> {
    check(unsafe { c::mkdirat(dir, path.as_ptr(), mode) }).map(drop)
}

pub fn unlink_at(dir: RawFd, path: &CStr, flags: c_int) -> io::Result<()> {
    check(unsafe { c::unlinkat(dir, path.as_ptr(), flags) }).map(drop)
}

pub fn symlink_at(target: &CStr, dir: RawFd, path: &CStr) -> io::Result<()> {
    check(unsafe { c::symlinkat(target.as_ptr(), dir, path.as_ptr()) }).map(drop)
}

/// Hard link; never follows a symlink in the last component of `old`.
pub fn link_at(old_dir: RawFd, old: &CStr, new_dir: RawFd, new: &CStr) -> io::Result<()> {
    check(unsafe { c::linkat(old_dir, old.as_ptr(), new_dir, new.as_ptr(), 0) }).map(drop)
}

pub fn mknod_at(dir: RawFd, path: &CStr, mode: u32, dev: u64) -> io::Result<()> {
    check(unsafe { c::mknodat(dir, path.as_ptr(), mode, dev) }).map(drop)
}

pub fn readlink_at(dir: RawFd, path: &CStr) -> io::Result<Vec<u8>> {
    let mut buf = vec![0u8; 4096];
    let n = unsafe { c::readlinkat(dir, path.as_ptr(), buf.as_mut_ptr().cast(), buf.len()) };
    if n < 0 {
        return Err(io::Error::last_os_error());
    }
    buf.truncate(n as usize);
    Ok(buf)
}

pub fn rename_at(old_dir: RawFd, old: &CStr, new_dir: RawFd, new: &CStr) -> io::Result<()> {
    check(unsafe { c::renameat(old_dir, old.as_ptr(), new_dir, new.as_ptr()) }).map(drop)
}

/// Changes the owner of the entry itself, never of a link's target.
pub fn lchown_at(dir: RawFd, path: &CStr, uid: u32, gid: u32) -> io::Result<()> {
    check(unsafe { c::fchownat(dir, path.as_ptr(), uid, gid, AT_SYMLINK_NOFOLLOW) }).map(drop)
}

pub fn fchown(fd: RawFd, uid: u32, gid: u32) -> io::Result<()> {
    check(unsafe { c::fchown(fd, uid, gid) }).map(drop)
}

pub fn fchmod(fd: RawFd, mode: u32) -> io::Result<()> {
    check(unsafe { c::fchmod(fd, mode) }).map(drop)
}

pub fn set_mtime_at(dir: RawFd, path: &CStr, mtime: Timespec) -> io::Result<()> {
    let times = [Timespec { sec: 0, nsec: UTIME_OMIT }, mtime];
    check(unsafe { c::utimensat(dir, path.as_ptr(), times.as_ptr(), AT_SYMLINK_NOFOLLOW) })
        .map(drop)
}

pub fn set_mtime(fd: RawFd, mtime: Timespec) -> io::Result<()> {
    let times = [Timespec { sec: 0, nsec: UTIME_OMIT }, mtime];
    check(unsafe { c::futimens(fd, times.as_ptr()) }).map(drop)
}

/// The magic number of the file system behind a descriptor.
pub fn fs_type(fd: RawFd) -> io::Result<i64> {
    let mut buf = [0i64; 32];
    check(unsafe { c::fstatfs(fd, buf.as_mut_ptr()) })?;
    Ok(buf[0])
}

/// Raw directory records; an empty result is the end.
pub fn getdents(fd: RawFd, buf: &mut [u8]) -> io::Result<usize> {
    let n = unsafe {
        c::syscall(nr::GETDENTS64 as c_long, fd as c_long, buf.as_mut_ptr(), buf.len())
    };
    if n < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(n as usize)
    }
}

pub fn sync_fs(fd: BorrowedFd<'_>) -> io::Result<()> {
    check(unsafe { c::syncfs(fd.as_raw_fd()) }).map(drop)
}

pub fn sync_all() {
    unsafe { c::sync() }
}

pub fn set_hostname(name: &[u8]) -> io::Result<()> {
    check(unsafe { c::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Feeds the kernel's pool and credits it. Needs CAP_SYS_ADMIN.
pub fn add_entropy(fd: RawFd, bytes: &[u8]) -> io::Result<()> {
    let mut info = Vec::with_capacity(8 + bytes.len());
    info.extend_from_slice(&((bytes.len() * 8) as i32).to_ne_bytes());
    info.extend_from_slice(&(bytes.len() as i32).to_ne_bytes());
    info.extend_from_slice(bytes);
    check(unsafe { c::ioctl(fd, 0x4008_5203 as c_ulong, info.as_ptr()) }).map(drop)
}

