//! Which images of a revision are missing, in a few characters: lists are cut, this never is.

/// One bit for each, the first in the highest bit of the first digit; empty if none is set.
pub(crate) fn encode(missing: &[bool]) -> String {
    if !missing.contains(&true) {
        return String::new();
    }
    let digit = |four: &[bool]| {
        let bits = four
            .iter()
            .enumerate()
            .map(|(i, set)| u32::from(*set) << (3 - i))
            .sum();
        char::from_digit(bits, 16).unwrap_or('f')
    };
    missing.chunks(4).map(digit).collect()
}

/// Whether the bit is set. What cannot be read counts as missing.
pub(crate) fn is_missing(bits: &str, index: usize) -> bool {
    if bits.is_empty() {
        return false;
    }
    let digit = bits
        .as_bytes()
        .get(index / 4)
        .and_then(|c| char::from(*c).to_digit(16));
    digit.is_none_or(|d| d >> (3 - index % 4) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_is_empty_and_garbage_is_missing() {
        assert_eq!(encode(&[false; 9]), "");
        assert_eq!(encode(&[true, false, false, false, true]), "88");
        assert!(!is_missing("", 3));
        assert!(is_missing("x", 0) && is_missing("0", 4));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(missing in proptest::collection::vec(any::<bool>(), 0..500)) {
            let bits = encode(&missing);
            prop_assert!(bits.len() <= 125);
            for (i, expected) in missing.iter().enumerate() {
                prop_assert_eq!(is_missing(&bits, i), *expected);
            }
        }
    }
}
