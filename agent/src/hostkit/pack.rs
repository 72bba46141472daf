//! `faas-hostkit pack --root DIR [--whiteouts oci|none] [--max-bytes N] [--max-entries N] > layer.tar`
//!
//! Writes a directory as an image layer: the same tree gives the same bytes
//! (entries sorted by name, numeric owners, times in whole seconds, PAX only
//! where ustar is too small).
//!
//! I1. No link is followed, no mount point entered: the tree may be a guest's.
//! I2. Device nodes and sockets are left out and counted. With `--whiteouts
//!     oci`, overlayfs's marks of deletion become `.wh.` entries.
//! I3. Only attributes that `unpack` would take over are written.
//!
//! One line of JSON on stderr for success; failures as `unpack` reports them.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use super::fsys::{self, Stat};
use super::tar_reader::BLOCK;
use super::unpack::{io_failure, is_harmless, quoted, Failure};
use crate::sys;

/// As `unpack` accepts it.
const PATH_BYTES_MAX: usize = 3072;
const OPAQUE: &CStr = c"trusted.overlay.opaque";

pub struct Options {
    pub root: OsString,
    pub oci_whiteouts: bool,
    pub max_bytes: u64,
    pub max_entries: u64,
}

#[derive(Default)]
struct Report {
    entries: u64,
    bytes: u64,
    skipped: u64,
}

/// Runs the command; returns the exit code.
pub fn command(args: &[OsString]) -> i32 {
    match parse(args).and_then(|options| pack(&options, io::stdout().lock())) {
        Ok(report) => {
            eprintln!("{{\"entries\":{},\"bytes\":{},\"skipped\":{}}}", report.entries, report.bytes, report.skipped);
            0
        }
        Err(failure) => {
            eprintln!("{}", failure.message());
            failure.exit_code()
        }
    }
}

fn parse(args: &[OsString]) -> Result<Options, Failure> {
    let mut options = Options { root: OsString::new(), oci_whiteouts: false, max_bytes: u64::MAX, max_entries: u64::MAX };
    let mut args = args.iter();
    while let Some(flag) = args.next() {
        let name = flag.to_string_lossy();
        let value = args.next().ok_or_else(|| Failure::Usage(format!("{name} needs a value")))?;
        let text = value.to_string_lossy();
        let bad = || Failure::Usage(format!("{name}: {text} is not acceptable"));
        match (name.as_ref(), text.as_ref()) {
            ("--root", _) => options.root = value.clone(),
            ("--whiteouts", "oci") => options.oci_whiteouts = true,
            ("--whiteouts", "none") => options.oci_whiteouts = false,
            ("--max-bytes", _) => options.max_bytes = text.parse().map_err(|_| bad())?,
            ("--max-entries", _) => options.max_entries = text.parse().map_err(|_| bad())?,
            ("--whiteouts", _) => return Err(bad()),
            _ => return Err(Failure::Usage(format!("unknown option {name}"))),
        }
    }
    if options.root.is_empty() {
        return Err(Failure::Usage("--root is missing".into()));
    }
    Ok(options)
}

fn pack(options: &Options, out: impl Write) -> Result<Report, Failure> {
    // One descriptor per level of a tree that may be as deep as its paths are long.
    sys::raise_nofile().map_err(|err| io_failure("raising the descriptor limit", err))?;
    let path = CString::new(options.root.as_encoded_bytes()).map_err(|_| Failure::Usage("--root: a NUL byte".into()))?;
    let root = sys::open_at(sys::AT_FDCWD, &path, sys::O_RDONLY | sys::O_DIRECTORY, 0).map_err(|err| io_failure("opening the directory", err))?;
    let stat = fsys::stat_at(root.as_raw_fd(), c"").map_err(|err| io_failure("opening the directory", err))?;
    let mut packer = Packer { options, out: BufWriter::with_capacity(256 * 1024, out), device: stat.dev, links: HashMap::new(), report: Report::default() };
    packer.directory(&root, &[], &stat)?;
    packer.write(&[0; BLOCK * 2])?;
    packer.out.flush().map_err(|err| io_failure("writing the tar stream", err))?;
    Ok(packer.report)
}

struct Packer<'a, W: Write> {
    options: &'a Options,
    out: BufWriter<W>,
    device: (u32, u32),
    /// First name of each file that has several.
    links: HashMap<u64, Vec<u8>>,
    report: Report,
}

