//! The resident helper: reads requests of several steps, runs each request in a thread of its own.
//!
//! I1. The steps of a request run in order; the first failure ends it and is reported with its place.
//! I2. The helper ends when its parent does: end of input, or the parent-death signal.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::guard::{Guard, Watched};
use super::launch::Launch;
use super::mounts::{IdMap, MountPlan};
use super::process::{self, Program};
use super::reaper::Reaper;
use super::sys::{self, c};
use super::tree::{self, cstring};
use super::wire::{self, json_string, Fields, Output, StepResult};
use super::{cgroup, netns, userns, xattr};

pub struct Context {
    pub reaper: Arc<Reaper>,
    pub output: Arc<Output>,
    pub guard: Arc<Guard>,
    /// Namespaces kept open for later sandboxes; they vanish with this process.
    pub held: Mutex<HashMap<RawFd, OwnedFd>>,
}

/// `lock_path`: a file whose lock this process holds while it lives. An older helper of the same owner
/// may still be on its way out; nothing is done before it is gone.
pub fn run(lock_path: Option<&OsString>) -> io::Result<()> {
    // SAFETY: plain system calls.
    unsafe {
        c::prctl(1 /* PR_SET_PDEATHSIG */, sys::SIGKILL as usize, 0usize, 0usize, 0usize);
        c::signal(sys::SIGPIPE, 1 /* SIG_IGN */);
    }
    // Names of the runtime's files are ours to choose: the caller's umask must not change their modes.
    extern "C" {
        fn umask(mask: u32) -> u32;
    }
    unsafe { umask(0o022) };
    let _lock = lock_path.map(take_lock).transpose()?;
    // SAFETY: 0 and 1 are open; nothing else in this process uses them.
    let mut input = unsafe { File::from_raw_fd(0) };
    let out_fd = unsafe { File::from_raw_fd(1) };
    let output = Arc::new(Output::new(out_fd));
    let reaper = Reaper::start(output.clone())?;
    let guard = Guard::start(output.clone());
    let context = Arc::new(Context { reaper, output, guard, held: Mutex::default() });
    while let Some(request) = wire::read_request(&mut input)? {
        let context = context.clone();
        std::thread::Builder::new().stack_size(512 * 1024).spawn(move || {
            let (failed, results) = perform(&context, &request.steps);
            context.output.respond(request.id, failed, &results);
        })?;
    }
    Ok(())
}

fn take_lock(path: &OsString) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    file.lock()?;
    Ok(file)
}

fn perform(context: &Context, steps: &[Fields]) -> (bool, Vec<StepResult>) {
    let mut results = Vec::new();
    for (at, fields) in steps.iter().enumerate() {
        let begun = Instant::now();
        let outcome = step(context, &Args(fields));
        let micros = begun.elapsed().as_micros().min(u32::MAX.into()) as u32;
        match outcome {
            Ok(text) => results.push(StepResult { micros, bytes: text.into_bytes() }),
            Err(err) => {
                let op = fields.first().map(|op| String::from_utf8_lossy(op).into_owned()).unwrap_or_default();
                let json = format!(
                    "{{\"step\":{at},\"op\":{},\"errno\":{},\"message\":{}}}",
                    json_string(&op),
                    sys::errno_of(&err),
                    json_string(&err.to_string())
                );
                results.push(StepResult { micros, bytes: json.into_bytes() });
                return (true, results);
            }
        }
    }
    (false, results)
}

/// Kept of each stream of a tool, when the caller names no other bound.
const RUN_OUTPUT_MAX: usize = 64 * 1024;

/// The fields of one step: the operation, then positional or `name=value` arguments.
struct Args<'a>(&'a Fields);

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

