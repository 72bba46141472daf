//! The file operations themselves; each runs on a worker.
//!
//! Paths are resolved by hand (`fsroot`), so a guest's links are followed as
//! the guest would, and never into the agent's own `/proc` entries by magic.

use super::jobs::Shared;
use super::requests::Refusal;
use crate::fields::{as_u32, as_u64, as_u8, FieldWriter, Fields};
use crate::frame::{code, kind, ProtocolError};
use crate::fsroot::{list_names, Outside, PathError, Place, Root, Walk};
use crate::sys;
use crate::tar::extract::{extract, write_all, ExtractError, ExtractOptions};
use crate::tar::pack;
use crate::tar::read::TarError;
use std::ffi::CString;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

pub mod flag {
    /// Make missing parents; with REMOVE, remove what is below.
    pub const RECURSIVE: u32 = 1;
    /// Follow a link in the last component.
    pub const FOLLOW: u32 = 2;
    pub const APPEND: u32 = 4;
    /// Fail when it exists.
    pub const EXCLUSIVE: u32 = 8;
}

const DEPTH_MAX: usize = 256;
const DEFAULT_WINDOW: u32 = 256 * 1024;

pub(super) struct Request {
    kind: u8,
    path: Vec<u8>,
    to: Vec<u8>,
    mode: Option<u32>,
    flags: u32,
    uid: Option<u32>,
    gid: Option<u32>,
    offset: u64,
    length: u64,
    pub window: u32,
    sync: u8,
}

type Outcome = Result<Vec<u8>, Refusal>;

/// The outer error ends the connection, the inner one is an answer.
pub(super) fn parse(kind: u8, payload: &[u8]) -> Result<Result<Request, Refusal>, ProtocolError> {
    let mut r = Request {
        kind,
        path: Vec::new(),
        to: Vec::new(),
        mode: None,
        flags: 0,
        uid: None,
        gid: None,
        offset: 0,
        length: u64::MAX,
        window: DEFAULT_WINDOW,
        sync: 0,
    };
    let mut fields = Fields::new(payload);
    while let Some((tag, value)) = fields.next()? {
        match tag {
            1 => r.path = value.to_vec(),
            2 => r.to = value.to_vec(),
            3 => r.mode = Some(as_u32(value)? & 0o7777),
            4 => r.flags = as_u32(value)?,
            5 => r.uid = Some(as_u32(value)?),
            6 => r.gid = Some(as_u32(value)?),
            7 => r.offset = as_u64(value)?,
            8 => r.length = as_u64(value)?,
            9 => r.window = as_u32(value)?,
            10 => r.sync = as_u8(value)?,
            _ => return Ok(Err(Refusal::new(code::INVALID, "unknown field"))),
        }
    }
    if kind == kind::QUIESCE {
        return Ok(Ok(r));
    }
    let good = |path: &[u8]| path.first() == Some(&b'/') && !path.contains(&0);
    if !good(&r.path) || (kind == kind::MOVE && !good(&r.to)) {
        return Ok(Err(Refusal::new(code::INVALID, "a path is not absolute, or holds a NUL byte")));
    }
    Ok(Ok(r))
}

pub(super) fn run(r: Request, io: &Shared) -> Outcome {
    match r.kind {
        kind::QUIESCE => quiesce(&r),
        kind::STAT => stat(&r),
        kind::LIST => list(&r, io),
        kind::MKDIR => make_directory(&r),
        kind::REMOVE => remove(&r),
        kind::MOVE => rename(&r),
        kind::READ => read(&r, io),
        kind::WRITE => write(&r, io),
        kind::TAR_IN => tar_in(&r, io),
        kind::TAR_OUT => tar_out(&r, io),
        _ => Err(Refusal::new(code::UNSUPPORTED, "unknown file operation")),
    }
}

fn refused(path: &[u8], err: io::Error) -> Refusal {
    if err.kind() == io::ErrorKind::Other && err.raw_os_error().is_none() {
        return Refusal::new(code::CANCELLED, "cancelled");
    }
    let path: String = String::from_utf8_lossy(path).chars().take(200).collect();
    Refusal { code: code::FILE, errno: sys::errno_of(&err), message: format!("{path}: {err}") }
}

impl Request {
    fn fail(&self, err: io::Error) -> Refusal {
        refused(&self.path, err)
    }

