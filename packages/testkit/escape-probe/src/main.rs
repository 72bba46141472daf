//! `faas-escape-probe NAME [MARKER] [PORT] [ABSTRACT]`: tries one way out of the sandbox.
//!
//! MARKER is a file that exists on the host only; reading it is the proof of an escape by files. PORT listens on the
//! host's loopback, ABSTRACT is an abstract socket of the host. Prints `refused: WHY` (exit 0) or
//! `succeeded: EVIDENCE` (exit 1). Whatever succeeds is chosen to do no harm to the machine.
mod attempts;
mod sys;

use std::process::ExitCode;

pub struct Host {
    pub marker: String,
    pub port: u16,
    pub abstract_name: String,
}

/// `Ok` is an escape with its evidence, `Err` a refusal with its reason.
pub type Attempt = fn(&Host) -> Result<String, String>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let name = args.get(1).map_or("", String::as_str);
    if name == "list" {
        for (name, _) in attempts::ALL {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    }
    let host = Host {
        marker: args.get(2).cloned().unwrap_or_default(),
        port: args.get(3).and_then(|port| port.parse().ok()).unwrap_or(0),
        abstract_name: args.get(4).cloned().unwrap_or_default(),
    };
    let Some((_, attempt)) = attempts::ALL.iter().find(|(known, _)| *known == name) else {
        eprintln!("there is no attempt {name}");
        return ExitCode::from(2);
    };
    match attempt(&host) {
        Ok(evidence) => {
            println!("succeeded: {evidence}");
            ExitCode::from(1)
        }
        Err(reason) => {
            println!("refused: {reason}");
            ExitCode::SUCCESS
        }
    }
}