impl<'a> Args<'a> {
    fn bytes(&self, at: usize) -> io::Result<&'a [u8]> {
        self.0.get(at).map(Vec::as_slice).ok_or_else(|| invalid(format!("argument {at} is missing")))
    }

    fn text(&self, at: usize) -> io::Result<&'a str> {
        std::str::from_utf8(self.bytes(at)?).map_err(|_| invalid(format!("argument {at} is not UTF-8")))
    }

    fn number<T: std::str::FromStr>(&self, at: usize) -> io::Result<T> {
        self.text(at)?.parse().map_err(|_| invalid(format!("argument {at} is not a number")))
    }

    fn octal(&self, at: usize) -> io::Result<u32> {
        u32::from_str_radix(self.text(at)?, 8).map_err(|_| invalid(format!("argument {at} is not octal")))
    }

    fn deadline(&self, at: usize) -> io::Result<Instant> {
        Ok(Instant::now() + Duration::from_millis(self.number(at)?))
    }

    fn paths(&self, from: usize) -> Vec<PathBuf> {
        self.0.iter().skip(from).map(|path| PathBuf::from(OsString::from_vec(path.clone()))).collect()
    }

    /// The value of a `name=value` field.
    fn named(&self, name: &str) -> Option<&'a [u8]> {
        self.0.iter().skip(1).find_map(|field| field.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }

    fn named_list(&self, name: &str) -> io::Result<Vec<std::ffi::CString>> {
        Program::parse_list(self.named(name).unwrap_or_default())
    }

    fn named_number<T: std::str::FromStr>(&self, name: &str) -> io::Result<Option<T>> {
        let Some(value) = self.named(name) else { return Ok(None) };
        let text = std::str::from_utf8(value).map_err(|_| invalid(format!("{name} is not UTF-8")))?;
        text.parse().map(Some).map_err(|_| invalid(format!("{name} is not a number")))
    }

    fn id_map(&self) -> io::Result<Option<IdMap>> {
        let Some(userns) = self.named_number("userns")? else { return Ok(None) };
        Ok(Some(IdMap { userns, base: required(self.named_number("idbase")?, "idbase")? }))
    }

    /// Two numbers, when there are any: first host id and count.
    fn id_range(&self, at: usize) -> io::Result<Option<userns::IdRange>> {
        if self.0.len() <= at {
            return Ok(None);
        }
        Ok(Some(userns::IdRange { base: self.number(at)?, count: self.number(at + 1)? }))
    }

    fn program(&self, dies_with_us: bool) -> io::Result<Program> {
        let argv = self.named_list("argv")?;
        if argv.is_empty() {
            return Err(invalid("argv is empty".into()));
        }
        let mounts = match self.named("target") {
            None => None,
            Some(target) => {
                let writable = self.named("writable").ok_or_else(|| invalid("writable is missing".into()))?;
                let plan = MountPlan::new(target, self.named_list("lowers")?, writable, self.id_map()?)?;
                Some(plan.hide(self.named_list("hidden")?))
            }
        };
        Ok(Program {
            argv,
            env: self.named_list("env")?,
            cwd: self.named("cwd").map(cstring).transpose()?,
            cgroup_procs: self
                .named_list("cgroups")?
                .iter()
                .map(|path| sys::open_at(sys::AT_FDCWD, path, sys::O_WRONLY, 0))
                .collect::<io::Result<_>>()?,
            mounts,
            netns: self.named_number("netns")?,
            dies_with_us,
        })
    }
}

