//! Reads tar streams as OCI layers use them: ustar, PAX, GNU long names and
//! sparse files. Only parses; what a name may lead to is `unpack`'s business.
//!
//! I1. No allocation is larger than a named limit, whatever a header claims.
//! I2. Data that the caller does not read is skipped by the following `next`.

use std::io::{self, Read};

pub const BLOCK: usize = 512;
/// Bytes of one PAX header or one GNU long name.
const META_BYTES_MAX: u64 = 1 << 20;
/// Data runs of one sparse file.
const SPARSE_RUNS_MAX: usize = 65_536;

#[derive(Debug)]
pub enum TarError {
    /// The stream breaks the format. Text is safe to show.
    Invalid(&'static str),
    Io(io::Error),
}

impl From<io::Error> for TarError {
    fn from(err: io::Error) -> TarError {
        match err.kind() {
            io::ErrorKind::UnexpectedEof => TarError::Invalid("the tar stream ends in the middle"),
            _ => TarError::Io(err),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// A run of real data in a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub offset: u64,
    pub len: u64,
}

#[derive(Debug)]
pub struct Entry {
    pub kind: Kind,
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Length of the file as it shall be, holes included.
    pub size: u64,
    pub mtime_sec: i64,
    pub mtime_nsec: i64,
    /// Name without the `SCHILY.xattr.` prefix → value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Present for sparse files: where the data goes.
    pub runs: Option<Vec<Run>>,
}

#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, i64)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse_major: Option<u64>,
    sparse_name: Option<Vec<u8>>,
    sparse_size: Option<u64>,
    sparse_map: Vec<u64>,
    sparse: bool,
}

pub struct TarReader<R> {
    inner: R,
    data_left: u64,
    padding: u64,
}

impl<R: Read> TarReader<R> {
    pub fn new(inner: R) -> TarReader<R> {
        TarReader { inner, data_left: 0, padding: 0 }
    }

    /// Reads data of the current entry; 0 at its end.
    pub fn read_data(&mut self, buf: &mut [u8]) -> Result<usize, TarError> {
        if self.data_left == 0 {
            return Ok(0);
        }
        let want = buf.len().min(usize::try_from(self.data_left).unwrap_or(usize::MAX));
        let got = loop {
            match self.inner.read(&mut buf[..want]) {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                other => break other?,
            }
        };
        if got == 0 {
            return Err(TarError::Invalid("the tar stream ends in the middle"));
        }
        self.data_left -= got as u64;
        Ok(got)
    }

    /// Reads what follows the end marker, so that the writer never gets EPIPE.
    pub fn drain(&mut self) -> Result<(), TarError> {
        io::copy(&mut self.inner, &mut io::sink()).map(drop).map_err(TarError::from)
    }

