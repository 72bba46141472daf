//! The attempts by name. Names are stable: tests and docs/security.md speak of them.
use crate::sys::{call, device, mknod, mount, nr, text};
use crate::Attempt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

pub const ALL: &[(&str, Attempt)] = &[
    ("cgroup-release-agent", |_| {
        let _ = fs::create_dir("/tmp/cg");
        let mounted = mount("cgroup", "/tmp/cg", "cgroup", 0, "rdma").or_else(|_| mount("cgroup", "/tmp/cg", "cgroup", 0, "memory"));
        let written = write_any(&find_files("/sys/fs/cgroup", "release_agent", 4), b"/nothing");
        mounted.map(|_| "mounted a cgroup hierarchy".to_string()).or(written)
            .map_err(|why| why.to_string())
    }),
    ("cgroup-v2-mount", |_| {
        let _ = fs::create_dir("/tmp/cg2");
        done(mount("none", "/tmp/cg2", "cgroup2", 0, ""), "mounted cgroup2")
    }),
    ("cgroup-limits-raise", |_| write_any(
        &["memory.limit_in_bytes", "memory.max", "pids.max", "cpu.max", "cpu.cfs_quota_us"].iter().flat_map(|name| find_files("/sys/fs/cgroup", name, 3)).collect::<Vec<_>>(),
        b"-1",
    )),
    ("cgroup-devices-allow", |_| write_any(&find_files("/sys/fs/cgroup", "devices.allow", 3), b"a *:* rwm")),
    ("core-pattern", |_| rewrite("/proc/sys/kernel/core_pattern")),
    ("modprobe-path", |_| rewrite("/proc/sys/kernel/modprobe")),
    ("uevent-helper", |_| rewrite("/sys/kernel/uevent_helper")),
    ("sysctl-write", |_| rewrite("/proc/sys/kernel/panic").or_else(|_| rewrite("/proc/sys/vm/overcommit_memory"))),
    ("binfmt-misc", |_| {
        let mounted = mount("none", "/proc/sys/fs/binfmt_misc", "binfmt_misc", 0, "");
        done(mounted, "mounted binfmt_misc").or_else(|_| write_any(&["/proc/sys/fs/binfmt_misc/register".into()], b":x:E::faasx::/bin/true:"))
    }),
    // `h` only prints help into the kernel's log.
    ("sysrq", |_| write_any(&["/proc/sysrq-trigger".into()], b"h")),
    ("mknod-block-device", |_| {
        let mut last = "no device".to_string();
        for (major, minor) in block_devices() {
            let path = format!("/tmp/disk-{major}-{minor}");
            let _ = fs::remove_file(&path);
            match mknod(&path, 0o060600, device(major, minor)).and_then(|_| read_some(&path)) {
                Ok(bytes) => return Ok(format!("read {bytes} bytes of block device {major}:{minor}")),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }),
    ("mknod-memory", |_| {
        let made = mknod("/tmp/mem", 0o020600, device(1, 1)).and_then(|_| read_some("/tmp/mem"));
        done(made, "read physical memory through a new node")
    }),
    ("dev-mem", |_| {
        let tried = ["/dev/mem", "/dev/kmem", "/dev/port", "/dev/nvram"].map(|path| read_some(path).map(|_| path));
        first(tried.into_iter().map(|one| one.map(|path| format!("read {path}"))))
    }),
    ("kcore", |_| done(read_some("/proc/kcore"), "read kernel memory")),
    ("kernel-log", |_| {
        let mut buffer = [0u8; 256];
        let log = call(nr::SYSLOG, &[3, buffer.as_mut_ptr() as i64, buffer.len() as i64]).map(|n| n as usize);
        match log.or_else(|_| read_some("/dev/kmsg")) {
            Ok(0) => Err("empty".into()),
            Ok(n) => Ok(format!("read {n} bytes of the kernel's log: {:?}", String::from_utf8_lossy(&buffer[..n.min(40)]))),
            Err(error) => Err(error.to_string()),
        }
    }),
    ("kernel-addresses", |_| {
        let symbols = fs::read_to_string("/proc/kallsyms").map_err(|error| error.to_string())?;
        match symbols.lines().find(|line| !line.starts_with("0000000000000000")) {
            Some(line) => Ok(format!("saw an address: {line}")),
            None => Err("all addresses are hidden".into()),
        }
    }),
    ("mount-tmpfs", |_| done(mount("none", "/tmp", "tmpfs", 0, ""), "mounted a tmpfs")),
    ("mount-proc-fresh", |_| {
        let _ = fs::create_dir("/tmp/proc");
        done(mount("proc", "/tmp/proc", "proc", 0, ""), "mounted an unmasked /proc")
    }),
    ("unmask-proc", |_| {
        let tried = ["/proc/kcore", "/proc/sys", "/proc/sysrq-trigger", "/sys/firmware", "/proc"].map(|path| {
            let target = text(path);
            call(nr::UMOUNT2, &[target.as_ptr() as i64, 2]).map(|_| format!("unmounted {path}"))
        });
        first(tried.into_iter())
    }),
    ("remount-proc-writable", |_| done(mount("none", "/proc/sys", "", 0x20 | 0x1000, ""), "remounted /proc/sys writable")),
    ("bind-mount", |_| done(mount("/etc", "/tmp", "", 0x1000, ""), "bound a directory")),
    ("new-mount-api", |_| {
        let root = text("/");
        let tree = call(nr::OPEN_TREE, &[-100, root.as_ptr() as i64, 1]);
        let kind = text("tmpfs");
        done(tree.or_else(|_| call(nr::FSOPEN, &[kind.as_ptr() as i64, 0])), "cloned a mount tree")
    }),
    ("pivot-root", |_| {
        let here = text(".");
        done(call(nr::PIVOT_ROOT, &[here.as_ptr() as i64, here.as_ptr() as i64]), "changed the root mount")
    }),
    ("userns-mount", |_| {
        call(nr::UNSHARE, &[0x1000_0000 | 0x0002_0000]).map_err(|error| error.to_string())?;
        done(mount("none", "/tmp", "tmpfs", 0, ""), "became root of a user namespace and mounted")
    }),
    ("unshare-namespaces", |_| done(call(nr::UNSHARE, &[0x0002_0000 | 0x4000_0000 | 0x2000_0000]), "made mount, network and pid namespaces")),
    ("setns-init", |_| {
        let tried = ["mnt", "net", "pid", "uts", "ipc", "cgroup"].map(|kind| {
            let file = fs::File::open(format!("/proc/1/ns/{kind}"))?;
            call(nr::SETNS, &[i64::from(file.as_raw_fd()), 0]).map(|_| format!("entered the {kind} namespace of process 1"))
        });
        first(tried.into_iter())
    }),
    ("ptrace-host-process", |_| {
        // Process ids of the host mean nothing here; whatever answers beyond our own tree is a leak of the pid namespace.
        let own = fs::read_dir("/proc").map_err(|error| error.to_string())?.count();
        let foreign = (300..3000).find(|pid| !Path::new(&format!("/proc/{pid}")).exists() && call(nr::PTRACE, &[16, *pid]).is_ok());
        foreign.map(|pid| format!("attached to process {pid}")).ok_or(format!("no foreign process among {own} entries"))
    }),
    ("proc-root-traversal", |host| {
        let mut paths = vec![format!("/proc/1/root{}", host.marker), format!("/proc/self/root/../..{}", host.marker), format!("/proc/1/cwd/../../../../../../..{}", host.marker)];
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            paths.push(format!("/proc/{}/root{}", entry.file_name().to_string_lossy(), host.marker));
        }
        marker_through(&paths)
    }),
    ("leaked-descriptors", |host| {
        // CVE-2024-21626: a directory of the host left open leads out by `..`.
        let mut paths = Vec::new();
        for process in ["self", "1"] {
            for fd in 0..64 {
                paths.push(format!("/proc/{process}/fd/{fd}/../../../../../../../../..{}", host.marker));
                paths.push(format!("/proc/{process}/fd/{fd}{}", host.marker));
            }
        }
        marker_through(&paths)
    }),
    ("symlink-traversal", |host| {
        let _ = std::os::unix::fs::symlink(format!("../../../../../../../../..{}", host.marker), "/tmp/out");
        let _ = std::os::unix::fs::symlink("/proc/1/root", "/tmp/root");
        marker_through(&["/tmp/out".to_string(), format!("/tmp/root{}", host.marker)])
    }),
    ("chroot-breakout", |host| {
        // The classic: leave a directory outside of the new root, and climb from it.
        let _ = fs::create_dir("/tmp/jail");
        let jail = text("/tmp/jail");
        call(nr::CHROOT, &[jail.as_ptr() as i64]).map_err(|error| error.to_string())?;
        for _ in 0..64 {
            std::env::set_current_dir("..").map_err(|error| error.to_string())?;
        }
        let here = text(".");
        call(nr::CHROOT, &[here.as_ptr() as i64]).map_err(|error| error.to_string())?;
        marker_through(&[host.marker.clone()])
    }),
    ("open-by-handle", |host| {
        // "shocker": file handles name inodes of the host's file system.
        let mut last = "no handle".to_string();
        for mount_point in ["/", "/etc/hosts", "/etc/resolv.conf", "/dev/shm"] {
            let Ok(file) = fs::File::open(mount_point) else { continue };
            for kind in [1u32, 0x81] {
                let mut handle = [0u8; 16];
                handle[0..4].copy_from_slice(&8u32.to_ne_bytes());
                handle[4..8].copy_from_slice(&kind.to_ne_bytes());
                handle[8..12].copy_from_slice(&2u32.to_ne_bytes());
                match call(nr::OPEN_BY_HANDLE_AT, &[i64::from(file.as_raw_fd()), handle.as_ptr() as i64, 0]) {
                    Ok(fd) => {
                        let path = format!("/proc/self/fd/{fd}{}", host.marker);
                        return marker_through(&[path]).or(Ok(format!("opened inode 2 below {mount_point} by its handle")));
                    }
                    Err(error) => last = error.to_string(),
                }
            }
        }
        Err(last)
    }),
    ("overwrite-init-binary", |_| {
        // CVE-2019-5736: the runtime's own binary through /proc/PID/exe.
        let opened = OpenOptions::new().write(true).open("/proc/1/exe");
        done(opened, "opened the binary of process 1 for writing")
    }),
    ("overwrite-runtime-binary", |_| {
        // During an exec the runtime itself would be a process of the sandbox for a moment.
        for _ in 0..200 {
            for entry in fs::read_dir("/proc").map_err(|error| error.to_string())?.flatten() {
                let name = entry.file_name().to_string_lossy().to_string();
                if !name.bytes().all(|byte| byte.is_ascii_digit()) {
                    continue;
                }
                let Ok(target) = fs::read_link(format!("/proc/{name}/exe")) else { continue };
                let target = target.to_string_lossy().to_string();
                if ["runc", "crun", "runsc", "docker", "containerd"].iter().any(|runtime| target.contains(runtime)) {
                    return Ok(format!("saw the runtime as {target}"));
                }
            }
        }
        Err("the runtime never shows inside".into())
    }),
    ("ptrace-init", |_| done(call(nr::PTRACE, &[0x4206, 1, 0, 0]), "attached to the agent")),
    ("read-init-memory", |_| {
        let mut buffer = [0u8; 16];
        let maps = fs::read_to_string("/proc/1/maps").map_err(|error| error.to_string())?;
        let start = maps.split('-').next().and_then(|hex| i64::from_str_radix(hex, 16).ok()).ok_or("no mapping to read")?;
        let local = [buffer.as_mut_ptr() as i64, buffer.len() as i64];
        let remote = [start, buffer.len() as i64];
        let read = call(nr::PROCESS_VM_READV, &[1, local.as_ptr() as i64, 1, remote.as_ptr() as i64, 1, 0]);
        done(read, "read the agent's memory")
    }),
    ("steal-init-descriptor", |_| {
        let pidfd = call(nr::PIDFD_OPEN, &[1, 0]).map_err(|error| error.to_string())?;
        first((0..32).map(|fd| call(nr::PIDFD_GETFD, &[pidfd, fd, 0]).map(|_| format!("took descriptor {fd} of the agent"))))
    }),
    ("agent-socket-from-guest", |_| {
        let mut last = "no socket of the agent is in sight".to_string();
        let mut paths = sockets_below("/", 4);
        paths.extend(unix_names());
        for path in paths {
            match talk(&path) {
                Ok(answer) => return Ok(format!("{path} answered with {answer} bytes")),
                Err(error) => last = format!("{path}: {error}"),
            }
        }
        Err(last)
    }),
    ("load-module", |_| {
        let empty = text("");
        let loaded = call(nr::INIT_MODULE, &[empty.as_ptr() as i64, 0, empty.as_ptr() as i64]);
        let error = match loaded {
            Ok(_) => return Ok("loaded a module".into()),
            Err(error) => error,
        };
        // Anything but a refusal means that the kernel looked at the module.
        let file = fs::File::open("/proc/self/exe").map_err(|error| error.to_string())?;
        match call(nr::FINIT_MODULE, &[i64::from(file.as_raw_fd()), empty.as_ptr() as i64, 0]) {
            Err(second) if refusal(&error) && refusal(&second) => Err(second.to_string()),
            Err(second) => Ok(format!("the kernel looked at the module: {error}, {second}")),
            Ok(_) => Ok("loaded a module".into()),
        }
    }),
    ("bpf", |_| {
        let attribute = [1u32, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        done(call(nr::BPF, &[0, attribute.as_ptr() as i64, 72]), "made a BPF map")
    }),
    ("userfaultfd", |_| done(call(nr::USERFAULTFD, &[0o2000000]), "opened userfaultfd for kernel faults")),
    ("keyring", |_| {
        let (kind, name) = (text("user"), text("faas-probe"));
        let made = call(nr::ADD_KEY, &[kind.as_ptr() as i64, name.as_ptr() as i64, name.as_ptr() as i64, 4, -3]);
        done(made.or_else(|_| call(nr::KEYCTL, &[0, -3, 1])), "used the kernel's keyring")
    }),
    ("perf-events", |_| {
        let mut attribute = [0u8; 112];
        attribute[0] = 1;
        attribute[4] = 112;
        done(call(nr::PERF_EVENT_OPEN, &[attribute.as_ptr() as i64, 0, -1, -1, 0]), "opened a performance counter")
    }),
    ("io-uring", |_| {
        let mut params = [0u8; 120];
        done(call(nr::IO_URING_SETUP, &[1, params.as_mut_ptr() as i64]), "made an io_uring")
    }),
    ("kexec", |_| done(call(nr::KEXEC_LOAD, &[0, 0, 0, 0]), "unloaded the crash kernel")),
    // A wrong magic number: EINVAL says that the call itself would be let through.
    ("reboot", |_| match call(nr::REBOOT, &[1, 2, 3, 0]) {
        Err(error) if refusal(&error) => Err(error.to_string()),
        Err(error) => Ok(format!("the call is let through: {error}")),
        Ok(_) => Ok("rebooted".into()),
    }),
    ("set-clock", |_| {
        let bad = [0i64, -1];
        match call(nr::CLOCK_SETTIME, &[0, bad.as_ptr() as i64]) {
            Err(error) if refusal(&error) => Err(error.to_string()),
            Err(error) if error.raw_os_error() == Some(22) => {
                // The value is judged before the right; ask with the present time.
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_err(|error| error.to_string())?;
                let time = [now.as_secs() as i64, i64::from(now.subsec_nanos())];
                done(call(nr::CLOCK_SETTIME, &[0, time.as_ptr() as i64]), "set the clock")
            }
            Err(error) => Err(error.to_string()),
            Ok(_) => Ok("set the clock".into()),
        }
    }),
    ("set-host-name", |_| {
        let name = text("escaped");
        done(call(nr::SETHOSTNAME, &[name.as_ptr() as i64, 7]), "set the host name")
    }),
    ("swap-on", |_| {
        let path = text("/etc/passwd");
        match call(nr::SWAPON, &[path.as_ptr() as i64, 0]) {
            Err(error) if refusal(&error) => Err(error.to_string()),
            Err(error) => Ok(format!("the call is let through: {error}")),
            Ok(_) => Ok("swapped".into()),
        }
    }),
    ("io-ports", |_| match nr::IOPL {
        Some(number) => done(call(number, &[3]), "got the right to I/O ports"),
        None => Err("this machine has no I/O ports".into()),
    }),
    ("process-accounting", |_| {
        let _ = fs::write("/tmp/acct", b"");
        let path = text("/tmp/acct");
        done(call(nr::ACCT, &[path.as_ptr() as i64]), "turned on process accounting")
    }),
    ("quota-control", |_| match call(nr::QUOTACTL, &[0x0080_0001_u32 as i64, 0, 0, 0]) {
        Err(error) if refusal(&error) || error.raw_os_error() == Some(3) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
        Ok(_) => Ok("synchronised the host's quotas".into()),
    }),
    ("raw-socket", |_| done(call(nr::SOCKET, &[2, 3, 1]).or_else(|_| call(nr::SOCKET, &[17, 3, 0x0300])), "opened a raw socket")),
    ("vsock", |_| done(call(nr::SOCKET, &[40, 1, 0]), "opened a vsock to the hypervisor")),
    ("netfilter-netlink", |_| {
        // A dump of the tables needs CAP_NET_ADMIN over the network namespace.
        let Ok(fd) = call(nr::SOCKET, &[16, 3, 12]) else { return Err(io::Error::last_os_error().to_string()) };
        // SAFETY: the descriptor was just made and is owned by nobody else.
        let mut socket = fs::File::from(unsafe { OwnedFd::from_raw_fd(fd as i32) });
        let message: [u8; 20] = [20, 0, 0, 0, 1, 0x0a, 0x01, 0x03, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0];
        socket.write_all(&message).map_err(|error| error.to_string())?;
        let mut answer = [0u8; 64];
        let length = socket.read(&mut answer).map_err(|error| error.to_string())?;
        let is_error = length >= 20 && answer[4] == 2 && i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) != 0;
        if is_error { Err("netlink answered with an error".into()) } else { Ok("listed the packet filter".into()) }
    }),
    ("abstract-socket-of-host", |host| {
        let address = std::os::unix::net::SocketAddr::from_abstract_name(host.abstract_name.as_bytes()).map_err(|error| error.to_string())?;
        done(UnixStream::connect_addr(&address), "connected to an abstract socket of the host")
    }),
    ("host-loopback", |host| {
        first([[127, 0, 0, 1], [0, 0, 0, 0]].into_iter().map(|ip| connect(SocketAddr::from((ip, host.port)))))
    }),
    ("cloud-metadata", |_| connect(SocketAddr::from(([169, 254, 169, 254], 80))).map_err(|error| error.to_string())),
    ("docker-socket", |_| {
        let tried = ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock"];
        first(tried.into_iter().map(|path| UnixStream::connect(path).map(|_| format!("connected to {path}"))))
    }),
];

fn done<T>(result: io::Result<T>, evidence: &str) -> Result<String, String> {
    result.map(|_| evidence.to_string()).map_err(|error| error.to_string())
}

/// The first success, else the last refusal.
fn first(tried: impl Iterator<Item = io::Result<String>>) -> Result<String, String> {
    let mut last = "nothing to try".to_string();
    for one in tried {
        match one {
            Ok(evidence) => return Ok(evidence),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

/// EPERM, EACCES, ENOSYS: the call was turned away before it was looked at.
fn refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(1 | 13 | 38))
}

fn read_some(path: &str) -> io::Result<usize> {
    let mut buffer = [0u8; 512];
    match fs::File::open(path)?.read(&mut buffer)? {
        0 => Err(io::Error::other("empty")),
        n => Ok(n),
    }
}

/// Writes back what is there already, so that a success changes nothing.
fn rewrite(path: &str) -> Result<String, String> {
    let value = fs::read(path).map_err(|error| error.to_string())?;
    write_any(&[path.to_string()], &value)
}

fn write_any(paths: &[String], bytes: &[u8]) -> Result<String, String> {
    first(paths.iter().map(|path| {
        OpenOptions::new().write(true).open(path)?.write_all(bytes)?;
        Ok(format!("wrote {path}"))
    }))
}

fn marker_through(paths: &[String]) -> Result<String, String> {
    for path in paths {
        if let Ok(bytes) = fs::read(path) {
            if bytes.starts_with(b"faas-host-marker") {
                return Ok(format!("read the host's file as {path}"));
            }
        }
    }
    Err("the host's file is out of reach".into())
}

/// The host's disks as the kernel names them, and the usual numbers in case the list is hidden.
fn block_devices() -> Vec<(u64, u64)> {
    let mut found = vec![(254, 0), (8, 0), (8, 1), (259, 0), (253, 0), (252, 0), (7, 0)];
    for line in fs::read_to_string("/proc/partitions").unwrap_or_default().lines() {
        let mut fields = line.split_whitespace().map(str::parse::<u64>);
        if let (Some(Ok(major)), Some(Ok(minor))) = (fields.next(), fields.next()) {
            found.push((major, minor));
        }
    }
    found
}

fn find_files(dir: &str, name: &str, depth: u32) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path().to_string_lossy().to_string();
        if entry.file_name().to_string_lossy() == name {
            found.push(path);
        } else if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(find_files(&path, name, depth - 1));
        }
    }
    found
}

fn sockets_below(dir: &str, depth: u32) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path().to_string_lossy().to_string();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_socket() {
            found.push(path);
        } else if depth > 0 && kind.is_dir() && !path.starts_with("/proc") && !path.starts_with("/sys") {
            found.extend(sockets_below(&path, depth - 1));
        }
    }
    found
}

fn unix_names() -> Vec<String> {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    table.lines().filter_map(|line| line.split_whitespace().nth(7)).map(str::to_string).collect()
}

/// Bytes that the other end says first. Silence or a closed connection is a refusal.
fn talk(path: &str) -> io::Result<usize> {
    let mut stream = match path.strip_prefix('@') {
        Some(name) => UnixStream::connect_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name.as_bytes())?)?,
        None => UnixStream::connect(path)?,
    };
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut buffer = [0u8; 256];
    match stream.read(&mut buffer)? {
        0 => Err(io::Error::other("closed at once")),
        n => Ok(n),
    }
}

fn connect(address: SocketAddr) -> io::Result<String> {
    TcpStream::connect_timeout(&address, Duration::from_secs(3)).map(|_| format!("connected to {address}"))
}
