//! Reads a tar stream. Nothing an archive says makes it allocate more than
//! `EXTENSION_MAX` bytes.

use super::{Entry, Kind, BLOCK};
use std::io::{self, Read};

/// Longest pax or GNU extension record (a name, a link, extended attributes).
pub const EXTENSION_MAX: u64 = 1024 * 1024;

#[derive(Debug)]
pub enum TarError {
    /// The archive is malformed or holds something unsupported.
    Bad(&'static str),
    Io(io::Error),
}

impl From<io::Error> for TarError {
    fn from(err: io::Error) -> TarError {
        match err.kind() {
            io::ErrorKind::UnexpectedEof => TarError::Bad("the archive is truncated"),
            _ => TarError::Io(err),
        }
    }
}

/// What pax records say, overriding the header.
#[derive(Clone, Default)]
struct Overrides {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

pub struct TarReader<R> {
    source: R,
    /// Data of the current entry not read yet, and the padding after it.
    left: u64,
    padding: u64,
    global: Overrides,
}

impl<R: Read> TarReader<R> {
    pub fn new(source: R) -> TarReader<R> {
        TarReader { source, left: 0, padding: 0, global: Overrides::default() }
    }

    /// The next entry, or none at the end mark. Unread data is skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut own = Overrides::default();
        loop {
            self.skip_rest()?;
            let mut block = [0u8; BLOCK];
            self.source.read_exact(&mut block)?;
            if block.iter().all(|&b| b == 0) {
                return Ok(None);
            }
            verify_checksum(&block)?;
            let size = number(&block[124..136])?;
            match block[156] {
                b'L' => own.path = Some(until_nul(&self.extension(size)?).to_vec()),
                b'K' => own.link = Some(until_nul(&self.extension(size)?).to_vec()),
                b'x' => apply_pax(&self.extension(size)?, &mut own)?,
                b'g' => {
                    let records = self.extension(size)?;
                    apply_pax(&records, &mut self.global)?;
                }
                flag => {
                    let entry = self.entry(&block, flag, size, own)?;
                    self.left = entry.size;
                    self.padding = padding_of(entry.size);
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Reads data of the current entry; 0 at its end.
    pub fn read_data(&mut self, buf: &mut [u8]) -> Result<usize, TarError> {
        let max = buf.len().min(self.left.min(usize::MAX as u64) as usize);
        if max == 0 {
            return Ok(0);
        }
        let n = self.source.read(&mut buf[..max])?;
        if n == 0 {
            return Err(TarError::Bad("the archive is truncated"));
        }
        self.left -= n as u64;
        Ok(n)
    }

    pub fn into_source(self) -> R {
        self.source
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        let mut skip = [0u8; 8192];
        let mut left = self.left.checked_add(self.padding).ok_or(TarError::Bad("entry too large"))?;
        while left > 0 {
            let n = left.min(skip.len() as u64) as usize;
            self.source.read_exact(&mut skip[..n])?;
            left -= n as u64;
        }
        self.left = 0;
        self.padding = 0;
        Ok(())
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > EXTENSION_MAX {
            return Err(TarError::Bad("an extension record is too long"));
        }
        let mut bytes = vec![0u8; size as usize];
        self.source.read_exact(&mut bytes)?;
        self.padding = padding_of(size);
        Ok(bytes)
    }

    fn entry(&self, block: &[u8; BLOCK], flag: u8, size: u64, own: Overrides) -> Result<Entry, TarError> {
        let kind = match flag {
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => return Err(TarError::Bad("sparse files are not supported")),
            _ => return Err(TarError::Bad("unsupported entry type")),
        };
        let g = &self.global;
        let mut path = own.path.or_else(|| g.path.clone()).unwrap_or_else(|| header_path(block));
        // The oldest archives mark directories by a trailing slash only.
        let slashed = path.last() == Some(&b'/');
        let kind = if kind == Kind::File && slashed { Kind::Directory } else { kind };
        while path.len() > 1 && path.last() == Some(&b'/') {
            path.pop();
        }
        let link = own.link.or_else(|| g.link.clone()).unwrap_or_else(|| until_nul(&block[157..257]).to_vec());
        if path.is_empty() || path.contains(&0) || link.contains(&0) {
            return Err(TarError::Bad("an entry without a usable name"));
        }
        let is_link = matches!(kind, Kind::HardLink | Kind::Symlink);
        if is_link && link.is_empty() {
            return Err(TarError::Bad("a link without a target"));
        }
        let id = |field: &[u8]| {
            u32::try_from(number(field)?).map_err(|_| TarError::Bad("an owner number is too large"))
        };
        let (mtime_sec, mtime_nsec) = match own.mtime.or(g.mtime) {
            Some(mtime) => mtime,
            None => (signed_number(&block[136..148])?, 0),
        };
        let size = if kind == Kind::File { own.size.or(g.size).unwrap_or(size) } else { 0 };
        if size > i64::MAX as u64 {
            return Err(TarError::Bad("entry too large"));
        }
        let mut xattrs = g.xattrs.clone();
        xattrs.extend(own.xattrs);
        Ok(Entry {
            path,
            kind,
            mode: number(&block[100..108])? as u32 & 0o7777,
            uid: own.uid.or(g.uid).map_or_else(|| id(&block[108..116]), Ok)?,
            gid: own.gid.or(g.gid).map_or_else(|| id(&block[116..124]), Ok)?,
            size,
            mtime_sec,
            mtime_nsec,
            link: if is_link { link } else { Vec::new() },
            device: match kind {
                Kind::CharDevice | Kind::BlockDevice => (id(&block[329..337])?, id(&block[337..345])?),
                _ => (0, 0),
            },
            xattrs,
        })
    }
}

fn padding_of(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or_default()
}

fn header_path(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&block[0..100]);
    let prefix = until_nul(&block[345..500]);
    // GNU's own format ("ustar  ") keeps other things in that place.
    if &block[257..263] != b"ustar\0" || prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

fn verify_checksum(block: &[u8; BLOCK]) -> Result<(), TarError> {
    let stored = number(&block[148..156])?;
    let sum = |f: fn(u8) -> i64| -> i64 {
        block.iter().enumerate().map(|(i, &b)| if (148..156).contains(&i) { 32 } else { f(b) }).sum()
    };
    // Some old writers summed signed bytes.
    if stored as i64 == sum(|b| b as i64) || stored as i64 == sum(|b| b as i8 as i64) {
        Ok(())
    } else {
        Err(TarError::Bad("a header's checksum is wrong"))
    }
}

fn number(field: &[u8]) -> Result<u64, TarError> {
    u64::try_from(signed_number(field)?).map_err(|_| TarError::Bad("a negative number"))
}

/// Octal text, or GNU's base 256 (first bit set, big endian, two's complement).
fn signed_number(field: &[u8]) -> Result<i64, TarError> {
    let bad = TarError::Bad("a header field is not a number");
    let Some(&first) = field.first() else { return Err(bad) };
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (i, &byte) in field.iter().enumerate() {
            let byte = if i == 0 && !negative { byte & 0x7f } else { byte };
            value = (value << 8) | byte as i128;
            if value > i64::MAX as i128 || value < i64::MIN as i128 {
                return Err(bad);
            }
        }
        return Ok(value as i64);
    }
    let mut value: i64 = 0;
    for &byte in field.iter().skip_while(|b| **b == b' ') {
        match byte {
            b'0'..=b'7' => {
                value = value.checked_mul(8).and_then(|v| v.checked_add((byte - b'0') as i64)).ok_or(TarError::Bad("a number is too large"))?
            }
            b' ' | 0 => break,
            _ => return Err(bad),
        }
    }
    Ok(value)
}

/// Records of the form `LENGTH KEY=VALUE\n`, the length counting all of it.
fn apply_pax(mut records: &[u8], to: &mut Overrides) -> Result<(), TarError> {
    const BAD: TarError = TarError::Bad("a malformed pax record");
    while !records.is_empty() {
        let space = records.iter().position(|&b| b == b' ').ok_or(BAD)?;
        let length: usize = text_number(&records[..space])?;
        if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
            return Err(BAD);
        }
        let record = &records[space + 1..length - 1];
        records = &records[length..];
        let equals = record.iter().position(|&b| b == b'=').ok_or(BAD)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => to.path = Some(value.to_vec()),
            b"linkpath" => to.link = Some(value.to_vec()),
            b"size" => to.size = Some(text_number(value)?),
            b"uid" => to.uid = Some(text_number(value)?),
            b"gid" => to.gid = Some(text_number(value)?),
            b"mtime" => to.mtime = Some(pax_time(value)?),
            _ if key.starts_with(b"GNU.sparse.") => {
                return Err(TarError::Bad("sparse files are not supported"))
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    to.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
    }
    Ok(())
}

fn text_number<T: std::str::FromStr>(text: &[u8]) -> Result<T, TarError> {
    std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).ok_or(TarError::Bad("a malformed pax number"))
}

/// Seconds with an optional fraction, possibly negative.
fn pax_time(text: &[u8]) -> Result<(i64, u32), TarError> {
    let mut parts = text.splitn(2, |&b| b == b'.');
    let whole: i64 = text_number(parts.next().unwrap_or_default())?;
    let fraction = parts.next().unwrap_or_default();
    let mut nsec = 0u32;
    for i in 0..9 {
        let digit = fraction.get(i).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return Err(TarError::Bad("a malformed pax time"));
        }
        nsec = nsec * 10 + (digit - b'0') as u32;
    }
    if text.first() == Some(&b'-') && nsec > 0 {
        return Ok((whole - 1, 1_000_000_000 - nsec));
    }
    Ok((whole, nsec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(signed_number(b"0000755\0").unwrap(), 0o755);
        assert_eq!(signed_number(b"   644 \0").unwrap(), 0o644);
        assert_eq!(signed_number(b"\0\0\0\0").unwrap(), 0);
        assert_eq!(signed_number(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]).unwrap(), 1 << 33);
        assert_eq!(signed_number(&[0xff; 12]).unwrap(), -1);
        assert!(signed_number(b"99").is_err());
        assert!(signed_number(&[0x9f; 12]).is_err());
    }