    /// The next entry, none at the end marker or at the end of the stream.
    pub fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut pax = Pax::default();
        let mut long_name: Option<Vec<u8>> = None;
        let mut long_link: Option<Vec<u8>> = None;
        loop {
            self.skip_rest()?;
            let Some(block) = self.header()? else { return Ok(None) };
            let size = number(&block[124..136])?;
            match block[156] {
                b'x' => pax = parse_pax(&self.meta(size)?)?,
                // Go's reader, and so every container engine, ignores what a global header sets.
                b'g' => drop(self.meta(size)?),
                b'L' => long_name = Some(until_nul(&self.meta(size)?).to_vec()),
                b'K' => long_link = Some(until_nul(&self.meta(size)?).to_vec()),
                _ => return self.entry(&block, size, pax, long_name, long_link).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        header_size: u64,
        pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, TarError> {
        let gnu = &block[257..265] == b"ustar  \0";
        let ustar = &block[257..263] == b"ustar\0";
        let mut name = until_nul(&block[..100]).to_vec();
        if ustar && block[345] != 0 {
            let mut full = until_nul(&block[345..500]).to_vec();
            full.push(b'/');
            full.extend_from_slice(&name);
            name = full;
        }
        name = pax.path.or(long_name).unwrap_or(name);
        let link = pax.link.or(long_link).unwrap_or_else(|| until_nul(&block[157..257]).to_vec());
        let old_sparse = block[156] == b'S';
        let kind = match block[156] {
            // Before POSIX a directory was a file whose name ends in a slash.
            b'0' | 0 | b'7' if name.last() == Some(&b'/') => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            _ => return Err(TarError::Invalid("an entry has an unknown type")),
        };
        let stored = if kind == Kind::File { pax.size.unwrap_or(header_size) } else { 0 };
        self.data_left = stored;
        self.padding = (BLOCK as u64 - stored % BLOCK as u64) % BLOCK as u64;

        let mut size = stored;
        let mut runs = None;
        if old_sparse {
            if !gnu {
                return Err(TarError::Invalid("a sparse entry without a GNU header"));
            }
            size = number(&block[483..495])?;
            runs = Some(self.old_sparse_runs(block)?);
        } else if pax.sparse && kind == Kind::File {
            size = pax.sparse_size.ok_or(TarError::Invalid("a sparse entry without its size"))?;
            let numbers = if pax.sparse_major == Some(1) { self.sparse_map_in_data()? } else { pax.sparse_map };
            runs = Some(to_runs(&numbers)?);
            name = pax.sparse_name.unwrap_or(name);
        }
        if let Some(runs) = &runs {
            check_runs(runs, size, self.data_left)?;
        }
        let (mtime_sec, mtime_nsec) = match pax.mtime {
            Some(time) => time,
            None => (i64::try_from(number(&block[136..148]).unwrap_or(0)).unwrap_or(0), 0),
        };
        Ok(Entry {
            kind,
            name,
            link,
            mode: (number(&block[100..108])? & 0o7777) as u32,
            uid: pax.uid.map_or_else(|| number(&block[108..116]), Ok)?,
            gid: pax.gid.map_or_else(|| number(&block[116..124]), Ok)?,
            size,
            mtime_sec,
            mtime_nsec,
            xattrs: pax.xattrs,
            runs,
        })
    }

    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0u8; BLOCK];
        if !self.read_block_or_eof(&mut block)? {
            return Ok(None);
        }
        if block.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        let stated = number(&block[148..156])?;
        let mut unsigned = 0u64;
        let mut signed = 0i64;
        for (i, &byte) in block.iter().enumerate() {
            let byte = if (148..156).contains(&i) { b' ' } else { byte };
            unsigned += u64::from(byte);
            signed += i64::from(byte as i8);
        }
        if stated != unsigned && i64::try_from(stated) != Ok(signed) {
            return Err(TarError::Invalid("a tar header has a wrong checksum"));
        }
        Ok(Some(block))
    }

    fn read_block_or_eof(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, TarError> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(TarError::Invalid("the tar stream ends in the middle")),
                Ok(n) => filled += n,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(TarError::Io(err)),
            }
        }
        Ok(true)
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        let rest = self.data_left.checked_add(self.padding).ok_or(TarError::Invalid("an entry has an absurd size"))?;
        let skipped = io::copy(&mut (&mut self.inner).take(rest), &mut io::sink())?;
        // Some writers leave out the padding of the very last entry.
        if skipped < self.data_left {
            return Err(TarError::Invalid("the tar stream ends in the middle"));
        }
        self.data_left = 0;
        self.padding = 0;
        Ok(())
    }

    fn meta(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > META_BYTES_MAX {
            return Err(TarError::Invalid("a PAX header or long name is too large"));
        }
        let mut data = vec![0u8; size as usize];
        self.inner.read_exact(&mut data)?;
        self.data_left = 0;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        Ok(data)
    }

    fn old_sparse_runs(&mut self, block: &[u8; BLOCK]) -> Result<Vec<Run>, TarError> {
        let mut runs = Vec::new();
        read_runs(&block[386..482], &mut runs)?;
        let mut more = block[482] != 0;
        while more {
            let mut ext = [0u8; BLOCK];
            self.inner.read_exact(&mut ext)?;
            read_runs(&ext[..504], &mut runs)?;
            more = ext[504] != 0;
            if runs.len() > SPARSE_RUNS_MAX {
                return Err(TarError::Invalid("a sparse entry has too many runs"));
            }
        }
        Ok(runs)
    }

