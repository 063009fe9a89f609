//! Reading and writing little-endian fields.

use super::DecodeError;

/// Takes fields off the front of a message.
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self
            .bytes
            .split_first_chunk()
            .ok_or(DecodeError::UnexpectedEof { field })?;
        self.bytes = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[b]| b)
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// An access width: one of `allowed`.
    pub(super) fn size(&mut self, allowed: &[u8]) -> Result<u8, DecodeError> {
        let size = self.u8("access size")?;
        if allowed.contains(&size) {
            Ok(size)
        } else {
            Err(DecodeError::InvalidEnum {
                field: "access size",
                value: u64::from(size),
            })
        }
    }

    pub(super) fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(DecodeError::InvalidEnum {
                field,
                value: u64::from(value),
            }),
        }
    }

    /// A length (u32) and so many bytes.
    pub(super) fn bytes(&mut self, field: &'static str, max: usize) -> Result<&'a [u8], DecodeError> {
        let len = self.u32(field)? as usize;
        if len > max {
            return Err(DecodeError::OversizedPayload { field, len, max });
        }
        if len > self.bytes.len() {
            return Err(DecodeError::UnexpectedEof { field });
        }
        let (head, rest) = self.bytes.split_at(len);
        self.bytes = rest;
        Ok(head)
    }

    /// Everything that is left.
    pub(super) fn rest(&mut self, field: &'static str, max: usize) -> Result<&'a [u8], DecodeError> {
        let len = self.bytes.len();
        if len > max {
            return Err(DecodeError::OversizedPayload { field, len, max });
        }
        Ok(std::mem::take(&mut self.bytes))
    }

    pub(super) fn text(&mut self, field: &'static str, max: usize) -> Result<String, DecodeError> {
        let bytes = self.bytes(field, max)?;
        let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::InvalidUtf8 { field })?;
        Ok(text.to_owned())
    }

    /// Refuses bytes behind the last field.
    pub(super) fn end(self, tag: u16) -> Result<(), DecodeError> {
        match self.bytes.len() {
            0 => Ok(()),
            trailing => Err(DecodeError::UnknownTag { tag, trailing }),
        }
    }
}
