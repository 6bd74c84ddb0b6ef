//! A set of names that takes the same room however many there are.

use std::hash::{BuildHasher, Hash, RandomState};

/// It never forgets a name. It may take another for one: of ten million names 1 other in 2,000, of a hundred million 1 in
/// 3, by chance, and another filter has other chances.
#[derive(Debug)]
pub(crate) struct Filter {
    bits: Vec<u8>,
    hasher: RandomState,
}

/// The size of a filter, in bytes.
const SIZE: usize = 32 << 20;
/// How many bits stand for one name.
const MARKS: usize = 4;

impl Filter {
    pub(crate) fn new() -> Self {
        Self { bits: vec![0; SIZE], hasher: RandomState::new() }
    }

    pub(crate) fn add(&mut self, name: &impl Hash) {
        for (byte, bit) in self.marks(name) {
            if let Some(bits) = self.bits.get_mut(byte) {
                *bits |= bit;
            }
        }
    }

    pub(crate) fn extend(&mut self, names: impl IntoIterator<Item: Hash>) {
        for name in names {
            self.add(&name);
        }
    }

    pub(crate) fn has(&self, name: &impl Hash) -> bool {
        self.marks(name).iter().all(|&(byte, bit)| self.bits.get(byte).is_some_and(|bits| bits & bit != 0))
    }

    fn marks(&self, name: &impl Hash) -> [(usize, u8); MARKS] {
        std::array::from_fn(|mark| {
            let at = self.hasher.hash_one((mark, name)) % (SIZE as u64 * 8);
            (usize::try_from(at / 8).unwrap_or_default(), 1 << (at % 8))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_what_was_added_and_hardly_anything_else() {
        let mut filter = Filter::new();
        filter.extend((0..1000).map(|number: u32| ("data", number)));
        assert!((0..1000).all(|number: u32| filter.has(&("data", number))));
        assert!((1000..2000).filter(|&number: &u32| filter.has(&("data", number))).count() < 10);
    }
}
