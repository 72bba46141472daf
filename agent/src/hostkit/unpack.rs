//! `faas-hostkit unpack --root DIR [--whiteouts overlay|none] [--max-bytes N] [--max-entries N] < layer.tar`
//!
//! Extracts one image layer. The layer is hostile until proven otherwise.
//!
//! I1. Nothing outside DIR is ever reached: the process first makes DIR its
//!     root (chroot), and every parent is opened with `openat2(IN_ROOT,
//!     NO_MAGICLINKS, NO_XDEV)`, every last component with NOFOLLOW.
//! I2. Device nodes are refused. The only ones ever made are 0/0, overlayfs's
//!     whiteouts, from `.wh.` names.
//! I3. No attribute that steers overlayfs comes from the layer: only
//!     `user.*` (without `user.overlay.*`), `security.capability` and POSIX
//!     ACLs are taken over, the rest is counted and left out.
//! I4. No path under DIR gets longer than PATH_BYTES_MAX or deeper than
//!     DEPTH_MAX, so that what was unpacked can always be removed by path.
//! I5. A whiteout hides lower layers only, never an entry of its own layer.
//!
//! Needs root (chroot, chown, mknod). Without it: exit 6.
//! One line of JSON on stdout for success; on failure one line on stderr and
//! exit 2 usage, 3 refused content, 4 over a limit, 5 disk full,
//! 6 unsupported here, 1 anything else.