struct Header<'a> {
    kind: u8,
    name: &'a [u8],
    link: &'a [u8],
    size: u64,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<W: Write> Packer<'_, W> {
    /// `name` is empty for the root, else without a slash at its end.
    fn directory(&mut self, dir: &OwnedFd, name: &[u8], stat: &Stat) -> Result<(), Failure> {
        let shown = if name.is_empty() { b"./".to_vec() } else { [name, b"/"].concat() };
        let xattrs = harmless_xattrs(dir, name)?;
        self.header(Header { kind: b'5', name: &shown, link: b"", size: 0, xattrs }, stat)?;
        if stat.dev != self.device {
            return Ok(()); // I1
        }
        if self.options.oci_whiteouts && fsys::get_xattr(dir, OPAQUE).map_err(|err| failed(name, err))?.as_deref() == Some(b"y") {
            self.whiteout(name, b".wh..wh..opq", stat)?;
        }
        for child in list(dir).map_err(|err| failed(name, err))? {
            self.entry(dir, name, &child)?;
        }
        Ok(())
    }

    fn entry(&mut self, dir: &OwnedFd, parent: &[u8], child: &CStr) -> Result<(), Failure> {
        let name = join(parent, child.to_bytes());
        if name.len() > PATH_BYTES_MAX {
            return Err(Failure::Invalid(format!("{} lies too deep", quoted(&name))));
        }
        let stat = fsys::stat_at(dir.as_raw_fd(), child).map_err(|err| failed(&name, err))?;
        let kind = stat.kind();
        if stat.is_whiteout() && self.options.oci_whiteouts {
            return self.whiteout(parent, &[b".wh.", child.to_bytes()].concat(), &stat);
        }
        if kind == fsys::S_IFDIR {
            let flags = sys::O_RDONLY | sys::O_DIRECTORY | sys::O_NOFOLLOW;
            let opened = sys::open_at(dir.as_raw_fd(), child, flags, 0).map_err(|err| failed(&name, err))?;
            return self.directory(&opened, &name, &stat);
        }
        if !matches!(kind, fsys::S_IFREG | fsys::S_IFLNK | fsys::S_IFIFO) {
            self.report.skipped += 1; // I2
            return Ok(());
        }
        if stat.nlink > 1 && stat.dev == self.device {
            if let Some(first) = self.links.get(&stat.ino) {
                let first = first.clone();
                return self.header(Header { kind: b'1', name: &name, link: &first, size: 0, xattrs: Vec::new() }, &stat);
            }
            self.links.insert(stat.ino, name.clone());
        }
        match kind {
            fsys::S_IFREG => self.file(dir, child, &name),
            fsys::S_IFLNK => {
                let target = sys::readlink_at(dir.as_raw_fd(), child).map_err(|err| failed(&name, err))?;
                self.header(Header { kind: b'2', name: &name, link: &target, size: 0, xattrs: Vec::new() }, &stat)
            }
            _ => self.header(Header { kind: b'6', name: &name, link: b"", size: 0, xattrs: Vec::new() }, &stat),
        }
    }

    fn file(&mut self, dir: &OwnedFd, child: &CStr, name: &[u8]) -> Result<(), Failure> {
        let flags = sys::O_RDONLY | sys::O_NOFOLLOW | sys::O_NONBLOCK;
        let mut file = File::from(sys::open_at(dir.as_raw_fd(), child, flags, 0).map_err(|err| failed(name, err))?);
        // Of what was opened: the name may lead elsewhere by now.
        let stat = fsys::stat_at(file.as_raw_fd(), c"").map_err(|err| failed(name, err))?;
        if stat.kind() != fsys::S_IFREG {
            return Err(Failure::Invalid(format!("{} changed while it was read", quoted(name))));
        }
        self.report.bytes = self.report.bytes.saturating_add(stat.size);
        if self.report.bytes > self.options.max_bytes {
            return Err(Failure::TooLarge(format!("the directory holds more than {} bytes", self.options.max_bytes)));
        }
        let xattrs = harmless_xattrs(&file, name)?;
        self.header(Header { kind: b'0', name, link: b"", size: stat.size, xattrs }, &stat)?;
        let copied = io::copy(&mut (&mut file).take(stat.size), &mut self.out).map_err(|err| failed(name, err))?;
        if copied != stat.size {
            return Err(Failure::Invalid(format!("{} changed while it was read", quoted(name))));
        }
        self.pad(stat.size)
    }

    fn whiteout(&mut self, parent: &[u8], mark: &[u8], stat: &Stat) -> Result<(), Failure> {
        let name = join(parent, mark);
        let plain = Stat { mode: 0, uid: 0, gid: 0, ..*stat };
        self.header(Header { kind: b'0', name: &name, link: b"", size: 0, xattrs: Vec::new() }, &plain)
    }

    fn header(&mut self, header: Header<'_>, stat: &Stat) -> Result<(), Failure> {
        self.report.entries += 1;
        if self.report.entries > self.options.max_entries {
            return Err(Failure::TooLarge(format!("the directory has more than {} entries", self.options.max_entries)));
        }
        let mut pax = Vec::new();
        if header.name.len() > 100 {
            record(&mut pax, b"path", header.name);
        }
        if header.link.len() > 100 {
            record(&mut pax, b"linkpath", header.link);
        }
        if header.size > OCTAL_11_MAX {
            record(&mut pax, b"size", header.size.to_string().as_bytes());
        }
        for (key, id) in [(&b"uid"[..], stat.uid), (b"gid", stat.gid)] {
            if u64::from(id) > OCTAL_7_MAX {
                record(&mut pax, key, id.to_string().as_bytes());
            }
        }
        if stat.mtime_sec < 0 || stat.mtime_sec as u64 > OCTAL_11_MAX {
            record(&mut pax, b"mtime", stat.mtime_sec.to_string().as_bytes());
        }
        for (key, value) in &header.xattrs {
            record(&mut pax, &[b"SCHILY.xattr.", &key[..]].concat(), value);
        }
        if !pax.is_empty() {
            let size = pax.len() as u64;
            let meta = Header { kind: b'x', name: b"././@PaxHeader", link: b"", size, xattrs: Vec::new() };
            self.write(&block(&meta, &Stat { mode: 0o644, uid: 0, gid: 0, mtime_sec: 0, ..*stat }))?;
            self.write(&pax)?;
            self.pad(size)?;
        }
        self.write(&block(&header, stat))
    }

    fn pad(&mut self, size: u64) -> Result<(), Failure> {
        let rest = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        self.write(&[0; BLOCK][..rest as usize])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(|err| io_failure("writing the tar stream", err))
    }
}

