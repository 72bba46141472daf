//! Gives a restored sandbox an identity of its own.

use super::requests::{unix_time_ns, Refusal};
use super::server::Server;
use crate::fields::{as_u64, FieldWriter, Fields};
use crate::frame::{code, Message, ProtocolError};
use crate::sys;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

const ENTROPY_MAX: usize = 4096;
const ID_MAX: usize = 256;
const HOST_NAME_MAX: usize = 64;

const ENTROPY_MIXED: u8 = 1;
const ENTROPY_CREDITED: u8 = 2;

impl Server {
    pub(super) fn reseed(&mut self, conn: u64, m: Message<'_>) -> Result<(), ProtocolError> {
        let (mut id, mut host_name, mut entropy, mut host_ns) = (None, None, None, None);
        let mut fields = Fields::new(m.payload);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 if value.len() <= ID_MAX => id = Some(value),
                2 if (1..=HOST_NAME_MAX).contains(&value.len()) => host_name = Some(value),
                3 if value.len() <= ENTROPY_MAX => entropy = Some(value),
                4 => host_ns = Some(as_u64(value)?),
                _ => {
                    self.answer(conn, m.stream, Err(Refusal::new(code::INVALID, "a field is unknown or too long")));
                    return Ok(());
                }
            }
        }
        if let Some(id) = id {
            self.sandbox_id = id.to_vec();
        }
        // Both may be forbidden to the agent; the answer says what happened,
        // and the host decides whether that is enough.
        let host_name_errno = host_name.map_or(0, |name| sys::set_hostname(name).err().map_or(0, |e| sys::errno_of(&e)));
        let (entropy_result, entropy_errno) = match entropy.map(mix_entropy) {
            None => (0, 0),
            Some(Ok(result)) => (result, 0),
            Some(Err(err)) => (0, sys::errno_of(&err)),
        };
        let now = unix_time_ns();
        let behind = host_ns.map_or(0, |host| host.wrapping_sub(now));
        let answer = FieldWriter::new()
            .u32(1, host_name_errno as u32)
            .u8(2, entropy_result)
            .u32(3, entropy_errno as u32)
            .u64(4, now)
            .u64(5, behind)
            .0;
        self.answer(conn, m.stream, Ok(answer));
        Ok(())
    }
}

fn mix_entropy(bytes: &[u8]) -> io::Result<u8> {
    let device = File::options().write(true).open("/dev/urandom")?;
    let meta = device.metadata()?;
    // Major 1, minor 9; anything else was put there by the guest.
    if !meta.file_type().is_char_device() || meta.rdev() != (1 << 8) + 9 {
        return Err(sys::os_error(sys::EINVAL));
    }
    if sys::add_entropy(device.as_raw_fd(), bytes).is_ok() {
        return Ok(ENTROPY_CREDITED);
    }
    sys::write_from(device.as_raw_fd(), bytes)?;
    Ok(ENTROPY_MIXED)
}
