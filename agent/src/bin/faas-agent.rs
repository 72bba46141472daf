//! The guest agent. See `docs/agent-protocol.md`.

use faas_agent::agent::{Options, Server, Transport};
use std::process::ExitCode;

const USAGE: &str = "usage: faas-agent (--listen PATH | --stdio) [--allow-local-peers]

  --listen PATH        serve a unix socket; only processes outside of this
                       PID namespace may connect
  --stdio              speak on standard input and output
  --allow-local-peers  accept any peer (for tests outside a container)
  --version            print the version";

fn parse(args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut transport = None;
    let mut allow_local_peers = false;
    let mut args = args;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--listen" => {
                let path = args.next().ok_or("--listen needs a path")?;
                transport = Some(Transport::Listen(path.into()));
            }
            "--stdio" => transport = Some(Transport::Stdio),
            "--allow-local-peers" => allow_local_peers = true,
            other => return Err(format!("unknown argument {other:?}")),
        }
    }
    let transport = transport.ok_or("one of --listen and --stdio is needed")?;
    Ok(Options { transport, allow_local_peers })
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|a| a == "--version") {
        println!("{}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let options = match parse(args.into_iter()) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("faas-agent: {why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match Server::start(options).and_then(|mut server| server.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("faas-agent: {err}");
            ExitCode::FAILURE
        }
    }
}
