//! Starts a process with `clone(CLONE_VM | CLONE_VFORK)`.
//!
//! The child borrows the parent's memory until it executes, so starting costs
//! no page-table copy, and a failure is reported by writing the failed step
//! and errno where the suspended parent reads them: as reliable as an error
//! pipe, without the pipe. For the same reason the child must not allocate,
//! lock or call a libc function with process-wide effects (see `sys::raw`).

use crate::sys::{self, raw};
use std::ffi::{c_char, c_int, c_void, CString};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

/// The step at which starting a process failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Step {
    Clone = 1,
    Session,
    Terminal,
    Descriptors,
    OomScore,
    Limits,
    Capabilities,
    Identity,
    Directory,
    Exec,
}

impl Step {
    fn from_raw(n: i32) -> Step {
        use Step::*;
        let all =
            [Clone, Session, Terminal, Descriptors, OomScore, Limits, Capabilities, Identity, Directory, Exec];
        all.into_iter().find(|s| *s as i32 == n).unwrap_or(Exec)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpawnError {
    pub step: Step,
    pub errno: i32,
}

pub struct Rlimit {
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// Everything the child needs, prepared before it exists.
pub struct Plan {
    pub argv: Vec<CString>,
    pub env: Vec<CString>,
    pub cwd: CString,
    pub identity: Option<(u32, u32, Vec<u32>)>,
    /// Descriptors for 0, 1 and 2, all ≥ 3.
    pub stdio: [RawFd; 3],
    pub controlling_tty: bool,
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: Option<i32>,
    pub umask: u32,
    /// Capabilities to keep; none leaves them as they are.
    pub capabilities: Option<u64>,
    pub no_new_privs: bool,
}

const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const STACK_BYTES: usize = 64 * 1024;

struct Child<'a> {
    plan: &'a Plan,
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    candidates: Vec<CString>,
    oom_score_adj: Option<String>,
    failed_step: AtomicI32,
    failed_errno: AtomicI32,
}

/// Owns the stack that children start on; one child starts at a time.
pub struct Spawner {
    stack: Vec<u128>, // aligned to 16, as both ABIs demand
}

impl Default for Spawner {
    fn default() -> Spawner {
        Spawner::new()
    }
}

impl Spawner {
    pub fn new() -> Spawner {
        Spawner { stack: vec![0; STACK_BYTES / 16] }
    }

    /// Returns once the child has executed its program, or has failed to.
    pub fn spawn(&mut self, plan: &Plan) -> Result<i32, SpawnError> {
        let child = Child {
            argv: pointers(&plan.argv),
            env: pointers(&plan.env),
            candidates: candidates(plan),
            oom_score_adj: plan.oom_score_adj.map(|n| n.to_string()),
            plan,
            failed_step: AtomicI32::new(0),
            failed_errno: AtomicI32::new(0),
        };
        let pid = unsafe {
            let top = self.stack.as_mut_ptr().add(self.stack.len());
            raw::clone(
                child_entry,
                top.cast(),
                raw::CLONE_VM | raw::CLONE_VFORK | sys::SIGCHLD,
                (&child as *const Child).cast_mut().cast(),
            )
        };
        if pid < 0 {
            return Err(SpawnError { step: Step::Clone, errno: raw::errno() });
        }
        match child.failed_step.load(Ordering::SeqCst) {
            0 => Ok(pid),
            step => {
                sys::reap(pid, true);
                let errno = child.failed_errno.load(Ordering::SeqCst);
                Err(SpawnError { step: Step::from_raw(step), errno })
            }
        }
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Paths to try, as execvp does, with the PATH of the new environment.
fn candidates(plan: &Plan) -> Vec<CString> {
    let Some(name) = plan.argv.first() else { return Vec::new() };
    let name_bytes = name.to_bytes();
    if name_bytes.contains(&b'/') || name_bytes.is_empty() {
        return vec![name.clone()];
    }
    let path = plan
        .env
        .iter()
        .find_map(|e| e.to_bytes().strip_prefix(b"PATH="))
        .unwrap_or(DEFAULT_PATH);
    path.split(|&b| b == b':')
        .filter_map(|dir| {
            let mut full = if dir.is_empty() { b".".to_vec() } else { dir.to_vec() };
            full.push(b'/');
            full.extend_from_slice(name_bytes);
            CString::new(full).ok()
        })
        .collect()
}

extern "C" fn child_entry(arg: *mut c_void) -> c_int {
    // SAFETY: the parent is suspended until we execute or exit, so what it
    // lent us is alive and nobody else touches it.
    unsafe {
        let child = &*(arg as *const Child);
        let step = run_child(child);
        child.failed_errno.store(raw::errno(), Ordering::SeqCst);
        child.failed_step.store(step as i32, Ordering::SeqCst);
        raw::_exit(127)
    }
}

/// Executes the program; returns the step that failed.
unsafe fn run_child(child: &Child) -> Step {
    let plan = child.plan;
    if raw::setsid() < 0 {
        return Step::Session;
    }
    if plan.controlling_tty && !raw::set_controlling_tty(plan.stdio[0]) {
        return Step::Terminal;
    }
    for (new, old) in plan.stdio.iter().enumerate() {
        if !raw::dup2(*old, new as RawFd) {
            return Step::Descriptors;
        }
    }
    if let Some(score) = &child.oom_score_adj {
        if !raw::write_file(c"/proc/self/oom_score_adj".as_ptr(), score.as_bytes()) {
            return Step::OomScore;
        }
    }
    for limit in &plan.rlimits {
        if !raw::setrlimit(limit.resource, limit.soft, limit.hard) {
            return Step::Limits;
        }
    }
    raw::umask(plan.umask);
    if let Some(keep) = plan.capabilities {
        if !raw::bound_capabilities(keep) {
            return Step::Capabilities;
        }
    }
    // First with the agent's rights (a home closed to others), then, if that
    // fails, with the user's (a directory that refuses root, as on NFS).
    let mut inside = raw::chdir(plan.cwd.as_ptr()) == 0;
    if let Some((uid, gid, groups)) = &plan.identity {
        if !raw::setgroups(groups) || !raw::setresgid(*gid) || !raw::setresuid(*uid) {
            return Step::Identity;
        }
        inside = inside || raw::chdir(plan.cwd.as_ptr()) == 0;
    }
    if !inside {
        return Step::Directory;
    }
    if let Some(keep) = plan.capabilities {
        if !raw::mask_capabilities(keep) {
            return Step::Capabilities;
        }
    }
    if plan.no_new_privs && !raw::no_new_privs() {
        return Step::Capabilities;
    }
    raw::default_signal(sys::SIGPIPE);
    raw::unblock_all_signals();
    exec(child)
}

/// Tries every candidate. "Permission denied" on one is remembered, as in
/// execvp, and reported only when no other candidate exists.
unsafe fn exec(child: &Child) -> Step {
    let mut denied = false;
    for path in &child.candidates {
        raw::execve(path.as_ptr(), child.argv.as_ptr(), child.env.as_ptr());
        match raw::errno() {
            sys::EACCES => denied = true,
            sys::ENOENT | sys::ENOTDIR => {}
            _ => return Step::Exec,
        }
    }
    if denied {
        raw::set_errno(sys::EACCES);
    } else {
        raw::set_errno(sys::ENOENT);
    }
    Step::Exec
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    fn run(argv: &[&str], change: impl FnOnce(&mut Plan)) -> Result<i32, SpawnError> {
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        let fd = sys::dup_above(null.as_raw_fd(), 10).unwrap();
        let text = |s: &&str| CString::new(*s).unwrap();
        let mut plan = Plan {
            argv: argv.iter().map(text).collect(),
            env: vec![c"PATH=/bin:/usr/bin".to_owned()],
            cwd: c"/".to_owned(),
            identity: None,
            stdio: [fd.as_raw_fd(); 3],
            controlling_tty: false,
            rlimits: Vec::new(),
            oom_score_adj: None,
            umask: 0o22,
            capabilities: None,
            no_new_privs: false,
        };
        change(&mut plan);
        let pid = Spawner::new().spawn(&plan)?;
        let ended = sys::reap(pid, true).unwrap();
        Ok(ended.status)
    }

    fn failure(argv: &[&str], change: impl FnOnce(&mut Plan)) -> (Step, i32) {
        let err = run(argv, change).unwrap_err();
        (err.step, err.errno)
    }

    #[test]
    fn a_command_runs_and_its_status_comes_back() {
        assert_eq!(run(&["sh", "-c", "exit 7"], |_| {}), Ok(7 << 8));
        assert_eq!(run(&["sh", "-c", "kill -9 $$"], |_| {}), Ok(9));
    }

    #[test]
    fn every_way_to_fail_is_told_apart() {
        assert_eq!(failure(&["no-such-command"], |_| {}), (Step::Exec, sys::ENOENT));
        assert_eq!(failure(&["/etc/passwd"], |_| {}), (Step::Exec, sys::EACCES));
        assert_eq!(failure(&["/etc"], |_| {}), (Step::Exec, sys::EACCES));
        let bad_cwd = |p: &mut Plan| p.cwd = c"/no/such/dir".to_owned();
        assert_eq!(failure(&["true"], bad_cwd), (Step::Directory, sys::ENOENT));
        let huge = "x".repeat(200_000);
        assert_eq!(failure(&["true", &huge], |_| {}), (Step::Exec, sys::E2BIG));
    }

    #[test]
    fn the_child_starts_with_clean_signals_and_the_asked_limits() {
        let script = "test $(ulimit -n) = 77 && test $(umask) = 0007 && grep -q 'SigIgn:.*[02468ace]...$' /proc/self/status && grep -q 'SigBlk:.0*$' /proc/self/status";
        let change = |p: &mut Plan| {
            p.rlimits.push(Rlimit { resource: sys::nofile_resource(), soft: 77, hard: 77 });
            p.umask = 0o7;
        };
        assert_eq!(run(&["sh", "-c", script], change), Ok(0));
    }
}
