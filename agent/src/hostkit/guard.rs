//! Watches how much sandboxes have written, where no quota of the file system does.
//!
//! I1. The watch costs at most a fiftieth of a core, however many sandboxes there are and however large.
//! I2. A sandbox that used no CPU since the last look has written nothing and is not looked at.
//! I3. A file that was unlinked but is still open counts: it is found through the processes that hold it.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::tree;
use super::wire::{json_string, Output};

/// The share of one core, as its inverse.
const COST_INVERSE: u32 = 50;
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
const ENTRIES_MAX: u64 = 2_000_000;

pub struct Watched {
    pub upper: Vec<u8>,
    pub bytes_max: u64,
    /// `cgroup.procs` of the sandbox.
    pub procs: String,
    /// A file whose content changes whenever the sandbox uses CPU.
    pub cpu: String,
}

struct Entry {
    watched: Arc<Watched>,
    cpu_seen: Option<String>,
    reported: bool,
}

#[derive(Default)]
pub struct Guard {
    entries: Mutex<HashMap<String, Entry>>,
    changed: Condvar,
}

impl Guard {
    pub fn start(output: Arc<Output>) -> Arc<Guard> {
        let guard = Arc::new(Guard::default());
        let own = guard.clone();
        std::thread::spawn(move || own.run(&output));
        guard
    }

    pub fn add(&self, id: &str, watched: Watched) {
        self.lock().insert(id.into(), Entry { watched: Arc::new(watched), cpu_seen: None, reported: false });
        self.changed.notify_all();
    }

    pub fn remove(&self, id: &str) {
        self.lock().remove(id);
    }

    fn run(&self, output: &Output) {
        loop {
            let mut entries = self.lock();
            while entries.is_empty() {
                entries = self.changed.wait(entries).unwrap_or_else(|poisoned| poisoned.into_inner());
            }
            let ids: Vec<String> = entries.keys().cloned().collect();
            drop(entries);
            let begun = Instant::now();
            for id in ids {
                self.look(&id, output);
            }
            // I1: a look of d is followed by 49 d of rest.
            std::thread::sleep((begun.elapsed() * (COST_INVERSE - 1)).clamp(PAUSE_MIN, PAUSE_MAX));
        }
    }

    fn look(&self, id: &str, output: &Output) {
        let Some(watched) = self.active(id) else { return };
        let bytes = written(&watched);
        if bytes <= watched.bytes_max {
            return;
        }
        if let Some(entry) = self.lock().get_mut(id) {
            entry.reported = true;
            output.event(&format!("{{\"event\":\"over-limit\",\"id\":{},\"bytes\":{bytes}}}", json_string(id)));
        }
    }

    /// The entry, when there is reason to look at it. I2.
    fn active(&self, id: &str) -> Option<Arc<Watched>> {
        let mut entries = self.lock();
        let entry = entries.get_mut(id)?;
        let cpu = std::fs::read_to_string(&entry.watched.cpu).ok();
        if entry.reported || (cpu.is_some() && cpu == entry.cpu_seen) {
            return None;
        }
        entry.cpu_seen = cpu;
        Some(entry.watched.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Bytes in the tree and in files that have no name any more. A tree that is being removed counts as empty.
fn written(watched: &Watched) -> u64 {
    let named = tree::usage(&watched.upper, ENTRIES_MAX, watched.bytes_max).map_or(0, |usage| usage.bytes);
    if named > watched.bytes_max {
        return named;
    }
    named + unnamed(&watched.procs)
}

/// I3. Counts each file once, whoever holds it.
fn unnamed(procs: &str) -> u64 {
    let Ok(text) = std::fs::read_to_string(procs) else { return 0 };
    let mut seen = HashSet::new();
    let mut bytes = 0;
    for pid in text.lines() {
        let Ok(fds) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for fd in fds.flatten() {
            // Follows the descriptor itself, not a path.
            let Ok(meta) = std::fs::metadata(fd.path()) else { continue };
            if meta.is_file() && meta.nlink() == 0 && meta.blocks() > 0 && seen.insert((meta.dev(), meta.ino())) {
                // Memory files look the same but have no disk behind them; they count against the memory limit.
                let target = std::fs::read_link(fd.path()).unwrap_or_default();
                let is_memory = ["/memfd:", "/dev/shm/", "/dev/zero", "/SYSV"].iter().any(|start| target.to_string_lossy().starts_with(start));
                if !is_memory {
                    bytes += meta.blocks() * 512;
                }
            }
        }
    }
    bytes
}