    /// PAX sparse 1.0 keeps its map in front of the data, one number a line, padded to a block.
    fn sparse_map_in_data(&mut self) -> Result<Vec<u64>, TarError> {
        let mut numbers = Vec::new();
        let mut wanted: Option<usize> = None;
        let mut digits: Vec<u8> = Vec::new();
        while wanted.map_or(true, |n| numbers.len() < n) {
            let mut block = [0u8; BLOCK];
            if self.data_left < BLOCK as u64 {
                return Err(TarError::Invalid("a sparse map is cut off"));
            }
            self.inner.read_exact(&mut block)?;
            self.data_left -= BLOCK as u64;
            for &byte in &block {
                if wanted.is_some_and(|n| numbers.len() == n) {
                    break;
                }
                if byte != b'\n' {
                    digits.push(byte);
                    if digits.len() > 20 {
                        return Err(TarError::Invalid("a sparse map has a malformed number"));
                    }
                    continue;
                }
                let value = decimal(&digits)?;
                digits.clear();
                if wanted.is_none() {
                    if value > SPARSE_RUNS_MAX as u64 {
                        return Err(TarError::Invalid("a sparse entry has too many runs"));
                    }
                    wanted = Some(value as usize * 2);
                } else {
                    numbers.push(value);
                }
            }
        }
        Ok(numbers)
    }
}

fn read_runs(table: &[u8], runs: &mut Vec<Run>) -> Result<(), TarError> {
    for pair in table.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        runs.push(Run { offset: number(&pair[..12])?, len: number(&pair[12..])? });
    }
    Ok(())
}

fn to_runs(numbers: &[u64]) -> Result<Vec<Run>, TarError> {
    if numbers.len() % 2 != 0 {
        return Err(TarError::Invalid("a sparse map has an odd count of numbers"));
    }
    Ok(numbers.chunks_exact(2).map(|pair| Run { offset: pair[0], len: pair[1] }).collect())
}

fn check_runs(runs: &[Run], size: u64, stored: u64) -> Result<(), TarError> {
    const BAD: TarError = TarError::Invalid("a sparse map does not fit its entry");
    let mut end = 0u64;
    let mut total = 0u64;
    for run in runs {
        if run.offset < end {
            return Err(BAD);
        }
        end = run.offset.checked_add(run.len).ok_or(BAD)?;
        total += run.len;
    }
    if end > size || total != stored {
        return Err(BAD);
    }
    Ok(())
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or(field)
}

/// A header number: octal text, or base 256 when the top bit is set.
fn number(field: &[u8]) -> Result<u64, TarError> {
    const BAD: TarError = TarError::Invalid("a tar header has a malformed number");
    if field[0] & 0x80 != 0 {
        if field[0] & 0x40 != 0 {
            return Err(BAD); // negative
        }
        let mut value = u64::from(field[0] & 0x3f);
        for &byte in &field[1..] {
            value = value.checked_mul(256).and_then(|v| v.checked_add(u64::from(byte))).ok_or(BAD)?;
        }
        return if value > i64::MAX as u64 { Err(BAD) } else { Ok(value) };
    }
    let text = until_nul(field).trim_ascii();
    let mut value = 0u64;
    for &byte in text {
        if !(b'0'..=b'7').contains(&byte) {
            return Err(BAD);
        }
        value = value.checked_mul(8).ok_or(BAD)? + u64::from(byte - b'0');
    }
    Ok(value)
}

fn decimal(text: &[u8]) -> Result<u64, TarError> {
    const BAD: TarError = TarError::Invalid("a PAX header has a malformed number");
    if text.is_empty() {
        return Err(BAD);
    }
    let mut value = 0u64;
    for &byte in text {
        if !byte.is_ascii_digit() {
            return Err(BAD);
        }
        value = value.checked_mul(10).and_then(|v| v.checked_add(u64::from(byte - b'0'))).ok_or(BAD)?;
    }
    if value > i64::MAX as u64 {
        return Err(BAD);
    }
    Ok(value)
}

