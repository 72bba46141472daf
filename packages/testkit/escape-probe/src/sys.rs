//! The few system calls that the standard library has no name for.
use std::ffi::CString;
use std::io;

extern "C" {
    fn syscall(number: i64, ...) -> i64;
}

#[cfg(target_arch = "x86_64")]
pub mod nr {
    pub const SOCKET: i64 = 41;
    pub const PTRACE: i64 = 101;
    pub const SYSLOG: i64 = 103;
    pub const MKNODAT: i64 = 259;
    pub const PIVOT_ROOT: i64 = 155;
    pub const CHROOT: i64 = 161;
    pub const ACCT: i64 = 163;
    pub const MOUNT: i64 = 165;
    pub const UMOUNT2: i64 = 166;
    pub const SWAPON: i64 = 167;
    pub const REBOOT: i64 = 169;
    pub const SETHOSTNAME: i64 = 170;
    pub const INIT_MODULE: i64 = 175;
    pub const QUOTACTL: i64 = 179;
    pub const CLOCK_SETTIME: i64 = 227;
    pub const KEXEC_LOAD: i64 = 246;
    pub const ADD_KEY: i64 = 248;
    pub const KEYCTL: i64 = 250;
    pub const UNSHARE: i64 = 272;
    pub const PERF_EVENT_OPEN: i64 = 298;
    pub const OPEN_BY_HANDLE_AT: i64 = 304;
    pub const SETNS: i64 = 308;
    pub const PROCESS_VM_READV: i64 = 310;
    pub const FINIT_MODULE: i64 = 313;
    pub const BPF: i64 = 321;
    pub const USERFAULTFD: i64 = 323;
    pub const IO_URING_SETUP: i64 = 425;
    pub const OPEN_TREE: i64 = 428;
    pub const FSOPEN: i64 = 430;
    pub const PIDFD_OPEN: i64 = 434;
    pub const PIDFD_GETFD: i64 = 438;
    pub const IOPL: Option<i64> = Some(172);
}

#[cfg(target_arch = "aarch64")]
pub mod nr {
    pub const SOCKET: i64 = 198;
    pub const PTRACE: i64 = 117;
    pub const SYSLOG: i64 = 116;
    pub const MKNODAT: i64 = 33;
    pub const PIVOT_ROOT: i64 = 41;
    pub const CHROOT: i64 = 51;
    pub const ACCT: i64 = 89;
    pub const MOUNT: i64 = 40;
    pub const UMOUNT2: i64 = 39;
    pub const SWAPON: i64 = 224;
    pub const REBOOT: i64 = 142;
    pub const SETHOSTNAME: i64 = 161;
    pub const INIT_MODULE: i64 = 105;
    pub const QUOTACTL: i64 = 60;
    pub const CLOCK_SETTIME: i64 = 112;
    pub const KEXEC_LOAD: i64 = 104;
    pub const ADD_KEY: i64 = 217;
    pub const KEYCTL: i64 = 219;
    pub const UNSHARE: i64 = 97;
    pub const PERF_EVENT_OPEN: i64 = 241;
    pub const OPEN_BY_HANDLE_AT: i64 = 265;
    pub const SETNS: i64 = 268;
    pub const PROCESS_VM_READV: i64 = 270;
    pub const FINIT_MODULE: i64 = 273;
    pub const BPF: i64 = 280;
    pub const USERFAULTFD: i64 = 282;
    pub const IO_URING_SETUP: i64 = 425;
    pub const OPEN_TREE: i64 = 428;
    pub const FSOPEN: i64 = 430;
    pub const PIDFD_OPEN: i64 = 434;
    pub const PIDFD_GETFD: i64 = 438;
    pub const IOPL: Option<i64> = None;
}

/// One system call with up to six plain arguments.
pub fn call(number: i64, args: &[i64]) -> io::Result<i64> {
    let at = |i: usize| args.get(i).copied().unwrap_or(0);
    // SAFETY: pointers among the arguments come from `CString`s and buffers that outlive the call.
    let result = unsafe { syscall(number, at(0), at(1), at(2), at(3), at(4), at(5)) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

pub fn text(value: &str) -> CString {
    CString::new(value).unwrap_or_default()
}

pub fn mount(source: &str, target: &str, kind: &str, flags: i64, data: &str) -> io::Result<i64> {
    let (source, target, kind, data) = (text(source), text(target), text(kind), text(data));
    call(nr::MOUNT, &[source.as_ptr() as i64, target.as_ptr() as i64, kind.as_ptr() as i64, flags, data.as_ptr() as i64])
}

/// `st_rdev` of major and minor as mknod takes it.
pub fn device(major: u64, minor: u64) -> i64 {
    (((major & 0xfff) << 8) | (minor & 0xff) | ((minor & !0xff) << 12)) as i64
}

pub fn mknod(path: &str, mode: i64, dev: i64) -> io::Result<i64> {
    let path = text(path);
    call(nr::MKNODAT, &[-100, path.as_ptr() as i64, mode, dev])
}