use std::ffi::{c_int, CStr, CString, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::fsys::{self, Stat};
use super::tar_reader::{Entry, Kind, Run, TarError, TarReader};
use crate::sys;

const PATH_BYTES_MAX: usize = 3072;
const NAME_BYTES_MAX: usize = 255;
const DEPTH_MAX: usize = 512;
const LINK_BYTES_MAX: usize = 4095;
const COPY_BYTES: usize = 256 * 1024;
const OPAQUE: &CStr = c"trusted.overlay.opaque";
const DIR_FLAGS: c_int = sys::O_PATH | sys::O_DIRECTORY;

pub enum Failure {
    Usage(String),
    Invalid(String),
    TooLarge(String),
    NoSpace,
    Unsupported(String),
    Io(String, io::Error),
}

impl Failure {
    pub fn exit_code(&self) -> i32 {
        match self {
            Failure::Io(..) => 1,
            Failure::Usage(_) => 2,
            Failure::Invalid(_) => 3,
            Failure::TooLarge(_) => 4,
            Failure::NoSpace => 5,
            Failure::Unsupported(_) => 6,
        }
    }

    pub fn message(&self) -> String {
        match self {
            Failure::Usage(text) | Failure::Invalid(text) | Failure::TooLarge(text) | Failure::Unsupported(text) => text.clone(),
            Failure::NoSpace => "no space left on the device".into(),
            Failure::Io(what, err) => format!("{what}: {err}"),
        }
    }
}

impl From<TarError> for Failure {
    fn from(err: TarError) -> Failure {
        match err {
            TarError::Invalid(text) => Failure::Invalid(text.into()),
            TarError::Io(err) => io_failure("reading the tar stream", err),
        }
    }
}

pub fn io_failure(what: &str, err: io::Error) -> Failure {
    match err.raw_os_error() {
        Some(fsys::ENOSPC) | Some(fsys::EDQUOT) => Failure::NoSpace,
        Some(fsys::EFBIG) => Failure::TooLarge(format!("{what}: the file is too large for this file system")),
        Some(sys::ENOSYS) => Failure::Unsupported(format!("{what}: this kernel lacks the call")),
        _ => Failure::Io(what.into(), err),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteouts {
    /// `.wh.` names become what overlayfs understands.
    Overlay,
    /// `.wh.` names are ordinary.
    None,
}

pub struct Options {
    pub root: OsString,
    pub whiteouts: Whiteouts,
    /// Sum of file lengths, holes included.
    pub max_bytes: u64,
    pub max_entries: u64,
}

#[derive(Default, Debug)]
pub struct Report {
    pub entries: u64,
    pub bytes: u64,
    pub whiteouts: u64,
    pub skipped_xattrs: u64,
}

/// Runs the command; returns the exit code.
pub fn command(args: &[OsString]) -> i32 {
    match parse(args).and_then(|options| unpack(&options, io::stdin().lock())) {
        Ok(report) => {
            println!(
                "{{\"entries\":{},\"bytes\":{},\"whiteouts\":{},\"skippedXattrs\":{}}}",
                report.entries, report.bytes, report.whiteouts, report.skipped_xattrs
            );
            0
        }
        Err(failure) => {
            let _ = writeln!(io::stderr(), "{}", failure.message());
            failure.exit_code()
        }
    }
}

fn parse(args: &[OsString]) -> Result<Options, Failure> {
    let mut options = Options { root: OsString::new(), whiteouts: Whiteouts::Overlay, max_bytes: u64::MAX, max_entries: u64::MAX };
    let mut args = args.iter();
    while let Some(flag) = args.next() {
        let name = flag.to_string_lossy();
        let value = args.next().ok_or_else(|| Failure::Usage(format!("{name} needs a value")))?;
        let text = value.to_string_lossy();
        let bad = || Failure::Usage(format!("{name}: {text} is not acceptable"));
        match name.as_ref() {
            "--root" => options.root = value.clone(),
            "--whiteouts" => {
                options.whiteouts = match text.as_ref() {
                    "overlay" => Whiteouts::Overlay,
                    "none" => Whiteouts::None,
                    _ => return Err(bad()),
                }
            }
            "--max-bytes" => options.max_bytes = text.parse().map_err(|_| bad())?,
            "--max-entries" => options.max_entries = text.parse().map_err(|_| bad())?,
            _ => return Err(Failure::Usage(format!("unknown option {name}"))),
        }
    }
    if options.root.is_empty() {
        return Err(Failure::Usage("--root is missing".into()));
    }
    Ok(options)
}

/// Makes `options.root` this process's root for good, and extracts into it.
pub fn unpack(options: &Options, input: impl Read) -> Result<Report, Failure> {
    if !fsys::is_root() {
        return Err(Failure::Unsupported("unpacking image layers needs root".into()));
    }
    std::os::unix::fs::chroot(&options.root).map_err(|err| io_failure("entering the target directory", err))?;
    std::env::set_current_dir("/").map_err(|err| io_failure("entering the target directory", err))?;
    fsys::clear_umask();
    let root = sys::open_at(sys::AT_FDCWD, c"/", DIR_FLAGS, 0).map_err(|err| io_failure("opening the target directory", err))?;
    let mut unpacker = Unpacker {
        options,
        root,
        report: Report::default(),
        parent: None,
        directory_times: Vec::new(),
        buffer: vec![0; COPY_BYTES],
    };
    let mut tar = TarReader::new(input);
    while let Some(entry) = tar.next()? {
        unpacker.report.entries += 1;
        if unpacker.report.entries > options.max_entries {
            return Err(Failure::TooLarge(format!("the layer has more than {} entries", options.max_entries)));
        }
        unpacker.entry(&entry, &mut tar)?;
    }
    tar.drain()?;
    unpacker.finish()
}

struct Unpacker<'a> {
    options: &'a Options,
    root: OwnedFd,
    report: Report,
    /// The parent of the last entry: most entries share it with the one before.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Set last, because filling a directory changes its time.
    directory_times: Vec<(CString, sys::Timespec)>,
    buffer: Vec<u8>,
}

impl Unpacker<'_> {
    fn entry(&mut self, entry: &Entry, tar: &mut TarReader<impl Read>) -> Result<(), Failure> {
        let mut path = components(&entry.name)?;
        let Some(last) = path.pop() else {
            return if entry.kind == Kind::Directory {
                self.root_metadata(entry)
            } else {
                Err(refused(entry, "has no name"))
            };
        };
        if self.options.whiteouts == Whiteouts::Overlay {
            if path.iter().any(|part| part.starts_with(b".wh.")) {
                return Err(refused(entry, "lies below a whiteout"));
            }
            if let Some(hidden) = last.strip_prefix(b".wh.") {
                return self.whiteout(entry, &path, hidden);
            }
        }
        let name = c_string(last)?;
        self.open_parent(&path, entry)?;
        let parent = self.parent_fd();
        match entry.kind {
            Kind::Directory => self.directory(entry, parent, &name, &path)?,
            Kind::File => self.file(entry, parent, &name, tar)?,
            Kind::Symlink => {
                let target = c_string(&entry.link)?;
                if entry.link.is_empty() || entry.link.len() > LINK_BYTES_MAX {
                    return Err(refused(entry, "is a symlink with an unacceptable target"));
                }
                self.make_room(parent, &name)?;
                sys::symlink_at(&target, parent, &name).map_err(|err| failed(entry, err))?;
                self.bare_metadata(entry, parent, &name)?;
            }
            Kind::Fifo => {
                self.make_room(parent, &name)?;
                sys::mknod_at(parent, &name, fsys::S_IFIFO | (entry.mode & 0o777), 0).map_err(|err| failed(entry, err))?;
                self.bare_metadata(entry, parent, &name)?;
            }
            Kind::HardLink => self.hard_link(entry, parent, &name)?,
            Kind::CharDevice | Kind::BlockDevice => return Err(refused(entry, "is a device node")), // I2
        }
        Ok(())
    }

    fn parent_fd(&self) -> c_int {
        self.parent.as_ref().map_or(self.root.as_raw_fd(), |(_, fd)| fd.as_raw_fd())
    }

    /// Opens, and where missing makes, the directory `path`.
    fn open_parent(&mut self, path: &[&[u8]], entry: &Entry) -> Result<(), Failure> {
        if path.is_empty() {
            self.parent = None;
            return Ok(());
        }
        let joined = path.join(&b'/');
        if self.parent.as_ref().is_some_and(|(known, _)| *known == joined) {
            return Ok(());
        }
        self.parent = None;
        let fd = match fsys::open_in_root(self.root.as_raw_fd(), &c_string(&joined)?, DIR_FLAGS) {
            Ok(fd) => fd,
            Err(err) if matches!(err.raw_os_error(), Some(sys::ENOENT) | Some(sys::ENOTDIR)) => self.make_parents(path, entry)?,
            Err(err) => return Err(parent_failed(entry, err)),
        };
        self.check_depth(&fd, entry)?;
        self.parent = Some((joined, fd));
        Ok(())
    }

    /// I4. By the true path, because symlinks can make that longer than the entry's name.
    fn check_depth(&self, dir: &OwnedFd, entry: &Entry) -> Result<(), Failure> {
        fsys::change_dir(dir.as_raw_fd()).map_err(|err| failed(entry, err))?;
        let path = fsys::cwd();
        fsys::change_dir(self.root.as_raw_fd()).map_err(|err| failed(entry, err))?;
        match path {
            Ok(path) if path.len() + NAME_BYTES_MAX < PATH_BYTES_MAX && path.iter().filter(|&&b| b == b'/').count() < DEPTH_MAX => Ok(()),
            _ => Err(refused(entry, "lies too deep")),
        }
    }

    fn make_parents(&self, path: &[&[u8]], entry: &Entry) -> Result<OwnedFd, Failure> {
        let root = self.root.as_raw_fd();
        let mut dir = sys::open_at(root, c".", DIR_FLAGS, 0).map_err(|err| failed(entry, err))?;
        for depth in 0..path.len() {
            let prefix = c_string(&path[..=depth].join(&b'/'))?;
            let opened = fsys::open_in_root(root, &prefix, DIR_FLAGS);
            dir = match opened {
                Ok(fd) => fd,
                Err(err) if matches!(err.raw_os_error(), Some(sys::ENOENT) | Some(sys::ENOTDIR)) => {
                    let name = c_string(path[depth])?;
                    self.check_depth(&dir, entry)?;
                    match fsys::stat_at(dir.as_raw_fd(), &name) {
                        Err(absent) if absent.raw_os_error() == Some(sys::ENOENT) => self.new_directory(dir.as_raw_fd(), &name, false)?,
                        Ok(stat) if stat.is_whiteout() => self.new_directory(dir.as_raw_fd(), &name, true)?,
                        _ => return Err(parent_failed(entry, err)),
                    }
                }
                Err(err) => return Err(parent_failed(entry, err)),
            };
        }
        Ok(dir)
    }

    /// Makes a directory, in place of a whiteout when told so; that one then hides the lower content (I5).
    fn new_directory(&self, parent: c_int, name: &CStr, over_whiteout: bool) -> Result<OwnedFd, Failure> {
        let what = "making a directory";
        if over_whiteout {
            sys::unlink_at(parent, name, 0).map_err(|err| io_failure(what, err))?;
        }
        sys::mkdir_at(parent, name, 0o755).map_err(|err| io_failure(what, err))?;
        let dir = open_dir(parent, name).map_err(|err| io_failure(what, err))?;
        if over_whiteout {
            fsys::set_xattr(&dir, OPAQUE, b"y").map_err(|err| io_failure(what, err))?;
        }
        Ok(dir)
    }

    fn directory(&mut self, entry: &Entry, parent: c_int, name: &CStr, path: &[&[u8]]) -> Result<(), Failure> {
        let existing = stat_or_none(parent, name).map_err(|err| failed(entry, err))?;
        let dir = match existing {
            Some(stat) if stat.kind() == fsys::S_IFDIR => open_dir(parent, name).map_err(|err| failed(entry, err))?,
            Some(stat) if stat.is_whiteout() => self.new_directory(parent, name, true)?,
            other => {
                if other.is_some() {
                    self.make_room(parent, name)?;
                }
                self.new_directory(parent, name, false)?
            }
        };
        self.fd_metadata(entry, &dir)?;
        let mut full = path.join(&b'/');
        full.push(b'/');
        full.extend_from_slice(name.to_bytes());
        self.directory_times.push((c_string(&full)?, mtime(entry)));
        Ok(())
    }

    fn file(&mut self, entry: &Entry, parent: c_int, name: &CStr, tar: &mut TarReader<impl Read>) -> Result<(), Failure> {
        self.report.bytes = self.report.bytes.saturating_add(entry.size);
        if self.report.bytes > self.options.max_bytes {
            return Err(Failure::TooLarge(format!("the layer unpacks to more than {} bytes", self.options.max_bytes)));
        }
        self.make_room(parent, name)?;
        let flags = sys::O_WRONLY | sys::O_CREAT | sys::O_EXCL | sys::O_NOFOLLOW;
        let file = File::from(sys::open_at(parent, name, flags, 0o600).map_err(|err| failed(entry, err))?);
        match &entry.runs {
            None => self.copy(entry, &file, tar, Run { offset: 0, len: entry.size })?,
            Some(runs) => {
                file.set_len(entry.size).map_err(|err| failed(entry, err))?;
                for run in runs {
                    self.copy(entry, &file, tar, *run)?;
                }
            }
        }
        self.fd_metadata(entry, &file)?;
        sys::set_mtime(file.as_raw_fd(), mtime(entry)).map_err(|err| failed(entry, err))
    }

    fn copy(&mut self, entry: &Entry, file: &File, tar: &mut TarReader<impl Read>, run: Run) -> Result<(), Failure> {
        let mut offset = run.offset;
        let end = run.offset + run.len;
        while offset < end {
            let want = self.buffer.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX));
            let got = tar.read_data(&mut self.buffer[..want])?;
            if got == 0 {
                return Err(refused(entry, "has less data than announced"));
            }
            file.write_all_at(&self.buffer[..got], offset).map_err(|err| failed(entry, err))?;
            offset += got as u64;
        }
        Ok(())
    }

    fn hard_link(&mut self, entry: &Entry, parent: c_int, name: &CStr) -> Result<(), Failure> {
        let mut path = components(&entry.link)?;
        let Some(last) = path.pop() else { return Err(refused(entry, "is a hard link to nothing")) };
        let target = c_string(last)?;
        let root = self.root.as_raw_fd();
        let joined = if path.is_empty() { c_string(b".")? } else { c_string(&path.join(&b'/'))? };
        let dir = fsys::open_in_root(root, &joined, DIR_FLAGS).map_err(|err| missing_target(entry, err))?;
        let stat = fsys::stat_at(dir.as_raw_fd(), &target).map_err(|err| missing_target(entry, err))?;
        if !matches!(stat.kind(), fsys::S_IFREG | fsys::S_IFLNK | fsys::S_IFIFO) {
            return Err(refused(entry, "is a hard link to something that can not be linked"));
        }
        if let Some(existing) = stat_or_none(parent, name).map_err(|err| failed(entry, err))? {
            if existing.same_file(&stat) {
                return Ok(());
            }
            self.make_room(parent, name)?;
        }
        sys::link_at(dir.as_raw_fd(), &target, parent, name).map_err(|err| missing_target(entry, err))
    }

    fn whiteout(&mut self, entry: &Entry, path: &[&[u8]], hidden: &[u8]) -> Result<(), Failure> {
        if hidden == b".wh..opq" {
            self.open_parent(path, entry)?;
            let dir = open_dir(self.parent_fd(), c".").map_err(|err| failed(entry, err))?;
            self.report.whiteouts += 1;
            return fsys::set_xattr(&dir, OPAQUE, b"y").map_err(|err| failed(entry, err));
        }
        if hidden.starts_with(b".wh.") {
            return Ok(()); // book-keeping of AUFS (`.wh..wh.aufs`, `.wh..wh.plnk`): means nothing here
        }
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(refused(entry, "is a whiteout of nothing"));
        }
        let name = c_string(hidden)?;
        self.open_parent(path, entry)?;
        let parent = self.parent_fd();
        self.report.whiteouts += 1;
        match stat_or_none(parent, &name).map_err(|err| failed(entry, err))? {
            None => sys::mknod_at(parent, &name, fsys::S_IFCHR, 0).map_err(|err| failed(entry, err)),
            // I5: the directory stays and hides what lower layers have under it.
            Some(stat) if stat.kind() == fsys::S_IFDIR => {
                let dir = open_dir(parent, &name).map_err(|err| failed(entry, err))?;
                fsys::set_xattr(&dir, OPAQUE, b"y").map_err(|err| failed(entry, err))
            }
            Some(_) => Ok(()),
        }
    }

    /// Removes what is at `name`, whole trees included: a later entry replaces an earlier one.
    fn make_room(&mut self, parent: c_int, name: &CStr) -> Result<(), Failure> {
        let what = "replacing an earlier entry";
        let Some(stat) = stat_or_none(parent, name).map_err(|err| io_failure(what, err))? else { return Ok(()) };
        if stat.kind() != fsys::S_IFDIR {
            return sys::unlink_at(parent, name, 0).map_err(|err| io_failure(what, err));
        }
        fsys::change_dir(parent).map_err(|err| io_failure(what, err))?;
        // std walks by descriptors and never follows a link on the way.
        let removed = std::fs::remove_dir_all(Path::new(std::ffi::OsStr::from_bytes(name.to_bytes())));
        fsys::change_dir(self.root.as_raw_fd()).map_err(|err| io_failure(what, err))?;
        removed.map_err(|err| io_failure(what, err))
    }

    fn root_metadata(&mut self, entry: &Entry) -> Result<(), Failure> {
        let dir = open_dir(self.root.as_raw_fd(), c".").map_err(|err| failed(entry, err))?;
        self.fd_metadata(entry, &dir)?;
        self.directory_times.push((c_string(b".")?, mtime(entry)));
        Ok(())
    }

    /// Owner first: it clears set-id bits and capabilities, which follow.
    fn fd_metadata(&mut self, entry: &Entry, fd: &impl AsRawFd) -> Result<(), Failure> {
        let (uid, gid) = owner(entry)?;
        sys::fchown(fd.as_raw_fd(), uid, gid).map_err(|err| failed(entry, err))?;
        sys::fchmod(fd.as_raw_fd(), entry.mode).map_err(|err| failed(entry, err))?;
        for (name, value) in &entry.xattrs {
            if !is_harmless(name) {
                self.report.skipped_xattrs += 1; // I3
                continue;
            }
            match fsys::set_xattr(fd, &c_string(name)?, value) {
                Ok(()) => {}
                Err(err) if err.raw_os_error() == Some(sys::EOPNOTSUPP) => self.report.skipped_xattrs += 1,
                Err(err) if matches!(err.raw_os_error(), Some(sys::EINVAL) | Some(fsys::ERANGE) | Some(sys::E2BIG) | Some(sys::EPERM)) => {
                    return Err(refused(entry, "has a malformed extended attribute"));
                }
                Err(err) => return Err(failed(entry, err)),
            }
        }
        Ok(())
    }

    /// For what can not be opened without side effects: symlinks and FIFOs.
    fn bare_metadata(&self, entry: &Entry, parent: c_int, name: &CStr) -> Result<(), Failure> {
        let (uid, gid) = owner(entry)?;
        sys::lchown_at(parent, name, uid, gid).map_err(|err| failed(entry, err))?;
        sys::set_mtime_at(parent, name, mtime(entry)).map_err(|err| failed(entry, err))
    }

    fn finish(self) -> Result<Report, Failure> {
        for (path, time) in self.directory_times.iter().rev() {
            let flags = sys::O_RDONLY | sys::O_DIRECTORY | sys::O_NOFOLLOW;
            match fsys::open_in_root(self.root.as_raw_fd(), path, flags) {
                Ok(dir) => sys::set_mtime(dir.as_raw_fd(), *time).map_err(|err| io_failure("setting a directory's time", err))?,
                // A later entry put something else in its place.
                Err(err) if matches!(err.raw_os_error(), Some(sys::ENOENT) | Some(sys::ENOTDIR) | Some(sys::ELOOP)) => {}
                Err(err) => return Err(io_failure("setting a directory's time", err)),
            }
        }
        // Content is trusted for good once it is checked, so it must not be lost by half in a power cut.
        let dir = open_dir(self.root.as_raw_fd(), c".").map_err(|err| io_failure("flushing", err))?;
        sys::sync_fs(dir.as_fd()).map_err(|err| io_failure("flushing", err))?;
        Ok(self.report)
    }
}

