//! Items of a byte stream, of which a read may end in the middle of one.

use super::FramingError;

/// Bytes taken from a read at a time to complete the item that began in the one before.
const STEP: usize = 4 << 10;

/// The beginning of an item whose rest has not come.
#[derive(Debug, Default)]
pub(super) struct Straddle {
    begun: Vec<u8>,
}

impl Straddle {
    /// Takes received bytes. `take` takes one item off the front of those it is lent, and says how long that
    /// was; `None` if its end has not come.
    #[inline]
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<Option<usize>, FramingError>,
    ) -> Result<(), FramingError> {
        while !self.begun.is_empty() && !bytes.is_empty() {
            let before = self.begun.len();
            let (step, rest) = bytes.split_at(bytes.len().min(STEP));
            self.begun.extend_from_slice(step);
            match take(&self.begun)? {
                Some(length) => {
                    bytes = &bytes[length - before..];
                    self.begun.clear();
                }
                None => bytes = rest,
            }
        }
        while !bytes.is_empty() {
            match take(bytes)? {
                Some(length) => bytes = &bytes[length..],
                None => break,
            }
        }
        self.begun.extend_from_slice(bytes);
        Ok(())
    }

    /// The stream is another one.
    pub(super) fn clear(&mut self) {
        self.begun.clear();
    }
}

/// The line at the front, without its end, and how many bytes it takes with that; `None` if its end has not
/// come. An end is `\r\n`.
#[inline]
pub(super) fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    Some((line, end + 1))
}

/// A number in decimal digits.
#[inline]
pub(super) fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 12 {
        return None;
    }
    digits.iter().try_fold(0usize, |number, digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit < 10).then(|| number * 10 + usize::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_whole_wherever_the_stream_is_cut() {
        let stream: Vec<u8> = (0..50).flat_map(|at| format!("{at}\r\n").into_bytes()).collect();
        for piece in 1..stream.len() {
            let (mut straddle, mut got) = (Straddle::default(), Vec::new());
            for bytes in stream.chunks(piece) {
                straddle
                    .feed(bytes, |bytes| {
                        let Some((line, length)) = line(bytes) else { return Ok(None) };
                        got.extend(number(line));
                        Ok(Some(length))
                    })
                    .expect("lines");
            }
            assert_eq!(got, (0..50).collect::<Vec<_>>(), "pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_number_is_none() {
        assert_eq!(number(b"128"), Some(128));
        for not_one in [&b""[..], b"-1", b"12a", b"1234567890123"] {
            assert_eq!(number(not_one), None);
        }
    }
}
