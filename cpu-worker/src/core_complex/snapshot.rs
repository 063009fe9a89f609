//! State apart from behaviour: what every device of the core complex has in common.
//!
//! A device is its `State`, a plain serialisable struct, plus methods. Serialising the device struct
//! itself was rejected: caches and wiring would slip into the format. The bytes carry kind and version, so
//! that a state meant for another device, or written by another version, is refused and not guessed at.

use serde::{Serialize, de::DeserializeOwned};

/// Why saved state was refused. The device is unchanged then.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The bytes belong to another device or to another version of it.
    #[error("Expected state of {expected} version {version}, found {found} version {found_version}")]
    Mismatch {
        /// Kind of the device that was asked.
        expected: &'static str,
        /// Its version.
        version: u16,
        /// Kind in the bytes.
        found: String,
        /// Version in the bytes.
        found_version: u16,
    },
    /// The bytes are cut off or are no state at all.
    #[error("Cannot decode the state of {kind}")]
    Decode {
        /// Kind of the device that was asked.
        kind: &'static str,
        /// The decoder's answer.
        source: postcard::Error,
    },
    /// A state that does not fit the machine, such as another number of local APICs.
    #[error("The state does not fit this machine: {0}")]
    Shape(&'static str),
}

/// A device whose state can be taken out and put back.
pub trait Snapshot {
    /// Name of the device in the bytes.
    const KIND: &'static str;
    /// Version of [`Self::State`]; goes up with every change of its fields.
    const VERSION: u16;
    /// The plain state.
    type State: Serialize + DeserializeOwned + Clone + PartialEq + core::fmt::Debug;

    /// A copy of the state.
    fn save(&self) -> Self::State;

    /// Puts a state back. Values a guest could not have produced are masked where they are used.
    fn restore(&mut self, state: Self::State);

    /// The state as bytes, with kind and version.
    ///
    /// # Errors
    /// [`SnapshotError::Decode`] when the encoder fails, which plain data does not.
    fn save_bytes(&self) -> Result<Vec<u8>, SnapshotError> {
        postcard::to_allocvec(&(Self::KIND, Self::VERSION, self.save())).map_err(|source| {
            SnapshotError::Decode {
                kind: Self::KIND,
                source,
            }
        })
    }

    /// Puts back what [`Self::save_bytes`] gave.
    ///
    /// # Errors
    /// [`SnapshotError`] when the bytes are damaged or of another kind or version.
    fn restore_bytes(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let decode = |source| SnapshotError::Decode {
            kind: Self::KIND,
            source,
        };
        let ((kind, version), rest): ((String, u16), _) = postcard::take_from_bytes(bytes).map_err(decode)?;
        if kind != Self::KIND || version != Self::VERSION {
            return Err(SnapshotError::Mismatch {
                expected: Self::KIND,
                version: Self::VERSION,
                found: kind,
                found_version: version,
            });
        }
        self.restore(postcard::from_bytes(rest).map_err(decode)?);
        Ok(())
    }
}

/// Stamps the tests every device must pass: state survives bytes, and foreign bytes are refused.
#[cfg(test)]
macro_rules! snapshot_tests {
    ($module:ident, $new:expr, $disturb:expr) => {
        mod $module {
            use super::*;
            #[allow(
                unused_imports,
                reason = "some callers have the trait in scope already"
            )]
            use $crate::core_complex::snapshot::{Snapshot as _, SnapshotError};

            #[test]
            fn state_survives_a_save_and_a_restore_into_a_fresh_device() {
                let mut used = $new;
                #[allow(
                    clippy::redundant_closure_call,
                    reason = "the disturbance is given as a closure"
                )]
                ($disturb)(&mut used);
                let mut fresh = $new;
                assert_ne!(
                    used.save(),
                    fresh.save(),
                    "the disturbance must change the state"
                );
                fresh.restore_bytes(&used.save_bytes().unwrap()).unwrap();
                assert_eq!(used.save(), fresh.save());
                assert_eq!(used.save_bytes().unwrap(), fresh.save_bytes().unwrap());
            }

            #[test]
            fn bytes_of_another_kind_or_cut_short_are_refused_and_change_nothing() {
                let mut device = $new;
                let before = device.save();
                let bytes = device.save_bytes().unwrap();
                let mut foreign = bytes.clone();
                foreign[1] ^= 0x20;
                assert!(matches!(
                    device.restore_bytes(&foreign),
                    Err(SnapshotError::Mismatch { .. })
                ));
                assert!(matches!(
                    device.restore_bytes(&bytes[..bytes.len() - 1]),
                    Err(SnapshotError::Decode { .. })
                ));
                assert_eq!(device.save(), before);
            }
        }
    };
}
#[cfg(test)]
pub(crate) use snapshot_tests;
