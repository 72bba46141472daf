//! Decodes EXEC into a plan; see "EXEC" in `docs/agent-protocol.md`.

use super::exec::OnDisconnect;
use crate::fields::{as_u16, as_u32, as_u64, as_u8, Fields};
use crate::frame::ProtocolError;
use crate::spawn::Rlimit;
use std::ffi::CString;

pub const DEFAULT_WINDOW: u32 = 256 * 1024;
pub const DEFAULT_DRAIN_MS: u32 = 200;
const DRAIN_MS_MAX: u32 = 60_000;
pub const DEFAULT_RING: u32 = 256 * 1024;
pub const RING_MAX: u32 = 4 * 1024 * 1024;

pub mod tag {
    pub const ARG: u8 = 1;
    pub const ENV: u8 = 2;
    pub const CWD: u8 = 3;
    pub const USER: u8 = 4;
    pub const STDIN_MODE: u8 = 5;
    pub const STDIN_DATA: u8 = 6;
    pub const PTY: u8 = 7;
    pub const RLIMIT: u8 = 8;
    pub const OOM_SCORE_ADJ: u8 = 9;
    pub const ON_DISCONNECT: u8 = 10;
    pub const UMASK: u8 = 11;
    pub const WINDOW: u8 = 12;
    pub const RING_BYTES: u8 = 13;
    pub const DRAIN_MS: u8 = 14;
    pub const CAPABILITIES: u8 = 15;
    pub const NO_NEW_PRIVS: u8 = 16;
    pub const DEFAULT_HOME: u8 = 17;
}

#[derive(Debug, PartialEq, Eq)]
pub enum StdinMode {
    None,
    Pipe,
    Inline(Vec<u8>),
}

pub struct ExecRequest {
    pub argv: Vec<CString>,
    pub env: Vec<CString>,
    pub cwd: CString,
    pub user: Option<String>,
    pub stdin: StdinMode,
    pub pty: Option<(u16, u16)>,
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: Option<i32>,
    pub on_disconnect: OnDisconnect,
    pub umask: u32,
    pub window: u32,
    pub ring_bytes: u32,
    pub drain_ms: u32,
    pub capabilities: Option<u64>,
    pub no_new_privs: bool,
    pub default_home: bool,
}

/// Malformed bytes, which end the connection, or a request that is well
/// formed and wrong, which is answered.
pub enum Rejected {
    Protocol(ProtocolError),
    Invalid(&'static str),
}

impl From<ProtocolError> for Rejected {
    fn from(err: ProtocolError) -> Rejected {
        Rejected::Protocol(err)
    }
}

fn text(value: &[u8]) -> Result<CString, Rejected> {
    CString::new(value).map_err(|_| Rejected::Invalid("a string holds a NUL byte"))
}

pub fn parse(payload: &[u8]) -> Result<ExecRequest, Rejected> {
    let mut r = ExecRequest {
        argv: Vec::new(),
        env: Vec::new(),
        cwd: c"/".to_owned(),
        user: None,
        stdin: StdinMode::None,
        pty: None,
        rlimits: Vec::new(),
        oom_score_adj: None,
        on_disconnect: OnDisconnect::Kill,
        umask: 0o022,
        window: DEFAULT_WINDOW,
        ring_bytes: DEFAULT_RING,
        drain_ms: DEFAULT_DRAIN_MS,
        capabilities: None,
        no_new_privs: false,
        default_home: false,
    };
    let mut stdin_mode = 0;
    let mut stdin_data = Vec::new();
    let mut fields = Fields::new(payload);
    while let Some((field, value)) = fields.next()? {
        match field {
            tag::ARG => r.argv.push(text(value)?),
            tag::ENV => r.env.push(text(value)?),
            tag::CWD => r.cwd = text(value)?,
            tag::USER => {
                let name = std::str::from_utf8(value).map_err(|_| Rejected::Invalid("user is not UTF-8"))?;
                r.user = Some(name.to_owned());
            }
            tag::STDIN_MODE => stdin_mode = as_u8(value)?,
            tag::STDIN_DATA => stdin_data.extend_from_slice(value),
            tag::PTY if value.len() == 4 => r.pty = Some((as_u16(&value[..2])?, as_u16(&value[2..])?)),
            tag::RLIMIT if value.len() == 20 => r.rlimits.push(Rlimit {
                resource: as_u32(&value[..4])?,
                soft: as_u64(&value[4..12])?,
                hard: as_u64(&value[12..])?,
            }),
            tag::OOM_SCORE_ADJ => r.oom_score_adj = Some(as_u32(value)? as i32),
            tag::ON_DISCONNECT => {
                r.on_disconnect = match as_u8(value)? {
                    0 => OnDisconnect::Kill,
                    1 => OnDisconnect::KeepNewest,
                    2 => OnDisconnect::KeepAll,
                    _ => return Err(Rejected::Invalid("unknown disconnect policy")),
                }
            }
            tag::UMASK => r.umask = as_u32(value)? & 0o777,
            tag::WINDOW => r.window = as_u32(value)?,
            tag::RING_BYTES => r.ring_bytes = as_u32(value)?,
            tag::DRAIN_MS => r.drain_ms = as_u32(value)?.min(DRAIN_MS_MAX),
            tag::CAPABILITIES => r.capabilities = Some(as_u64(value)?),
            tag::NO_NEW_PRIVS => r.no_new_privs = as_u8(value)? != 0,
            tag::DEFAULT_HOME => r.default_home = as_u8(value)? != 0,
            _ => return Err(Rejected::Invalid("unknown field, or a field of the wrong size")),
        }
    }
    r.stdin = match stdin_mode {
        0 => StdinMode::None,
        1 => StdinMode::Pipe,
        2 => StdinMode::Inline(stdin_data),
        _ => return Err(Rejected::Invalid("unknown stdin mode")),
    };
    if r.argv.is_empty() {
        return Err(Rejected::Invalid("argv is empty"));
    }
    if r.rlimits.len() > 32 {
        return Err(Rejected::Invalid("too many resource limits"));
    }
    if r.on_disconnect == OnDisconnect::Kill {
        r.ring_bytes = 0;
    } else if r.ring_bytes == 0 || r.ring_bytes > RING_MAX {
        return Err(Rejected::Invalid("ring size is not between 1 byte and 4 MiB"));
    }
    Ok(r)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::FieldWriter;

    #[test]
    fn random_requests_are_parsed_or_rejected_without_panic() {
        let mut rng = crate::testing::Rng::new(21);
        let mut accepted = 0;
        for _ in 0..20_000 {
            let mut w = FieldWriter::new();
            for _ in 0..rng.below(6) {
                let field = rng.below(20) as u8;
                let size = [0, 1, 2, 4, 8, 20, 5][rng.below(7)];
                let value: Vec<u8> = (0..size).map(|_| rng.below(4) as u8).collect();
                w = w.bytes(field, &value);
            }
            if rng.below(5) == 0 {
                w.0.truncate(rng.below(w.0.len() + 1));
            }
            accepted += parse(&w.0).is_ok() as u32;
        }
        assert!(accepted > 0, "the generator never made a good request");
    }

    #[test]
    fn an_empty_argv_is_invalid() {
        assert!(matches!(parse(&[]), Err(Rejected::Invalid("argv is empty"))));
    }
}