    fn fail_path(&self, err: PathError) -> Refusal {
        match err {
            PathError::Io(err) => self.fail(err),
            PathError::Escape => Refusal::new(code::ESCAPE, "the path leads out of its root"),
        }
    }

    fn has(&self, bit: u32) -> bool {
        self.flags & bit != 0
    }

    fn root(&self) -> Result<Root, Refusal> {
        Root::whole().map_err(|err| self.fail(err))
    }

    fn place(&self, follow_last: bool) -> Result<Place, Refusal> {
        self.root()?.find(&self.path, Walk { follow_last, create: None }).map_err(|err| self.fail_path(err))
    }

    /// The new entry's owner, where one was asked for.
    fn own(&self, fd: i32) -> io::Result<()> {
        match (self.uid, self.gid) {
            (None, None) => Ok(()),
            (uid, gid) => sys::fchown(fd, uid.unwrap_or(u32::MAX), gid.unwrap_or(u32::MAX)),
        }
    }
}

/// The kernel's own file systems are not written to: a guest's link to
/// `/proc/1/mem` must not turn a host's write against the agent.
fn refuse_kernel_files(fd: i32) -> io::Result<()> {
    let made_up = [sys::PROC_SUPER_MAGIC, sys::SYSFS_MAGIC, sys::CGROUP_SUPER_MAGIC, sys::CGROUP2_SUPER_MAGIC];
    if made_up.contains(&sys::fs_type(fd)?) {
        return Err(sys::os_error(sys::EPERM));
    }
    Ok(())
}

fn quiesce(r: &Request) -> Outcome {
    let root = File::open("/").map_err(|err| r.fail(err))?;
    match r.sync {
        0 => {}
        1 => sys::sync_fs(root.as_fd()).map_err(|err| r.fail(err))?,
        _ => sys::sync_all(),
    }
    Ok(Vec::new())
}

fn entry_fields(name: &[u8], meta: &Metadata, link: &[u8]) -> Vec<u8> {
    let t = meta.file_type();
    let letter = match () {
        _ if t.is_file() => b'f',
        _ if t.is_dir() => b'd',
        _ if t.is_symlink() => b'l',
        _ if t.is_fifo() => b'p',
        _ if t.is_socket() => b's',
        _ if t.is_char_device() => b'c',
        _ => b'b',
    };
    FieldWriter::new()
        .bytes(1, name)
        .u8(2, letter)
        .u32(3, meta.mode() & 0o7777)
        .u32(4, meta.uid())
        .u32(5, meta.gid())
        .u64(6, meta.len())
        .u64(7, (meta.mtime().wrapping_mul(1_000_000_000).wrapping_add(meta.mtime_nsec())) as u64)
        .bytes(8, link)
        .0
}

fn describe(place: &Place, name: &[u8]) -> io::Result<Vec<u8>> {
    let meta = place.metadata()?;
    let link = match meta.file_type().is_symlink() {
        true => sys::readlink_at(place.dir_fd(), &place.name)?,
        false => Vec::new(),
    };
    Ok(entry_fields(name, &meta, &link))
}

fn stat(r: &Request) -> Outcome {
    let place = r.place(r.has(flag::FOLLOW))?;
    describe(&place, &pack::tree_name(&r.path)).map_err(|err| r.fail(err))
}

/// Sends each entry as a length (u32) and its fields.
fn list(r: &Request, io: &Shared) -> Outcome {
    let dir = r.root()?.directory(&r.path, None).map_err(|err| r.fail_path(err))?;
    let names = list_names(dir.as_raw_fd()).map_err(|err| r.fail(err))?;
    for name in names {
        let copy = sys::dup_above(dir.as_raw_fd(), 3).map_err(|err| r.fail(err))?;
        let place = Place { dir: copy, name };
        match describe(&place, place.name.as_bytes()) {
            Ok(entry) => {
                let sized = [&(entry.len() as u32).to_le_bytes(), &entry[..]].concat();
                io.send(&sized).map_err(|err| r.fail(err))?;
            }
            Err(err) if sys::errno_of(&err) == sys::ENOENT => {} // gone since it was listed
            Err(err) => return Err(r.fail(err)),
        }
    }
    Ok(Vec::new())
}

