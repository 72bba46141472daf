//! Unpacks a tar stream below a directory.
//!
//! I1. Nothing is made, changed or linked to outside of the root, whatever
//!     links the archive or a concurrent guest puts there.
//! I2. No device node is made.
//! I3. An existing file is replaced, never written through: a hard link to it
//!     elsewhere keeps its content.

use super::read::{TarError, TarReader};
use super::{Entry, Kind};
use crate::fsroot::{PathError, Place, Root, Walk};
use crate::sys::{self, Timespec};
use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};

#[derive(Debug)]
pub enum ExtractError {
    Tar(TarError),
    /// An entry leads out of the root.
    Escape(Vec<u8>),
    Device(Vec<u8>),
    /// A file operation failed on this entry.
    Entry(Vec<u8>, io::Error),
}

impl From<TarError> for ExtractError {
    fn from(err: TarError) -> ExtractError {
        ExtractError::Tar(err)
    }
}

#[derive(Clone, Copy, Default)]
pub struct ExtractOptions {
    /// Owner of everything, instead of what the archive says.
    pub owner: Option<(u32, u32)>,
}

#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Extracted {
    pub entries: u64,
    pub bytes: u64,
}

/// Directories whose times are set last, because filling them changes them.
const LATE_TIMES_MAX: usize = 65_536;

struct Extractor<'a> {
    root: &'a Root,
    options: ExtractOptions,
    /// The directory of the last entry: archives are mostly in order.
    last_parent: Option<(Vec<u8>, OwnedFd)>,
    late_times: Vec<(Vec<u8>, Timespec)>,
    may_chown: bool,
    buf: Vec<u8>,
}

pub fn extract<R: Read>(source: R, root: &Root, options: ExtractOptions) -> Result<Extracted, ExtractError> {
    let mut tar = TarReader::new(source);
    let mut done = Extracted::default();
    let mut x = Extractor {
        root,
        options,
        last_parent: None,
        late_times: Vec::new(),
        may_chown: sys::effective_uid() == 0,
        buf: vec![0; 64 * 1024],
    };
    while let Some(entry) = tar.next_entry()? {
        x.one(&entry, &mut tar)?;
        done.entries += 1;
        done.bytes += entry.size;
    }
    for (path, mtime) in std::mem::take(&mut x.late_times).into_iter().rev() {
        // Best effort by nature: a later entry may have replaced the directory.
        if let Ok(dir) = root.directory(&path, None) {
            let _ = sys::set_mtime_at(dir.as_raw_fd(), c".", mtime);
        }
    }
    Ok(done)
}