fn step(context: &Context, args: &Args<'_>) -> io::Result<String> {
    match args.text(0)? {
        "ping" => Ok(String::new()),
        "mkdir" => tree::mkdir(args.bytes(1)?, args.octal(2)?).map(empty),
        "write" => tree::write_file(args.bytes(1)?, args.octal(2)?, args.bytes(3)?).map(empty),
        "control" => tree::write_control(args.bytes(1)?, args.bytes(2)?).map(empty),
        "guard" => {
            let watched = Watched {
                upper: args.bytes(2)?.to_vec(),
                bytes_max: args.number(3)?,
                procs: args.text(4)?.into(),
                cpu: args.text(5)?.into(),
            };
            context.guard.add(args.text(1)?, watched);
            Ok(String::new())
        }
        "unguard" => {
            context.guard.remove(args.text(1)?);
            Ok(String::new())
        }
        "opaque" => xattr::make_opaque(args.bytes(1)?).map(empty),
        "rmdir" => tree::rmdir_if_empty(args.bytes(1)?).map(empty),
        "rename" => tree::rename(args.bytes(1)?, args.bytes(2)?).map(empty),
        "rmtree" => tree::rmtree(args.bytes(1)?).map(empty),
        "usage" => {
            let usage = tree::usage(args.bytes(1)?, args.number(2)?, args.number(3)?)?;
            Ok(format!(
                "{{\"bytes\":{},\"entries\":{},\"complete\":{}}}",
                usage.bytes, usage.entries, usage.complete
            ))
        }
        "run" => {
            let deadline = Instant::now() + Duration::from_millis(required(args.named_number("timeout")?, "timeout")?);
            let input = args.named("stdin").unwrap_or_default();
            let output_max = args.named_number("output")?.unwrap_or(RUN_OUTPUT_MAX);
            process::run(&args.program(true)?, input, output_max, &context.reaper, deadline).map(|done| done.json())
        }
        "launch" => {
            let launch = Launch {
            program: args.program(false)?,
            pid_file: cstring(args.named("pidfile").unwrap_or_default())?,
            log_file: cstring(args.named("log").unwrap_or_default())?,
            ready_prefix: String::from_utf8_lossy(args.named("ready").unwrap_or_default()).into_owned(),
            deadline: Instant::now() + Duration::from_millis(required(args.named_number("timeout")?, "timeout")?),
            };
            let (json, pipes) = launch.run(&context.reaper, &context.output)?;
            for pipe in pipes {
                hold(context, pipe);
            }
            Ok(json)
        }
        "cgroup-kill" => cgroup::kill_all(&args.paths(2), args.deadline(1)?).map(|met| met.to_string()),
        "cgroup-remove" => cgroup::remove_all(&args.paths(2), args.deadline(1)?).map(empty),
        "umount" => match sys::umount(&cstring(args.bytes(1)?)?, sys::MNT_DETACH) {
            // Not a mount point, or not there: nothing to undo.
            Err(err) if matches!(err.raw_os_error(), Some(22) | Some(sys::ENOENT)) => Ok("false".into()),
            other => other.map(|()| "true".into()),
        },
        "userns" => {
            let ids = userns::IdRange { base: args.number(1)?, count: args.number(2)? };
            Ok(hold(context, userns::create(&ids)?).to_string())
        }
        "netns" => Ok(hold_namespaces(context, netns::create(args.id_range(1)?.as_ref())?)),
        "netns-cable" => {
            let cable = netns::Cable {
                name: args.text(1)?.into(),
                host: args.number(2)?,
                guest: args.number(3)?,
                mtu: args.number(4)?,
            };
            Ok(hold_namespaces(context, netns::create_with_cable(&cable, args.id_range(5)?.as_ref())?))
        }
        "link-remove" => netns::remove_link(args.text(1)?).map(|was| was.to_string()),
        "close" => {
            let fd: RawFd = args.number(1)?;
            let held = lock(&context.held).remove(&fd);
            Ok(held.is_some().to_string())
        }
        other => Err(invalid(format!("there is no operation {other:?}"))),
    }
}

fn empty((): ()) -> String {
    String::new()
}

fn required<T>(value: Option<T>, name: &str) -> io::Result<T> {
    value.ok_or_else(|| invalid(format!("{name} is missing")))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn hold(context: &Context, fd: OwnedFd) -> RawFd {
    let number = fd.as_raw_fd();
    lock(&context.held).insert(number, fd);
    number
}

fn hold_namespaces(context: &Context, made: netns::Namespaces) -> String {
    let user = made.user.map_or(String::from("null"), |user| hold(context, user).to_string());
    format!("{{\"net\":{},\"user\":{user}}}", hold(context, made.net))
}

