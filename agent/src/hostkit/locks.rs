//! `faas-hostkit locks --dir DIR`: advisory locks on files of DIR, held for whoever talks to stdin.
//!
//! Node has no flock(2), and lock files judged by pid can not be taken over
//! without a race. The kernel frees these locks when this process ends, and it
//! ends when its stdin does: a killed owner never leaves a lock behind.
//!
//! In, one a line: `acquire ID shared|exclusive wait|try NAME`, `release ID`,
//! `discard ID` (removes the file, then releases; for exclusive holders).
//! Out: `ok ID`, `busy ID` (try only), `fail ID REASON`. Releasing an ID that
//! still waits gives it up; no answer follows.
//!
//! I1. A lock counts only while its file is the one that NAME leads to, so
//!     that discarding can never give two holders the same name.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::fsys;

const WAITERS_MAX: usize = 4096;
const STACK_BYTES: usize = 64 * 1024;

enum Slot {
    Waiting,
    Held(File, PathBuf),
}

type Slots = Arc<Mutex<HashMap<String, Slot>>>;

/// Runs the command; returns the exit code.
pub fn command(args: &[OsString]) -> i32 {
    let [flag, dir] = args else { return usage() };
    if flag != "--dir" {
        return usage();
    }
    let slots: Slots = Arc::default();
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { return 1 };
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["acquire", id, mode @ ("shared" | "exclusive"), how @ ("wait" | "try"), name] if is_name(name) => {
                let request = Request { id: id.into(), exclusive: mode == "exclusive", path: Path::new(dir).join(name) };
                acquire(&slots, request, how == "wait");
            }
            ["release", id] => drop(held(&slots).remove(id)),
            ["discard", id] => {
                if let Some(Slot::Held(file, path)) = held(&slots).remove(id) {
                    if let Err(err) = std::fs::remove_file(&path) {
                        if err.kind() != io::ErrorKind::NotFound {
                            eprintln!("removing {}: {err}", path.display());
                        }
                    }
                    drop(file);
                }
            }
            _ => {
                eprintln!("a malformed request");
                return 2;
            }
        }
    }
    0
}

fn usage() -> i32 {
    eprintln!("usage: faas-hostkit locks --dir DIR");
    2
}

/// A single path component, so that a name never leaves DIR.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

#[derive(Clone)]
struct Request {
    id: String,
    exclusive: bool,
    path: PathBuf,
}

fn acquire(slots: &Slots, request: Request, wait: bool) {
    match attempt(&request, false) {
        Ok(Some(file)) => {
            held(slots).insert(request.id.clone(), Slot::Held(file, request.path));
            say(&format!("ok {}", request.id));
        }
        Ok(None) if !wait => say(&format!("busy {}", request.id)),
        Ok(None) => wait_for(slots, request),
        Err(err) => say(&format!("fail {} {err}", request.id)),
    }
}

fn wait_for(slots: &Slots, request: Request) {
    let waiting = held(slots).values().filter(|slot| matches!(slot, Slot::Waiting)).count();
    if waiting >= WAITERS_MAX {
        return say(&format!("fail {} too many waiters", request.id));
    }
    held(slots).insert(request.id.clone(), Slot::Waiting);
    let (shared, waiter) = (Arc::clone(slots), request.clone());
    let spawned = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        let result = attempt(&waiter, true);
        let mut slots = held(&shared);
        // Given up meanwhile: the file closes here, and with it the lock goes.
        if !slots.contains_key(&waiter.id) {
            return;
        }
        match result {
            Ok(Some(file)) => {
                slots.insert(waiter.id.clone(), Slot::Held(file, waiter.path));
                say(&format!("ok {}", waiter.id));
            }
            Ok(None) => say(&format!("fail {} not locked", waiter.id)),
            Err(err) => {
                slots.remove(&waiter.id);
                say(&format!("fail {} {err}", waiter.id));
            }
        }
    });
    if let Err(err) = spawned {
        held(slots).remove(&request.id);
        say(&format!("fail {} {err}", request.id));
    }
}

/// None when somebody else holds it and `wait` is not wanted.
fn attempt(request: &Request, wait: bool) -> io::Result<Option<File>> {
    loop {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&request.path)?;
        if !fsys::lock_file(&file, request.exclusive, wait)? {
            return Ok(None);
        }
        // I1: between open and lock the file may have been discarded.
        match std::fs::metadata(&request.path) {
            Ok(now) if now.ino() == file.metadata()?.ino() => return Ok(Some(file)),
            Ok(_) => {}
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(err),
        }
    }
}

/// A poisoned mutex only means that a waiter panicked; the map is still whole.
fn held(slots: &Slots) -> MutexGuard<'_, HashMap<String, Slot>> {
    slots.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn say(line: &str) {
    let mut out = io::stdout().lock();
    // A reader that is gone has closed our stdin as well, which ends the process.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
