//! Listings in the byte order of keys, made of pages in the order of the store.
//!
//! A store that lists by path components (`SeaweedFS`) disagrees with S3 about one thing: all of `a/` comes before `a!`,
//! `a-` and `a.`, whose last bytes are the legal ones below `/`. So some keys that follow `v1.5-rc` by bytes, those under
//! `v1/` and `v1.5/`, come before it by path. A walk starts where the first of them would be, leaps over what
//! neither is one nor follows `after`, and holds back what is under `a/` until the store has gone past all of `a.`.
//! In a listing one level deep nothing is held back.

use std::{cmp::Ordering, collections::BTreeMap};

use super::settings::ListOrder;
use crate::store::{Entry, Key};

/// A walk through a listing, from one page of the store to the next.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    order: ListOrder,
    /// How long the prefix is that all keys share.
    shared: usize,
    /// Only keys after this are wanted; it has the prefix, or is empty.
    after: &'a str,
    /// The last key that the store has shown.
    front: String,
    /// All keys up to `front`, in the order of the store, that are wanted.
    found: BTreeMap<Key, u64>,
}

/// The store showed keys in an order that it should not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store does not list in the order that it is configured to list in")]
pub(super) struct Disorder;

impl<'a> Walk<'a> {
    pub(super) fn new(order: ListOrder, prefix: &str, after: &'a str) -> Self {
        Self { order, shared: prefix.len(), after, front: String::new(), found: BTreeMap::new() }
    }

    /// After what the next page shall start; `None`: at the beginning.
    pub(super) fn start_after(&self) -> Option<String> {
        match (self.cursor(), self.order) {
            ("", _) => None,
            // `SeaweedFS` leaves out all of `a/` after `a`, and nothing of it after `a/`.
            (cursor, ListOrder::Paths) if !cursor.ends_with('/') => Some(format!("{cursor}/")),
            (cursor, _) => Some(cursor.to_owned()),
        }
    }

    /// The last place that nothing wanted comes before.
    fn cursor(&self) -> &str {
        let under = |cut: &str| self.front.strip_prefix(cut).is_some_and(|rest| rest.starts_with('/'));
        if self.cuts().any(under) {
            return &self.front;
        }
        let places = self.cuts().chain([self.after]);
        places.into_iter().find(|place| self.order.compare(place, &self.front).is_gt()).unwrap_or(&self.front)
    }

    /// Takes in the next page.
    pub(super) fn take(&mut self, page: Vec<(String, u64)>) -> Result<(), Disorder> {
        let mut last = self.cursor().to_owned();
        for (text, size) in page {
            if self.order.compare(&text, &last).is_le() {
                return Err(Disorder);
            }
            // What does not parse is not ours.
            if text.as_str() > self.after
                && let Some(key) = Key::parse(text.as_str())
            {
                self.found.insert(key, size);
            }
            last = text;
        }
        self.front = last;
        Ok(())
    }

    /// Whether the first `limit` keys are known, whatever else the store has to show.
    pub(super) fn has(&self, limit: usize) -> bool {
        limit.checked_sub(1).is_none_or(|last| self.found.keys().nth(last).is_some_and(|key| self.is_passed(key)))
    }

    pub(super) fn into_entries(self, limit: usize) -> Vec<Entry> {
        self.found.into_iter().take(limit).map(|(key, size)| Entry { key, size }).collect()
    }

    /// No key that the store has yet to show comes before this one by bytes.
    fn is_passed(&self, key: &Key) -> bool {
        let key = key.as_str();
        self.order == ListOrder::Bytes
            || key.match_indices('/').filter(|(at, _)| *at >= self.shared).all(|(at, _)| {
                let rest = key.get(..at).and_then(|folder| self.front.strip_prefix(folder));
                !rest.is_some_and(|rest| rest.starts_with(['!', '-', '.', '/']))
            })
    }

    /// The folders that lie before `after` by path and behind it by bytes, without their `/`, in the order of paths.
    fn cuts(&self) -> impl Iterator<Item = &'a str> {
        let after = match self.order {
            ListOrder::Bytes => "",
            ListOrder::Paths => self.after,
        };
        let folders = after.match_indices(['!', '-', '.']).filter_map(|(at, _)| Some((at, after.get(..at)?)));
        folders.filter(|(at, folder)| *at >= self.shared && !folder.is_empty() && !folder.ends_with('/')).map(|it| it.1)
    }
}