    #[test]
    fn pax_records_are_parsed_and_malformed_ones_refused() {
        let mut o = Overrides::default();
        apply_pax(b"12 path=abc\n15 mtime=-1.25\n27 SCHILY.xattr.user.k=v\x00\xff\n", &mut o).unwrap();
        assert_eq!(o.path.as_deref(), Some(&b"abc"[..]));
        assert_eq!(o.xattrs, [(b"user.k".to_vec(), b"v\x00\xff".to_vec())]);
        assert_eq!(pax_time(b"-1.25").unwrap(), (-2, 750_000_000));
        assert_eq!(pax_time(b"5.5").unwrap(), (5, 500_000_000));
        for bad in [&b"6 a=\n"[..], b"99 path=x\n", b"path=x\n", b"0 \n", b"10 path=abc"] {
            assert!(apply_pax(bad, &mut Overrides::default()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn random_archives_end_or_fail_but_never_panic() {
        let mut rng = crate::testing::Rng::new(99);
        let mut entries = 0;
        for _ in 0..3000 {
            let mut archive = Vec::new();
            for _ in 0..3 {
                let mut block = [0u8; BLOCK];
                block[..4].copy_from_slice(b"name");
                for at in [100, 108, 116, 124, 136] {
                    let text = format!("{:o}\0", rng.below(2000));
                    block[at..at + text.len()].copy_from_slice(text.as_bytes());
                }
                block[156] = b"0125xgLKS7"[rng.below(10)];
                block[257..263].copy_from_slice(b"ustar\0");
                for _ in 0..rng.below(3) {
                    block[rng.below(BLOCK)] = rng.next_u32() as u8;
                }
                let sum: u32 = block.iter().enumerate().map(|(i, &b)| if (148..156).contains(&i) { 32 } else { b as u32 }).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
                archive.extend_from_slice(&block);
                let body = rng.bytes(3000);
                archive.extend(if rng.below(2) == 0 { body } else { b"12 path=abc\n".repeat(50) });
            }
            let mut reader = TarReader::new(&archive[..]);
            while let Ok(Some(entry)) = reader.next_entry() {
                entries += 1;
                assert!(!entry.path.is_empty() && !entry.path.contains(&0));
                let mut buf = [0u8; 100];
                while matches!(reader.read_data(&mut buf), Ok(n) if n > 0) {}
            }
        }
        assert!(entries > 500, "the generator made too few good entries: {entries}");
    }
}