fn make_directory(r: &Request) -> Outcome {
    let create = r.has(flag::RECURSIVE).then_some(0o755);
    let place = r.root()?.find(&r.path, Walk { follow_last: true, create }).map_err(|err| r.fail_path(err))?;
    let make = || -> io::Result<()> {
        if !place.is_self() {
            match sys::mkdir_at(place.dir_fd(), &place.name, 0o700) {
                Err(err) if sys::errno_of(&err) == sys::EEXIST && r.has(flag::RECURSIVE) => {
                    let is_dir = place.metadata()?.is_dir();
                    return if is_dir { Ok(()) } else { Err(err) };
                }
                other => other?,
            }
            let dir = place.open(sys::O_RDONLY | sys::O_DIRECTORY, 0)?;
            r.own(dir.as_raw_fd())?;
            return sys::fchmod(dir.as_raw_fd(), r.mode.unwrap_or(0o755));
        }
        if r.has(flag::RECURSIVE) { Ok(()) } else { Err(sys::os_error(sys::EEXIST)) }
    };
    make().map(|()| Vec::new()).map_err(|err| r.fail(err))
}

fn remove(r: &Request) -> Outcome {
    let place = r.place(false)?;
    if place.is_self() {
        return Err(Refusal::new(code::INVALID, "the root can not be removed"));
    }
    let remove = || -> io::Result<()> {
        if !place.metadata()?.is_dir() {
            return sys::unlink_at(place.dir_fd(), &place.name, 0);
        }
        if r.has(flag::RECURSIVE) {
            empty_directory(place.open(sys::O_RDONLY | sys::O_DIRECTORY, 0)?)?;
        }
        sys::unlink_at(place.dir_fd(), &place.name, sys::AT_REMOVEDIR)
    };
    remove().map(|()| Vec::new()).map_err(|err| r.fail(err))
}

/// Removes everything below, never following a link.
fn empty_directory(top: OwnedFd) -> io::Result<()> {
    let names = list_names(top.as_raw_fd())?;
    let mut levels: Vec<(OwnedFd, Vec<CString>)> = vec![(top, names)];
    while !levels.is_empty() {
        let depth = levels.len();
        let Some((dir, names)) = levels.last_mut() else { break };
        let Some(name) = names.last().cloned() else {
            levels.pop();
            if let Some((parent, names)) = levels.last_mut() {
                if let Some(name) = names.pop() {
                    sys::unlink_at(parent.as_raw_fd(), &name, sys::AT_REMOVEDIR)?;
                }
            }
            continue;
        };
        match sys::unlink_at(dir.as_raw_fd(), &name, 0) {
            Ok(()) => drop(names.pop()),
            Err(err) if sys::errno_of(&err) == sys::ENOENT => drop(names.pop()),
            // Linux answers EISDIR, other file systems EPERM.
            Err(err) if matches!(sys::errno_of(&err), sys::EISDIR | sys::EPERM) => {
                if depth >= DEPTH_MAX {
                    return Err(sys::os_error(sys::ENAMETOOLONG));
                }
                let flags = sys::O_RDONLY | sys::O_DIRECTORY | sys::O_NOFOLLOW;
                let below = match sys::open_at(dir.as_raw_fd(), &name, flags, 0) {
                    Ok(below) => below,
                    Err(_) => return Err(err),
                };
                let names = list_names(below.as_raw_fd())?;
                levels.push((below, names));
            }
            Err(err) => return Err(err),
        }
    }
    Ok(())
}

fn rename(r: &Request) -> Outcome {
    let from = r.place(false)?;
    let create = r.has(flag::RECURSIVE).then_some(0o755);
    let to = r.root()?.find(&r.to, Walk { follow_last: false, create }).map_err(|err| r.fail_path(err))?;
    sys::rename_at(from.dir_fd(), &from.name, to.dir_fd(), &to.name)
        .map(|()| Vec::new())
        .map_err(|err| r.fail(err))
}

fn read(r: &Request, io: &Shared) -> Outcome {
    let place = r.place(true)?;
    let send = || -> io::Result<u64> {
        // Non-blocking: a FIFO must not hold a worker for ever.
        let mut file = File::from(place.open(sys::O_RDONLY | sys::O_NONBLOCK | sys::O_NOCTTY, 0)?);
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(sys::os_error(sys::EISDIR));
        }
        if !meta.is_file() {
            return Err(sys::os_error(sys::EINVAL));
        }
        if r.offset > 0 {
            file.seek(SeekFrom::Start(r.offset))?;
        }
        let mut buf = vec![0u8; 64 * 1024];
        let mut sent = 0u64;
        while sent < r.length {
            let max = (r.length - sent).min(buf.len() as u64) as usize;
            let n = file.read(&mut buf[..max])?;
            if n == 0 {
                break;
            }
            io.send(&buf[..n])?;
            sent += n as u64;
        }
        Ok(sent)
    };
    send().map(|sent| FieldWriter::new().u64(1, sent).0).map_err(|err| r.fail(err))
}