impl ListOrder {
    pub(super) fn compare(self, a: &str, b: &str) -> Ordering {
        match self {
            Self::Bytes => a.cmp(b),
            Self::Paths => a.split('/').cmp(b.split('/')),
        }
    }
}

/// Whether a store that lists in this order shows a key after a place.
#[cfg(test)]
pub(super) fn is_after(order: ListOrder, key: &str, place: &str) -> bool {
    let left_out = order == ListOrder::Paths && key.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'));
    order.compare(key, place).is_gt() && !left_out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::btree_set, prelude::*};

    use super::*;

    /// Lists as the driver does, from a store with pages of this size. Counts the pages.
    fn list(order: ListOrder, keys: &BTreeSet<String>, ask: (&str, &str, usize), page: usize) -> (Vec<String>, u32) {
        let (prefix, after, limit) = ask;
        let mut keys: Vec<&String> = keys.iter().filter(|key| key.starts_with(prefix)).collect();
        keys.sort_by(|a, b| order.compare(a, b));
        let (mut walk, mut pages) = (Walk::new(order, prefix, after), 0);
        loop {
            let after = walk.start_after().unwrap_or_default();
            let left = keys.iter().filter(|key| is_after(order, key, &after));
            let shown: Vec<(String, u64)> = left.take(page).map(|key| ((*key).clone(), 1)).collect();
            let is_last = shown.len() < page;
            walk.take(shown).unwrap();
            pages += 1;
            if is_last || walk.has(limit) {
                return (walk.into_entries(limit).iter().map(|entry| entry.key.to_string()).collect(), pages);
            }
        }
    }

    proptest! {
        #[test]
        fn every_page_is_the_next_keys_in_byte_order_whatever_the_order_of_the_store(
            keys in btree_set("[ab!.-]{1,2}(/[ab!.-]{1,3}){0,2}", 0..40),
            prefix in "|[ab]|[ab]/|[ab][-.]",
            after in "|[ab!.-]{1,2}(/[ab!.-]{1,2}){0,2}",
            limit in 1_usize..8,
            page in 1_usize..8,
        ) {
            let keys: BTreeSet<String> = keys.into_iter().filter(|key| Key::parse(key.as_str()).is_some()).collect();
            prop_assume!(after.is_empty() || after.starts_with(&prefix));
            let wanted = keys.iter().filter(|key| key.starts_with(&prefix) && **key > after);
            let expected: Vec<String> = wanted.take(limit).cloned().collect();
            for order in [ListOrder::Bytes, ListOrder::Paths] {
                let (listed, _) = list(order, &keys, (&prefix, &after, limit), page);
                prop_assert_eq!(&listed, &expected, "{:?}", order);
            }
        }
    }

    #[test]
    fn the_cost_follows_the_page_and_not_the_prefix() {
        let tags = (0..5000).map(|tag| format!("tags/v1.{tag:04}-rc")).collect();
        let ask = ("tags/", "tags/v1.2500-rc", 100);
        let (bytes, pages) = list(ListOrder::Bytes, &tags, ask, 100);
        assert_eq!((bytes.len(), pages), (100, 1));
        let (paths, pages) = list(ListOrder::Paths, &tags, ask, 100);
        assert_eq!((paths, pages), (bytes, 3), "one at each folder that might be there, and one that answers");
    }

    #[test]
    fn another_order_than_told_is_noticed() {
        let page = |keys: &[&str]| keys.iter().map(|key| ((*key).to_owned(), 1)).collect();
        let mut walk = Walk::new(ListOrder::Bytes, "", "");
        assert_eq!(walk.take(page(&["a/b", "a-b"])), Err(Disorder));
        let mut walk = Walk::new(ListOrder::Paths, "", "");
        assert_eq!(walk.take(page(&["a-b", "a/b"])), Err(Disorder));
        let mut walk = Walk::new(ListOrder::Bytes, "", "b");
        assert_eq!(walk.take(page(&["a"])), Err(Disorder), "not after what was asked for");
    }
}
