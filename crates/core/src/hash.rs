//! Short names made from content.

use sha2::{Digest, Sha256};

/// Lower-case letters without vowels and digits without those that look like vowels, as in names of `ReplicaSets`: no
/// hash spells a word.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const LENGTH: usize = 13;

/// 13 characters that name these parts in this order: 61 bits of their SHA-256.
pub(crate) fn short<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut number = hash
        .finalize()
        .iter()
        .take(16)
        .fold(0_u128, |n, byte| (n << 8) | u128::from(*byte));
    let base = ALPHABET.len() as u128;
    (0..LENGTH)
        .map(|_| {
            let character = ALPHABET[(number % base) as usize];
            number /= base;
            char::from(character)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ALPHABET, short};

    #[test]
    fn stays_what_it_is() {
        // Names of revisions depend on it: a change would make every node pull again.
        assert_eq!(short([]), "mk2wzhmg8nwzz");
        assert_eq!(short(["docker.io/library/nginx:1.27", "", "0"]), "qtrp9ccp9mjcs");
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(short(["ab", "c"]), short(["a", "bc"]));
        assert_ne!(short(["a", ""]), short(["a"]));
    }

    proptest! {
        #[test]
        fn thirteen_characters_of_the_alphabet(parts in prop::collection::vec(any::<String>(), 0..4)) {
            let hash = short(parts.iter().map(String::as_str));
            prop_assert_eq!(hash.len(), 13);
            prop_assert!(hash.bytes().all(|b| ALPHABET.contains(&b)));
        }
    }
}