impl Extractor<'_> {
    fn one<R: Read>(&mut self, entry: &Entry, tar: &mut TarReader<R>) -> Result<(), ExtractError> {
        if entry.path.split(|&b| b == b'/').any(|part| part == b"..") {
            return Err(ExtractError::Escape(entry.path.clone())); // I1
        }
        let fail = |err: PathError| match err {
            PathError::Escape => ExtractError::Escape(entry.path.clone()),
            PathError::Io(err) => ExtractError::Entry(entry.path.clone(), err),
        };
        match entry.kind {
            Kind::CharDevice | Kind::BlockDevice => Err(ExtractError::Device(entry.path.clone())), // I2
            Kind::Directory => self.directory(entry).map_err(fail),
            Kind::File => self.file(entry, tar),
            Kind::Symlink | Kind::Fifo => self.special(entry).map_err(fail),
            Kind::HardLink => self.hard_link(entry).map_err(fail),
        }
    }

    fn special(&mut self, entry: &Entry) -> Result<(), PathError> {
        let place = self.replace(entry)?;
        if entry.kind == Kind::Symlink {
            let target = CString::new(entry.link.clone()).map_err(|_| sys::os_error(sys::EINVAL))?;
            sys::symlink_at(&target, place.dir_fd(), &place.name)?;
            self.last_parent = None; // a remembered path may lead elsewhere now
        } else {
            sys::mknod_at(place.dir_fd(), &place.name, 0o010000 | entry.mode & 0o777, 0)?;
        }
        Ok(self.finish_at(&place, entry)?)
    }

    /// Where an entry goes, with its parents made.
    fn place(&mut self, path: &[u8]) -> Result<Place, PathError> {
        let path = trimmed(path);
        let cut = path.iter().rposition(|&b| b == b'/');
        let (parent, name) = cut.map_or((&b""[..], path), |at| (&path[..at], &path[at + 1..]));
        let known = self.last_parent.as_ref().filter(|(known, _)| known == parent);
        let dir = match known {
            Some((_, fd)) => sys::dup_above(fd.as_raw_fd(), 3)?,
            None => {
                let fd = self.root.directory(parent, Some(0o755))?;
                self.last_parent = Some((parent.to_vec(), sys::dup_above(fd.as_raw_fd(), 3)?));
                fd
            }
        };
        let name = if name.is_empty() || name == b"." { b"." } else { name };
        Ok(Place { dir, name: CString::new(name).map_err(|_| sys::os_error(sys::EINVAL))? })
    }

    /// Removes whatever non-directory stands in an entry's place (I3).
    fn replace(&mut self, entry: &Entry) -> Result<Place, PathError> {
        let place = self.place(&entry.path)?;
        match sys::unlink_at(place.dir_fd(), &place.name, 0) {
            Err(err) if sys::errno_of(&err) != sys::ENOENT => Err(err.into()),
            _ => Ok(place),
        }
    }

    fn directory(&mut self, entry: &Entry) -> Result<(), PathError> {
        let place = self.place(&entry.path)?;
        let made = !place.is_self() && match sys::mkdir_at(place.dir_fd(), &place.name, 0o700) {
            Ok(()) => true,
            Err(err) if sys::errno_of(&err) == sys::EEXIST => false,
            Err(err) => return Err(err.into()),
        };
        if place.is_self() {
            return Ok(()); // the root is the caller's
        }
        if !made {
            // A link to a directory inside (`/bin` → `usr/bin`) stays and is used.
            self.root.find(trimmed(&entry.path), Walk { follow_last: true, create: None })?;
            let is_link = sys::readlink_at(place.dir_fd(), &place.name).is_ok();
            self.root.directory(trimmed(&entry.path), None)?;
            if is_link {
                return Ok(());
            }
        }
        let dir = place.open(sys::O_RDONLY | sys::O_DIRECTORY, 0)?;
        self.own(dir.as_raw_fd(), entry)?;
        sys::fchmod(dir.as_raw_fd(), entry.mode)?;
        if self.late_times.len() < LATE_TIMES_MAX {
            self.late_times.push((trimmed(&entry.path).to_vec(), mtime(entry)));
        }
        Ok(())
    }

    fn file<R: Read>(&mut self, entry: &Entry, tar: &mut TarReader<R>) -> Result<(), ExtractError> {
        let fail = |err: PathError| match err {
            PathError::Escape => ExtractError::Escape(entry.path.clone()),
            PathError::Io(err) => ExtractError::Entry(entry.path.clone(), err),
        };
        let place = self.replace(entry).map_err(fail)?;
        let flags = sys::O_WRONLY | sys::O_CREAT | sys::O_EXCL;
        let file = place.open(flags, 0o600).map_err(|err| fail(err.into()))?;
        loop {
            let n = tar.read_data(&mut self.buf)?;
            if n == 0 {
                break;
            }
            write_all(file.as_raw_fd(), &self.buf[..n]).map_err(|err| fail(err.into()))?;
        }
        let finish = || -> io::Result<()> {
            self.own(file.as_raw_fd(), entry)?;
            sys::fchmod(file.as_raw_fd(), entry.mode)?; // after chown, which clears set-id bits
            sys::set_mtime(file.as_raw_fd(), mtime(entry))
        };
        finish().map_err(|err| fail(err.into()))
    }

    fn hard_link(&mut self, entry: &Entry) -> Result<(), PathError> {
        if entry.link.split(|&b| b == b'/').any(|part| part == b"..") {
            return Err(PathError::Escape);
        }
        let target = self.root.find_strict(trimmed(&entry.link))?;
        let place = self.place(&entry.path)?;
        // Linking over itself would remove the only name.
        let same = match (target.metadata(), place.metadata()) {
            (Ok(a), Ok(b)) => same_file(&a, &b),
            _ => false,
        };
        if same {
            return Ok(());
        }
        let place = self.replace(entry)?;
        Ok(sys::link_at(target.dir_fd(), &target.name, place.dir_fd(), &place.name)?)
    }

    fn own(&self, fd: i32, entry: &Entry) -> io::Result<()> {
        if !self.may_chown {
            return Ok(());
        }
        let (uid, gid) = self.options.owner.unwrap_or((entry.uid, entry.gid));
        sys::fchown(fd, uid, gid)
    }

    /// Owner and time of an entry that can not be opened.
    fn finish_at(&self, place: &Place, entry: &Entry) -> io::Result<()> {
        if self.may_chown {
            let (uid, gid) = self.options.owner.unwrap_or((entry.uid, entry.gid));
            sys::lchown_at(place.dir_fd(), &place.name, uid, gid)?;
        }
        sys::set_mtime_at(place.dir_fd(), &place.name, mtime(entry))
    }
}

