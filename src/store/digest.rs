//! The digest of an object whose parts are hashed side by side.

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};
use blake3::{Hash, Hasher};

/// Puts parts together to the blake3 hash of the whole, which is that of a binary tree over chunks
/// of 1024 bytes (section 2.1 of the BLAKE3 paper). All parts but the last have the same length,
/// 1024 times a power of two.
#[derive(Default)]
pub(super) struct Digest {
    /// The full subtrees so far, from left to right, each smaller than the one before.
    subtrees: Vec<ChainingValue>,
    /// Parts in `subtrees`.
    parts: u64,
    /// The last part: the root of the tree, if no other comes.
    last: Option<Hasher>,
}

impl Digest {
    /// Takes in a part that begins at byte `at`.
    pub fn hasher(at: u64) -> Hasher {
        let mut hasher = Hasher::new();
        hasher.set_input_offset(at);
        hasher
    }

    /// The next part.
    pub fn push(&mut self, part: Hasher) {
        let Some(before) = self.last.replace(part) else { return };
        self.parts += 1;
        let mut subtree = before.finalize_non_root();
        for _ in 0..self.parts.trailing_zeros() {
            if let Some(left) = self.subtrees.pop() {
                subtree = merge_subtrees_non_root(&left, &subtree, Mode::Hash);
            }
        }
        self.subtrees.push(subtree);
    }

    pub fn finish(mut self) -> Hash {
        let Some(last) = self.last else { return blake3::hash(&[]) };
        let Some(mut left) = self.subtrees.pop() else { return last.finalize() };
        let mut right = last.finalize_non_root();
        while let Some(next) = self.subtrees.pop() {
            right = merge_subtrees_non_root(&left, &right, Mode::Hash);
            left = next;
        }
        merge_subtrees_root(&left, &right, Mode::Hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_give_the_digest_of_the_whole() {
        let bytes: Vec<u8> = (0..40_000u32).map(|i| ((i * i) >> 3) as u8).collect();
        for part in [1024, 2048, 8192] {
            for size in [0, 1, 1023, 1024, 1025, 4096, 5000, 8192, 14_337, 16_384, 40_000] {
                let mut digest = Digest::default();
                for (index, piece) in bytes[..size].chunks(part).enumerate() {
                    let mut hasher = Digest::hasher((index * part) as u64);
                    hasher.update(piece);
                    digest.push(hasher);
                }
                assert_eq!(digest.finish(), blake3::hash(&bytes[..size]), "{size} by {part}");
            }
        }
    }
}