const OCTAL_7_MAX: u64 = 0o7777777;
const OCTAL_11_MAX: u64 = 0o77777777777;

fn block(header: &Header<'_>, stat: &Stat) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &header.name[..header.name.len().min(100)]);
    put(100, format!("{:07o}", stat.mode & 0o7777).as_bytes());
    put(108, format!("{:07o}", u64::from(stat.uid).min(OCTAL_7_MAX)).as_bytes());
    put(116, format!("{:07o}", u64::from(stat.gid).min(OCTAL_7_MAX)).as_bytes());
    put(124, format!("{:011o}", header.size.min(OCTAL_11_MAX)).as_bytes());
    put(136, format!("{:011o}", (stat.mtime_sec.max(0) as u64).min(OCTAL_11_MAX)).as_bytes());
    put(148, b"        ");
    put(156, &[header.kind]);
    put(157, &header.link[..header.link.len().min(100)]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Appends `length key=value\n`, where the length counts itself.
fn record(pax: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    pax.extend_from_slice(len.to_string().as_bytes());
    pax.push(b' ');
    pax.extend_from_slice(key);
    pax.push(b'=');
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

fn harmless_xattrs(fd: &impl AsRawFd, name: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Failure> {
    let mut kept = Vec::new();
    for key in fsys::list_xattrs(fd).map_err(|err| failed(name, err))? {
        let c_key = CString::new(key.as_slice()).unwrap_or_default();
        if !is_harmless(&key) {
            continue; // I3
        }
        if let Some(value) = fsys::get_xattr(fd, &c_key).map_err(|err| failed(name, err))? {
            kept.push((key, value));
        }
    }
    Ok(kept)
}

fn list(dir: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    let mut buf = vec![0u8; 64 * 1024];
    loop {
        let len = sys::getdents(dir.as_raw_fd(), &mut buf)?;
        if len == 0 {
            break;
        }
        let mut at = 0;
        while at < len {
            // struct linux_dirent64: ino u64, off i64, reclen u16, type u8, name
            let reclen = usize::from(u16::from_ne_bytes([buf[at + 16], buf[at + 17]]));
            let name = CStr::from_bytes_until_nul(&buf[at + 19..at + reclen]).map_err(io::Error::other)?;
            if name != c"." && name != c".." {
                names.push(name.to_owned());
            }
            at += reclen;
        }
    }
    names.sort();
    Ok(names)
}

fn join(parent: &[u8], child: &[u8]) -> Vec<u8> {
    if parent.is_empty() {
        child.to_vec()
    } else {
        [parent, b"/", child].concat()
    }
}

fn failed(name: &[u8], err: io::Error) -> Failure {
    io_failure(&format!("reading {}", quoted(name)), err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for len in [0, 1, 80, 90, 91, 92, 95, 980, 990] {
            let mut pax = Vec::new();
            record(&mut pax, b"path", &vec![b'x'; len]);
            let stated: usize = String::from_utf8_lossy(pax.split(|&b| b == b' ').next().unwrap()).parse().unwrap();
            assert_eq!(stated, pax.len());
        }
    }
}
