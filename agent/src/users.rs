//! Resolves `user[:group]` with the guest's own /etc/passwd and /etc/group.

use crate::sys;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;

/// A guest's account file is data from the guest: never read more than this.
const ACCOUNT_FILE_MAX: u64 = 1024 * 1024;
const GROUPS_MAX: usize = 1024;

#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// From the account's entry, if there is one.
    pub home: Option<Vec<u8>>,
}

pub fn resolve(spec: &str) -> Result<Identity, String> {
    resolve_in(spec, &read_account_file(c"/etc/passwd"), &read_account_file(c"/etc/group"))
}

fn read_account_file(path: &std::ffi::CStr) -> Vec<u8> {
    // Non-blocking: the guest may have put a FIFO there.
    let Ok(fd) = sys::open_at(sys::AT_FDCWD, path, sys::O_RDONLY | sys::O_NONBLOCK | sys::O_NOCTTY, 0)
    else {
        return Vec::new(); // an image without accounts is an ordinary case
    };
    let file = File::from(fd);
    let mut bytes = Vec::new();
    let regular = file.metadata().map(|m| m.is_file()).unwrap_or(false);
    let readable = sys::fs_type(file.as_raw_fd()).is_ok();
    if !regular || !readable || file.take(ACCOUNT_FILE_MAX).read_to_end(&mut bytes).is_err() {
        return Vec::new();
    }
    bytes
}

struct Account {
    name: Vec<u8>,
    uid: u32,
    gid: u32,
    home: Vec<u8>,
}

fn number(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // The kernel's "leave unchanged" value must never pass as an id.
    text.parse().ok().filter(|&n: &u32| n != u32::MAX)
}

fn find_account(passwd: &[u8], wanted: impl Fn(&[u8], u32) -> bool) -> Option<Account> {
    for line in passwd.split(|&b| b == b'\n') {
        let f: Vec<&[u8]> = line.split(|&b| b == b':').collect();
        if f.len() < 6 {
            continue;
        }
        if let (Some(uid), Some(gid)) = (number(f[2]), number(f[3])) {
            if wanted(f[0], uid) {
                return Some(Account { name: f[0].to_vec(), uid, gid, home: f[5].to_vec() });
            }
        }
    }
    None
}

fn group_lines(group: &[u8]) -> impl Iterator<Item = (&[u8], u32, &[u8])> {
    group.split(|&b| b == b'\n').filter_map(|line| {
        let f: Vec<&[u8]> = line.split(|&b| b == b':').collect();
        match f[..] {
            [name, _, gid, members, ..] => number(gid).map(|gid| (name, gid, members)),
            _ => None,
        }
    })
}

fn resolve_in(spec: &str, passwd: &[u8], group: &[u8]) -> Result<Identity, String> {
    let (user, group_part) = match spec.split_once(':') {
        Some((user, group_part)) => (user, Some(group_part)),
        None => (spec, None),
    };
    // A name wins over a number, as in useradd and the OCI runtimes.
    let by_name = find_account(passwd, |name, _| name == user.as_bytes());
    let (uid, account) = match (by_name, number(user.as_bytes())) {
        (Some(account), _) => (account.uid, Some(account)),
        (None, Some(uid)) => (uid, find_account(passwd, |_, found| found == uid)),
        (None, None) => return Err(format!("no user named {user:?} in the sandbox")),
    };
    let gid = match group_part {
        None => account.as_ref().map_or(0, |a| a.gid),
        Some(text) => group_lines(group)
            .find(|(name, _, _)| *name == text.as_bytes())
            .map(|(_, gid, _)| gid)
            .or_else(|| number(text.as_bytes()))
            .ok_or_else(|| format!("no group named {text:?} in the sandbox"))?,
    };
    let mut groups = vec![gid];
    if let (Some(account), None) = (&account, group_part) {
        for (_, extra, members) in group_lines(group) {
            let listed = members.split(|&b| b == b',').any(|m| m == account.name);
            if listed && !groups.contains(&extra) && groups.len() < GROUPS_MAX {
                groups.push(extra);
            }
        }
    }
    Ok(Identity { uid, gid, groups, home: account.map(|a| a.home).filter(|h| !h.is_empty()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nbroken line\nann:x:1000:100::/home/ann:/bin/sh\n4242:x:7:8::/:/\n";
    const GROUP: &[u8] = b"root:x:0:\nusers:x:100:\nwheel:x:10:bob,ann\naudio:x:29:ann\n";

    fn ids(spec: &str) -> Result<(u32, u32, Vec<u32>), String> {
        resolve_in(spec, PASSWD, GROUP).map(|i| (i.uid, i.gid, i.groups))
    }

    #[test]
    fn users_resolve_by_name_number_and_group() {
        assert_eq!(ids("ann"), Ok((1000, 100, vec![100, 10, 29])));
        assert_eq!(ids("1000"), Ok((1000, 100, vec![100, 10, 29])));
        assert_eq!(ids("ann:wheel"), Ok((1000, 10, vec![10])));
        assert_eq!(ids("5:6"), Ok((5, 6, vec![6])));
        assert_eq!(ids("5"), Ok((5, 0, vec![0])));
        assert_eq!(ids("4242"), Ok((7, 8, vec![8])), "a name wins over a number");
    }

    #[test]
    fn unknown_names_are_errors() {
        assert!(ids("nobody").is_err());
        assert!(ids("ann:nogroup").is_err());
        assert!(ids("").is_err());
        assert!(ids("4294967295").is_err());
        assert!(ids("-1").is_err());
    }

    #[test]
    fn random_account_files_never_panic() {
        let mut rng = crate::testing::Rng::new(5);
        for _ in 0..2000 {
            let junk: Vec<u8> = (0..rng.below(80)).map(|_| b"a:0,\n9"[rng.below(6)]).collect();
            let _ = resolve_in("a:9", &junk, &junk).map(|i| i.uid);
        }
    }
}
