//! What the fuzz targets share: one input that stands for several texts, so that seeds can be read and written by people.

use std::borrow::Cow;

/// Between two parts.
const LINE: &[u8] = b"\n===\n";

/// The parts of an input between lines of `===`; missing ones are empty, the last has what is left.
pub fn parts<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut left = Some(input);
    std::array::from_fn(|part| {
        let text = left.take().unwrap_or_default();
        let end = text.windows(LINE.len()).position(|bytes| bytes == LINE);
        match end {
            Some(end) if part + 1 < N => {
                left = Some(&text[end + LINE.len()..]);
                &text[..end]
            }
            _ => text,
        }
    })
}

/// As text; what is not UTF-8 is replaced.
pub fn text(part: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(part)
}