/// `[-]seconds[.fraction]` → (seconds, nanoseconds), nanoseconds never negative.
fn pax_time(text: &[u8]) -> Result<(i64, i64), TarError> {
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut parts = text.splitn(2, |&b| b == b'.');
    let seconds = decimal(parts.next().unwrap_or_default())? as i64;
    let mut nanos = 0i64;
    let mut scale = 100_000_000i64;
    for &byte in parts.next().unwrap_or_default() {
        if !byte.is_ascii_digit() {
            return Err(TarError::Invalid("a PAX header has a malformed time"));
        }
        nanos += i64::from(byte - b'0') * scale;
        scale /= 10;
    }
    Ok(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

fn parse_pax(data: &[u8]) -> Result<Pax, TarError> {
    const BAD: TarError = TarError::Invalid("a PAX header is malformed");
    let mut pax = Pax::default();
    let mut rest = data;
    while !rest.is_empty() {
        let space = rest.iter().position(|&b| b == b' ').ok_or(BAD)?;
        let len = decimal(&rest[..space])? as usize;
        if len <= space + 1 || len > rest.len() || rest[len - 1] != b'\n' {
            return Err(BAD);
        }
        let record = &rest[space + 1..len - 1];
        rest = &rest[len..];
        let eq = record.iter().position(|&b| b == b'=').ok_or(BAD)?;
        let (key, value) = (&record[..eq], &record[eq + 1..]);
        match key {
            b"path" => pax.path = Some(value.to_vec()),
            b"linkpath" => pax.link = Some(value.to_vec()),
            b"size" => pax.size = Some(decimal(value)?),
            b"uid" => pax.uid = Some(decimal(value)?),
            b"gid" => pax.gid = Some(decimal(value)?),
            b"mtime" => pax.mtime = Some(pax_time(value)?),
            b"GNU.sparse.major" => (pax.sparse_major, pax.sparse) = (Some(decimal(value)?), true),
            b"GNU.sparse.name" => pax.sparse_name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => (pax.sparse_size, pax.sparse) = (Some(decimal(value)?), true),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                pax.sparse = true;
                pax.sparse_map.push(decimal(value)?);
            }
            b"GNU.sparse.map" => {
                pax.sparse = true;
                for part in value.split(|&b| b == b',').filter(|part| !part.is_empty()) {
                    pax.sparse_map.push(decimal(part)?);
                }
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    pax.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        if pax.sparse_map.len() > SPARSE_RUNS_MAX * 2 {
            return Err(TarError::Invalid("a sparse entry has too many runs"));
        }
    }
    Ok(pax)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256_and_never_negative() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"   12 \0\0").unwrap(), 0o12);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]).unwrap(), 256);
        assert!(number(&[0xff; 12]).is_err());
        assert!(number(&[0xbf; 12]).is_err());
        assert!(number(b"0000899\0").is_err());
    }

    #[test]
    fn pax_records_must_match_their_length() {
        assert_eq!(parse_pax(b"12 path=a/b\n").unwrap().path.unwrap(), b"a/b");
        for bad in [&b"13 path=a/b\n"[..], b"99 path=a\n", b"x path=a\n", b"3 \n", b"8 path=a"] {
            assert!(parse_pax(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn times_before_1970_keep_their_fraction() {
        assert_eq!(pax_time(b"1.5").unwrap(), (1, 500_000_000));
        assert_eq!(pax_time(b"-1.25").unwrap(), (-2, 750_000_000));
        assert!(pax_time(b"1.x").is_err());
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut seed = 0x2545_f491_4f6c_dd1du64;
        for _ in 0..2_000 {
            let mut data = vec![0u8; 2048];
            for byte in &mut data {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                *byte = if seed & 3 == 0 { b"0x517L=.\n "[(seed >> 8) as usize % 10] } else { (seed >> 16) as u8 };
            }
            for at in [0, 512, 1024] {
                data[at + 148..at + 156].fill(b' ');
                let sum: u32 = data[at..at + 512].iter().map(|&b| u32::from(b)).sum();
                data[at + 148..at + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            let mut reader = TarReader::new(&data[..]);
            while let Ok(Some(_)) = reader.next() {}
        }
    }
}