/// The parts of a name below the root. `..` is refused rather than resolved: no honest layer has it.
fn components(name: &[u8]) -> Result<Vec<&[u8]>, Failure> {
    if name.len() > PATH_BYTES_MAX {
        return Err(Failure::Invalid(format!("an entry's name is longer than {PATH_BYTES_MAX} bytes")));
    }
    let mut parts = Vec::new();
    for part in name.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(Failure::Invalid(format!("the entry {} leads out of the layer", quoted(name)))),
            _ if part.len() > NAME_BYTES_MAX => {
                return Err(Failure::Invalid(format!("the entry {} has a name longer than {NAME_BYTES_MAX} bytes", quoted(name))))
            }
            _ => parts.push(part),
        }
    }
    Ok(parts)
}

pub fn is_harmless(xattr: &[u8]) -> bool {
    if let Some(rest) = xattr.strip_prefix(b"user.") {
        return !rest.starts_with(b"overlay.");
    }
    matches!(xattr, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
}

fn owner(entry: &Entry) -> Result<(u32, u32), Failure> {
    // The last 32-bit id means "unchanged" to the kernel.
    let id = |value: u64| u32::try_from(value).ok().filter(|&id| id != u32::MAX);
    match (id(entry.uid), id(entry.gid)) {
        (Some(uid), Some(gid)) => Ok((uid, gid)),
        _ => Err(refused(entry, "has an owner that does not exist")),
    }
}

fn mtime(entry: &Entry) -> sys::Timespec {
    sys::Timespec { sec: entry.mtime_sec, nsec: entry.mtime_nsec }
}

fn open_dir(parent: c_int, name: &CStr) -> io::Result<OwnedFd> {
    sys::open_at(parent, name, sys::O_RDONLY | sys::O_DIRECTORY | sys::O_NOFOLLOW, 0)
}

fn stat_or_none(parent: c_int, name: &CStr) -> io::Result<Option<Stat>> {
    match fsys::stat_at(parent, name) {
        Ok(stat) => Ok(Some(stat)),
        Err(err) if err.raw_os_error() == Some(sys::ENOENT) => Ok(None),
        Err(err) => Err(err),
    }
}

fn c_string(bytes: &[u8]) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|_| Failure::Invalid("a name contains a NUL byte".into()))
}

