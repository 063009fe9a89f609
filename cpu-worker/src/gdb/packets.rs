//! Packets on their way to `gdbstub`: those that it does not know are answered here, those that it would trip over never get there.
//!
//! `gdbstub` answers unknown packets with "unknown" and leaves no room for packets of one's own, ends the
//! session on a packet that does not parse, and adds offsets to addresses without a look at overflow. gdb itself sends none of the
//! latter.

/// What has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Incoming {
    /// One byte outside of packets: an acknowledgement or an interrupt.
    Byte(u8),
    /// A whole packet: its body, unescaped nothing, and all its bytes.
    Packet {
        /// Between `$` and `#`.
        body: Vec<u8>,
        /// From `$` to the checksum.
        whole: Vec<u8>,
    },
}

/// Cuts what comes into packets.
#[derive(Clone, Debug, Default)]
pub(super) struct Framer {
    packet: Vec<u8>,
    /// Bytes of the checksum that are missing, once `#` was seen.
    checksum: Option<u8>,
}

/// What is longer than a packet may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TooLong;

impl Framer {
    /// Takes a byte; `most` is the longest packet.
    ///
    /// # Errors
    /// [`TooLong`]; the connection is of no use any more.
    pub fn take(&mut self, byte: u8, most: usize) -> Result<Option<Incoming>, TooLong> {
        if self.packet.is_empty() && byte != b'$' {
            return Ok(Some(Incoming::Byte(byte)));
        }
        if self.packet.len() >= most {
            return Err(TooLong);
        }
        self.packet.push(byte);
        match &mut self.checksum {
            None if byte == b'#' => self.checksum = Some(2),
            None => {}
            Some(left) => {
                *left -= 1;
                if *left == 0 {
                    self.checksum = None;
                    let whole = core::mem::take(&mut self.packet);
                    let body = whole[1..whole.len() - 3].to_vec();
                    return Ok(Some(Incoming::Packet { body, whole }));
                }
            }
        }
        Ok(None)
    }
}

/// A packet with this body.
pub(super) fn packet(body: &str) -> Vec<u8> {
    let sum = body.bytes().fold(0u8, u8::wrapping_add);
    format!("${body}#{sum:02x}").into_bytes()
}

/// Whether the checksum of a whole packet is right.
pub(super) fn is_sound(whole: &[u8]) -> bool {
    let (body, sum) = whole.split_at(whole.len() - 2);
    let is = body[1..body.len() - 1]
        .iter()
        .fold(0u8, |a, b| a.wrapping_add(*b));
    core::str::from_utf8(sum)
        .ok()
        .filter(|s| s.bytes().all(|b| b.is_ascii_hexdigit()))
        .and_then(|s| u8::from_str_radix(s, 16).ok())
        == Some(is)
}

/// Whether a packet that reads or writes memory leaves the address space, or is no such packet at all though it begins as
/// one.
pub(super) fn leaves_memory(body: &[u8]) -> bool {
    let [b'm' | b'M' | b'X', rest @ ..] = body else {
        return false;
    };
    let range = rest.split(|&b| b == b':').next().unwrap_or_default();
    let hex = |digits: &[u8]| {
        let text = core::str::from_utf8(digits).ok()?;
        u64::from_str_radix(text, 16)
            .ok()
            .filter(|_| !text.starts_with('+'))
    };
    let mut parts = range.splitn(2, |&b| b == b',');
    let (at, len) = (parts.next().and_then(hex), parts.next().and_then(hex));
    match (at, len) {
        // As many as an answer may have.
        (Some(at), Some(len)) => len > 1 << 20 || len != 0 && at.checked_add(len - 1).is_none(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_cut_from_what_comes_however_it_comes() {
        let mut framer = Framer::default();
        let mut all = Vec::new();
        for &byte in b"+$m0,4#fd\x03$?#3f" {
            all.extend(framer.take(byte, 100).expect("short enough"));
        }
        let packet = |body: &[u8], whole: &[u8]| Incoming::Packet {
            body: body.to_vec(),
            whole: whole.to_vec(),
        };
        assert_eq!(
            all,
            [
                Incoming::Byte(b'+'),
                packet(b"m0,4", b"$m0,4#fd"),
                Incoming::Byte(3),
                packet(b"?", b"$?#3f"),
            ]
        );
        assert!(is_sound(b"$?#3f") && is_sound(&super::packet("m0,4")));
        assert!(!is_sound(b"$?#3e") && !is_sound(b"$?#zz") && !is_sound(b"$?#+f"));
    }

    #[test]
    fn a_packet_without_end_is_not_kept() {
        let mut framer = Framer::default();
        let end = b"$".iter().chain(core::iter::repeat(&b'a')).take(101);
        let last = end.map(|&b| framer.take(b, 100)).last();
        assert_eq!(last, Some(Err(TooLong)));
    }

    #[test]
    fn memory_ends_where_addresses_end() {
        assert!(!leaves_memory(b"mffffffffffffffff,1"));
        assert!(leaves_memory(b"mffffffffffffffff,2"));
        assert!(leaves_memory(b"m0,ffffffffff"));
        assert!(leaves_memory(b"Mzz,1:00") && leaves_memory(b"m") && leaves_memory(b"m1"));
        assert!(!leaves_memory(b"M10,1:00") && !leaves_memory(b"g"));
    }
}