fn same_file(a: &std::fs::Metadata, b: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    a.dev() == b.dev() && a.ino() == b.ino()
}

/// Archives say `./x` and `/x` for the same thing.
fn trimmed(path: &[u8]) -> &[u8] {
    let mut path = path;
    loop {
        match path {
            [b'/', rest @ ..] => path = rest,
            [b'.', b'/', rest @ ..] => path = rest,
            _ => return path,
        }
    }
}

fn mtime(entry: &Entry) -> Timespec {
    Timespec { sec: entry.mtime_sec, nsec: entry.mtime_nsec as i64 }
}

pub fn write_all(fd: i32, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match sys::write_from(fd, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(err) if sys::errno_of(&err) == sys::EINTR => {}
            Err(err) => return Err(err),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::write;
    use super::*;
    use crate::fsroot::tests::Scratch;
    use crate::fsroot::Outside;
    use std::fs;
    use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};

    fn entry(path: &str, kind: Kind, link: &str, size: usize) -> Entry {
        Entry {
            path: path.into(),
            kind,
            mode: 0o640,
            uid: 12,
            gid: 34,
            size: size as u64,
            mtime_sec: 1_000_000,
            mtime_nsec: 0,
            link: link.into(),
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }

    fn archive(entries: &[(Entry, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (entry, data) in entries {
            out.extend(write::header(entry));
            out.extend_from_slice(data);
            out.extend_from_slice(write::padding(data.len() as u64));
        }
        out.extend_from_slice(&write::END);
        out
    }

    fn unpack(scratch: &Scratch, entries: &[(Entry, &[u8])]) -> Result<Extracted, ExtractError> {
        extract(&archive(entries)[..], &scratch.root(Outside::Refuse), ExtractOptions::default())
    }

    fn file<'a>(path: &str, data: &'a [u8]) -> (Entry, &'a [u8]) {
        (entry(path, Kind::File, "", data.len()), data)
    }

    #[test]
    fn a_tree_comes_out_with_modes_owners_times_and_links() {
        let scratch = Scratch::new();
        let done = unpack(
            &scratch,
            &[
                (entry("./d", Kind::Directory, "", 0), b""),
                file("./d/f", b"content"),
                (entry("d/hard", Kind::HardLink, "./d/f", 0), b""),
                (entry("d/soft", Kind::Symlink, "/etc/passwd", 0), b""),
                file("missing/parents/are/made", b"x"),
            ],
        )
        .unwrap();
        assert_eq!(done, Extracted { entries: 5, bytes: 8 });
        let meta = fs::metadata(scratch.0.join("d/f")).unwrap();
        assert_eq!((meta.permissions().mode() & 0o7777, meta.mtime(), meta.nlink()), (0o640, 1_000_000, 2));
        if sys::effective_uid() == 0 {
            assert_eq!((meta.uid(), meta.gid()), (12, 34));
        }
        assert_eq!(fs::metadata(scratch.0.join("d")).unwrap().mtime(), 1_000_000);
        assert_eq!(fs::read_link(scratch.0.join("d/soft")).unwrap().to_str(), Some("/etc/passwd"));
    }

    #[test]
    fn nothing_gets_out_of_the_root() {
        let scratch = Scratch::new();
        let outside = Scratch::new();
        fs::write(outside.0.join("victim"), "safe").unwrap();
        let out = outside.0.to_str().unwrap();
        let attacks: Vec<Vec<(Entry, &[u8])>> = vec![
            vec![file("../evil", b"x")],
            vec![file("a/../../evil", b"x")],
            vec![(entry("l", Kind::Symlink, out, 0), b""), file("l/victim", b"x")],
            vec![(entry("l", Kind::Symlink, "..", 0), b""), file("l/evil", b"x")],
            vec![(entry("l", Kind::Symlink, out, 0), b""), (entry("l", Kind::Directory, "", 0), b""), file("l/victim", b"x")],
            vec![(entry("h", Kind::HardLink, "../evil", 0), b"")],
            vec![(entry("l", Kind::Symlink, out, 0), b""), (entry("h", Kind::HardLink, "l/victim", 0), b"")],
            vec![(entry("a", Kind::Directory, "", 0), b""), (entry("a/l", Kind::Symlink, "../..", 0), b""), file("a/l/evil", b"x")],
        ];
        for (i, attack) in attacks.iter().enumerate() {
            assert!(matches!(unpack(&scratch, attack), Err(ExtractError::Escape(_))), "attack {i}");
            let _ = fs::remove_file(scratch.0.join("l"));
        }
        assert_eq!(fs::read_to_string(outside.0.join("victim")).unwrap(), "safe");
        assert!(!scratch.0.parent().unwrap().join("evil").exists());
        // An absolute name means one inside.
        unpack(&scratch, &[file("/etc/inside", b"x")]).unwrap();
        assert!(scratch.0.join("etc/inside").exists());
    }

    #[test]
    fn an_existing_link_is_replaced_and_not_written_through() {
        let scratch = Scratch::new();
        let outside = Scratch::new();
        let victim = outside.0.join("victim");
        fs::write(&victim, "safe").unwrap();
        symlink(&victim, scratch.0.join("f")).unwrap();
        fs::hard_link(&victim, scratch.0.join("g")).unwrap();
        unpack(&scratch, &[file("f", b"new"), file("g", b"new")]).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "safe");
        assert_eq!(fs::read_to_string(scratch.0.join("f")).unwrap(), "new");
    }

    #[test]
    fn devices_and_truncated_archives_are_refused() {
        let scratch = Scratch::new();
        for kind in [Kind::CharDevice, Kind::BlockDevice] {
            let refused = unpack(&scratch, &[(entry("dev", kind, "", 0), b"")]);
            assert!(matches!(refused, Err(ExtractError::Device(_))));
        }
        let whole = archive(&[file("f", &[7; 2000])]);
        for cut in [0, 100, 512, 1000, 2048, whole.len() - 1024] {
            let result = extract(&whole[..cut], &scratch.root(Outside::Refuse), ExtractOptions::default());
            assert!(matches!(result, Err(ExtractError::Tar(TarError::Bad(_)))), "cut at {cut}: {result:?}");
        }
    }

    #[test]
    fn a_link_inside_the_root_leads_on() {
        let scratch = Scratch::new();
        fs::create_dir_all(scratch.0.join("usr/bin")).unwrap();
        symlink("usr/bin", scratch.0.join("bin")).unwrap();
        unpack(&scratch, &[(entry("bin", Kind::Directory, "", 0), b""), file("bin/tool", b"x")]).unwrap();
        assert!(scratch.0.join("usr/bin/tool").exists());
        assert!(fs::symlink_metadata(scratch.0.join("bin")).unwrap().is_symlink());
    }
}
