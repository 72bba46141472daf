//! Host-side helper. Its commands live in `src/hostkit/`.

// The modules below name the crate's kernel calls as `crate::sys`.
use faas_agent::sys;

#[path = "../hostkit/mod.rs"]
mod hostkit;

fn main() {
    // Ctrl-C, `timeout` and service managers tell a whole group to stop. The parent decides what that means,
    // and may need us to drain: every command here ends with its input, or with its parent.
    hostkit::sys::ignore_stop_signals();
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let code = match args.first().and_then(|arg| arg.to_str()) {
        Some("serve") if args.len() <= 2 => match hostkit::serve::run(args.get(1)) {
            Ok(()) => 0,
            Err(err) => {
                eprintln!("faas-hostkit: {err}");
                1
            }
        },
        Some("unpack") => hostkit::unpack::command(&args[1..]),
        Some("locks") => hostkit::locks::command(&args[1..]),
        Some("pack") => hostkit::pack::command(&args[1..]),
        _ => {
            eprintln!("usage: faas-hostkit serve [LOCKFILE] | unpack … | locks … | pack …");
            2
        }
    };
    std::process::exit(code);
}