fn refused(entry: &Entry, why: &str) -> Failure {
    Failure::Invalid(format!("the entry {} {why}", quoted(&entry.name)))
}

fn failed(entry: &Entry, err: io::Error) -> Failure {
    io_failure(&format!("the entry {}", quoted(&entry.name)), err)
}

fn parent_failed(entry: &Entry, err: io::Error) -> Failure {
    match err.raw_os_error() {
        Some(sys::ENOENT) | Some(sys::ENOTDIR) | Some(sys::ELOOP) | Some(sys::EXDEV) | Some(sys::ENAMETOOLONG) => {
            refused(entry, "lies below something that is not a directory of the layer")
        }
        _ => failed(entry, err),
    }
}

fn missing_target(entry: &Entry, err: io::Error) -> Failure {
    match err.raw_os_error() {
        Some(sys::ENOENT) | Some(sys::ENOTDIR) | Some(sys::ELOOP) | Some(sys::EXDEV) | Some(sys::ENAMETOOLONG) | Some(sys::EPERM) => {
            refused(entry, "is a hard link to something that is not in the layer")
        }
        _ => failed(entry, err),
    }
}

/// A name from the layer, safe to print and bounded.
pub fn quoted(name: &[u8]) -> String {
    let shown = &name[..name.len().min(200)];
    format!("\"{}\"{}", shown.escape_ascii(), if shown.len() < name.len() { "…" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_and_never_lead_up() {
        assert_eq!(components(b"/usr//lib/./x").ok().unwrap(), vec![&b"usr"[..], b"lib", b"x"]);
        assert!(components(b"./").ok().unwrap().is_empty());
        for bad in [&b".."[..], b"a/../b", b"/../etc", b"a/.."] {
            assert!(components(bad).is_err());
        }
        assert!(components(&[b'a'; 256]).is_err());
        assert!(components(&b"a/".repeat(1600)).is_err());
    }

    #[test]
    fn attributes_that_steer_overlayfs_or_the_host_are_left_out() {
        assert!(is_harmless(b"user.mime"));
        assert!(is_harmless(b"security.capability"));
        for bad in [&b"trusted.overlay.redirect"[..], b"user.overlay.opaque", b"security.selinux", b"system.nfs4_acl"] {
            assert!(!is_harmless(bad));
        }
    }
}