fn write(r: &Request, io: &Shared) -> Outcome {
    let create = r.has(flag::RECURSIVE).then_some(0o755);
    let place = r.root()?.find(&r.path, Walk { follow_last: true, create }).map_err(|err| r.fail_path(err))?;
    let receive = || -> io::Result<u64> {
        let mut flags = sys::O_WRONLY | sys::O_CREAT | sys::O_NONBLOCK | sys::O_NOCTTY;
        if r.has(flag::APPEND) {
            flags |= sys::O_APPEND;
        }
        if r.has(flag::EXCLUSIVE) {
            flags |= sys::O_EXCL;
        }
        let file = File::from(place.open(flags, r.mode.unwrap_or(0o644) & 0o777)?);
        refuse_kernel_files(file.as_raw_fd())?;
        if !file.metadata()?.is_file() {
            return Err(sys::os_error(sys::EINVAL));
        }
        if !r.has(flag::APPEND) {
            file.set_len(0)?;
        }
        let mut written = 0u64;
        loop {
            let chunk = io.take_input()?;
            if chunk.is_empty() {
                break;
            }
            write_all(file.as_raw_fd(), &chunk)?;
            written += chunk.len() as u64;
        }
        r.own(file.as_raw_fd())?;
        if let Some(mode) = r.mode {
            sys::fchmod(file.as_raw_fd(), mode)?;
        }
        Ok(written)
    };
    receive().map(|written| FieldWriter::new().u64(1, written).0).map_err(|err| r.fail(err))
}

/// Input as a byte stream.
struct Incoming<'a> {
    io: &'a Shared,
    chunk: Vec<u8>,
    at: usize,
}

impl Read for Incoming<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            self.chunk = self.io.take_input()?;
            self.at = 0;
        }
        let n = buf.len().min(self.chunk.len() - self.at);
        buf[..n].copy_from_slice(&self.chunk[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

fn tar_in(r: &Request, io: &Shared) -> Outcome {
    let create = r.has(flag::RECURSIVE).then_some(0o755);
    let whole = r.root()?;
    let dir = whole.directory(&r.path, create).map_err(|err| r.fail_path(err))?;
    refuse_kernel_files(dir.as_raw_fd()).map_err(|err| r.fail(err))?;
    let is_top = pack::tree_name(&r.path) == b".";
    // Unpacking at `/`, absolute links mean what they mean to the guest.
    let outside = if is_top { Outside::Clamp } else { Outside::Refuse };
    let owner = r.uid.zip(r.gid);
    let incoming = Incoming { io, chunk: Vec::new(), at: 0 };
    match extract(incoming, &Root::below(dir, outside), ExtractOptions { owner }) {
        Ok(done) => Ok(FieldWriter::new().u64(1, done.entries).u64(2, done.bytes).0),
        Err(ExtractError::Tar(TarError::Bad(why))) => Err(Refusal::new(code::BAD_ARCHIVE, why)),
        Err(ExtractError::Tar(TarError::Io(err))) => Err(r.fail(err)),
        Err(ExtractError::Entry(path, err)) => Err(refused(&path, err)),
        Err(ExtractError::Escape(path)) => Err(Refusal::new(code::ESCAPE, named("leads out of the target", &path))),
        Err(ExtractError::Device(path)) => Err(Refusal::new(code::BAD_ARCHIVE, named("is a device node", &path))),
    }
}

fn named(what: &str, path: &[u8]) -> String {
    let path: String = String::from_utf8_lossy(path).chars().take(200).collect();
    format!("entry {path:?} {what}")
}

fn tar_out(r: &Request, io: &Shared) -> Outcome {
    let place = r.place(r.has(flag::FOLLOW))?;
    let name = pack::tree_name(&r.path);
    let done = pack::pack(&place, &name, &mut |bytes| io.send(bytes)).map_err(|err| r.fail(err))?;
    Ok(FieldWriter::new().u64(1, done.entries).u64(2, done.bytes).u64(3, done.skipped).0)
}
