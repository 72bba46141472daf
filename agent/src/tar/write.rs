//! Encodes tar headers: ustar, with a pax record for whatever does not fit.

use super::{Entry, Kind, BLOCK};

/// Two zero blocks.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

const OCTAL_7_MAX: u64 = 0o7_777_777;
const OCTAL_11_MAX: u64 = 0o77_777_777_777;

/// The blocks that precede an entry's data.
pub fn header(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(BLOCK);
    let mut path = entry.path.clone();
    if entry.kind == Kind::Directory {
        path.push(b'/');
    }
    let mut records = Vec::new();
    if path.len() > 100 {
        record(&mut records, "path", &path);
    }
    if entry.link.len() > 100 {
        record(&mut records, "linkpath", &entry.link);
    }
    for (key, value, max) in [
        ("size", entry.size, OCTAL_11_MAX),
        ("uid", entry.uid as u64, OCTAL_7_MAX),
        ("gid", entry.gid as u64, OCTAL_7_MAX),
    ] {
        if value > max {
            record(&mut records, key, value.to_string().as_bytes());
        }
    }
    if entry.mtime_sec < 0 {
        record(&mut records, "mtime", entry.mtime_sec.to_string().as_bytes());
    }
    for (name, value) in &entry.xattrs {
        record(&mut records, &format!("SCHILY.xattr.{}", String::from_utf8_lossy(name)), value);
    }
    if !records.is_empty() {
        let pax = Fields { path: b"PaxHeaders/entry", link: b"", flag: b'x', size: records.len() as u64, entry };
        out.extend_from_slice(&pax.block());
        out.extend_from_slice(&records);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    let flag = match entry.kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    };
    let main = Fields { path: &path, link: &entry.link, flag, size: entry.size, entry };
    out.extend_from_slice(&main.block());
    out
}

/// Zero bytes that follow `size` bytes of data.
pub fn padding(size: u64) -> &'static [u8] {
    let n = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    &END[..n as usize]
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

struct Fields<'a> {
    path: &'a [u8],
    link: &'a [u8],
    flag: u8,
    size: u64,
    entry: &'a Entry,
}

impl Fields<'_> {
    fn block(&self) -> [u8; BLOCK] {
        let mut block = [0u8; BLOCK];
        let mut text = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        text(0, &self.path[..self.path.len().min(100)]);
        text(100, octal(self.entry.mode as u64, 7).as_bytes());
        text(108, octal(self.entry.uid as u64, 7).as_bytes());
        text(116, octal(self.entry.gid as u64, 7).as_bytes());
        text(124, octal(self.size, 11).as_bytes());
        text(136, octal(self.entry.mtime_sec.max(0) as u64, 11).as_bytes());
        text(148, b"        ");
        text(156, &[self.flag]);
        text(157, &self.link[..self.link.len().min(100)]);
        text(257, b"ustar\x0000");
        text(329, octal(self.entry.device.0 as u64, 7).as_bytes());
        text(337, octal(self.entry.device.1 as u64, 7).as_bytes());
        let sum: u64 = block.iter().map(|&b| b as u64).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

/// What does not fit is zero here and told by a pax record.
fn octal(value: u64, digits: usize) -> String {
    let max = (1u64 << (3 * digits)) - 1;
    format!("{:0digits$o}", if value > max { 0 } else { value })
}

#[cfg(test)]
mod tests {
    use super::super::read::TarReader;
    use super::*;

    #[test]
    fn entries_of_every_shape_read_back_as_written() {
        let mut rng = crate::testing::Rng::new(1234);
        let kinds = [Kind::File, Kind::HardLink, Kind::Symlink, Kind::Directory, Kind::Fifo, Kind::CharDevice];
        for _ in 0..2000 {
            let kind = kinds[rng.below(kinds.len())];
            let name = |rng: &mut crate::testing::Rng, max| -> Vec<u8> {
                (0..1 + rng.below(max)).map(|_| b"abc/\xc3\xa9"[rng.below(3)]).collect()
            };
            let entry = Entry {
                path: name(&mut rng, 300),
                kind,
                mode: rng.below(0o10000) as u32,
                uid: rng.next_u32(),
                gid: rng.below(5000) as u32,
                size: if kind == Kind::File { (rng.next_u32() as u64) << rng.below(8) } else { 0 },
                mtime_sec: rng.next_u32() as i64 - 1000,
                mtime_nsec: 0,
                link: if matches!(kind, Kind::HardLink | Kind::Symlink) { name(&mut rng, 300) } else { Vec::new() },
                device: if kind == Kind::CharDevice { (5, 2) } else { (0, 0) },
                xattrs: if rng.below(4) == 0 { vec![(b"user.k".to_vec(), rng.bytes(20))] } else { Vec::new() },
            };
            let bytes = header(&entry);
            assert_eq!(bytes.len() % BLOCK, 0);
            let read = TarReader::new(&bytes[..]).next_entry().unwrap().unwrap();
            assert_eq!(read, entry);
        }
    }
}
