//! Tombstones go when nobody can mean them any more.
//!
//! Time is trusted here, and only here: a publisher gives up after minutes, and a tombstone rests for a day. So nobody who
//! saw what was there before the tombstone still writes, and "absent" does not come round again.

use std::collections::{BTreeMap, BTreeSet};

use super::{Collector, Event, Told, Tombstones};
use crate::{
    oci::{Digest, Repository},
    registry::{
        Result,
        layout::{self, Named},
        nonce::Nonce,
        register::State,
    },
    store::{Deleted, Key, Version},
};

/// A tombstone that is still what it was when it was noted.
struct Still {
    key: Key,
    nonce: Nonce,
    version: Version,
    /// What it excuses: a manifest that names this may be there.
    excuses: Option<(Repository, Digest)>,
}

impl Collector {
    /// Works through entries, and consumes them.
    pub(super) async fn remove_tombstones(&self, entries: &[Key], told: &mut Told<'_>) -> Result<()> {
        let (mut still, mut read) = (Vec::new(), Vec::new());
        // Each once: an entry that is left notes the same ones in each round.
        let mut stay = BTreeSet::new();
        for key in entries {
            let Some(entry) = self.read_entry::<Tombstones>(key).await? else { continue };
            for (key, nonce) in entry.tombstones {
                match self.left.go_on(self.still_there(&key, nonce).await.map(Some), &key)? {
                    Some(there) => still.extend(there),
                    None => drop(stay.insert((key, nonce))),
                }
            }
            read.push(key.clone());
        }
        let mut excused: BTreeMap<Repository, BTreeSet<Digest>> = BTreeMap::new();
        for (repository, digest) in still.iter().filter_map(|still| still.excuses.clone()) {
            excused.entry(repository).or_default().insert(digest);
        }
        for (repository, digests) in &mut excused {
            // Where a manifest is damaged or refused all of them stay, and keep no others.
            if let Some(named) = self.left.go_on(self.named(repository, digests).await.map(Some), repository)? {
                *digests = named;
            }
        }
        for Still { key, nonce, version, excuses } in still {
            let is_meant =
                excuses.is_some_and(|(of, digest)| excused.get(&of).is_some_and(|named| named.contains(&digest)));
            if is_meant {
                stay.insert((key.as_str().to_owned(), nonce));
                continue;
            }
            let deleted = self.store().delete_if(&key, &version).await.map(Some);
            match self.left.go_on(deleted, &key)? {
                Some(Deleted::Deleted) => told.tell(Event::TombstoneRemoved { key }),
                Some(Deleted::Lost) => {}
                None => drop(stay.insert((key.as_str().to_owned(), nonce))),
            }
        }
        self.leave_tombstones(stay.into_iter().collect()).await?;
        self.consume(&read).await
    }

    async fn still_there(&self, key: &str, nonce: Nonce) -> Result<Option<Still>> {
        let Some(key) = Key::parse(key) else { return Ok(None) };
        let Some(found) = self.store().read(&key).await? else { return Ok(None) };
        // What kind of value it would have does not matter: a tombstone has none.
        let by_client = match State::<super::Lease>::decode(&found.bytes) {
            Ok((of, State::Gone { by_client })) if of == nonce => by_client,
            _ => return Ok(None),
        };
        let excuses = match layout::parse(&key) {
            Some(Named::Holder(digest, repository) | Named::Manifest(repository, digest)) if by_client => {
                Some((repository, digest))
            }
            _ => None,
        };
        Ok(Some(Still { key, nonce, version: found.version, excuses }))
    }
}
