//! The one way from received bytes to a FlatBuffers table.
//!
//! Invariant: no table is read before every offset in it was proven to stay inside its bytes. The
//! work of that proof is bounded by the size of the bytes, whatever they say.

use flatbuffers::{Follow, Verifiable, VerifierOptions, root_with_opts};

use crate::error::DecodeError;

/// A table's parts may share bytes, so a few of them can read as gigabytes: many offsets to one
/// long string. What reads as more than this many times its size is refused; an honest table stays
/// below three.
const READS_AS_TIMES_MAX: usize = 8;

/// Verifies `bytes` as a table of type `T`. `at` and `what` name frame and table in the error.
pub(crate) fn verify<'a, T>(
    bytes: &'a [u8],
    at: u64,
    what: &'static str,
) -> Result<T::Inner, DecodeError>
where
    T: Follow<'a> + Verifiable + 'a,
{
    let options = VerifierOptions {
        max_apparent_size: bytes.len().saturating_mul(READS_AS_TIMES_MAX),
        ..VerifierOptions::default()
    };
    root_with_opts::<T>(&options, bytes).map_err(|cause| DecodeError::Body {
        at,
        what,
        cause: one_line(&cause.to_string()),
    })
}

/// FlatBuffers explains itself over several lines; errors of ours take one.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
