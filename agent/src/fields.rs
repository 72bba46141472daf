//! Payload encoding of structured messages: a run of fields, each a tag (u8),
//! a length (u32, little endian) and that many bytes.

use crate::frame::ProtocolError;

pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub fn new(payload: &'a [u8]) -> Fields<'a> {
        Fields { rest: payload }
    }

    /// The next (tag, value), none at the end.
    pub fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, ProtocolError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        if self.rest.len() < 5 {
            return Err(ProtocolError("truncated field header"));
        }
        let tag = self.rest[0];
        let len = u32::from_le_bytes([self.rest[1], self.rest[2], self.rest[3], self.rest[4]]) as usize;
        let body = &self.rest[5..];
        if len > body.len() {
            return Err(ProtocolError("field longer than its message"));
        }
        self.rest = &body[len..];
        Ok(Some((tag, &body[..len])))
    }
}

pub fn as_u8(value: &[u8]) -> Result<u8, ProtocolError> {
    match value {
        [n] => Ok(*n),
        _ => Err(ProtocolError("expected one byte")),
    }
}

pub fn as_u16(value: &[u8]) -> Result<u16, ProtocolError> {
    Ok(u16::from_le_bytes(value.try_into().map_err(|_| ProtocolError("expected two bytes"))?))
}

pub fn as_u32(value: &[u8]) -> Result<u32, ProtocolError> {
    Ok(u32::from_le_bytes(value.try_into().map_err(|_| ProtocolError("expected four bytes"))?))
}

pub fn as_u64(value: &[u8]) -> Result<u64, ProtocolError> {
    Ok(u64::from_le_bytes(value.try_into().map_err(|_| ProtocolError("expected eight bytes"))?))
}

/// Builds a payload.
#[derive(Default)]
pub struct FieldWriter(pub Vec<u8>);

impl FieldWriter {
    pub fn new() -> FieldWriter {
        FieldWriter(Vec::with_capacity(128))
    }

    pub fn bytes(mut self, tag: u8, value: &[u8]) -> FieldWriter {
        self.0.push(tag);
        self.0.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.0.extend_from_slice(value);
        self
    }

    pub fn u8(self, tag: u8, value: u8) -> FieldWriter {
        self.bytes(tag, &[value])
    }

    pub fn u16(self, tag: u8, value: u16) -> FieldWriter {
        self.bytes(tag, &value.to_le_bytes())
    }

    pub fn u32(self, tag: u8, value: u32) -> FieldWriter {
        self.bytes(tag, &value.to_le_bytes())
    }

    pub fn u64(self, tag: u8, value: u64) -> FieldWriter {
        self.bytes(tag, &value.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_round_trip() {
        let payload = FieldWriter::new().bytes(1, b"sh").u32(2, 77).bytes(1, b"").0;
        let mut fields = Fields::new(&payload);
        assert_eq!(fields.next(), Ok(Some((1, &b"sh"[..]))));
        assert_eq!(fields.next().unwrap().map(|f| as_u32(f.1)), Some(Ok(77)));
        assert_eq!(fields.next(), Ok(Some((1, &b""[..]))));
        assert_eq!(fields.next(), Ok(None));
    }

    #[test]
    fn random_payloads_end_or_fail_but_never_panic() {
        let mut rng = crate::testing::Rng::new(3);
        for _ in 0..20_000 {
            let mut payload = rng.bytes(64);
            if payload.len() > 5 {
                payload[2] = 0;
                payload[3] = 0;
                payload[4] = 0;
            }
            let mut fields = Fields::new(&payload);
            let mut seen = 0;
            while let Ok(Some((_, value))) = fields.next() {
                seen += 5 + value.len();
            }
            assert!(seen <= payload.len());
        }
    }
}
