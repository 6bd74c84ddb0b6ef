//! A list of keys, page by page.

use crate::store::{Entry, Key, Store};

/// How many keys one list call asks for: as many as S3 answers.
pub(crate) const LIST: usize = 1000;

/// Walks a list page by page.
pub(crate) struct Pages {
    prefix: String,
    after: Option<Key>,
    done: bool,
}

impl Pages {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), after: None, done: false }
    }

    pub(crate) async fn next(&mut self, store: &dyn Store) -> crate::store::Result<Option<Vec<Key>>> {
        let entries = self.next_entries(store).await?;
        Ok(entries.map(|entries| entries.into_iter().map(|entry| entry.key).collect()))
    }

    /// With sizes.
    pub(crate) async fn next_entries(&mut self, store: &dyn Store) -> crate::store::Result<Option<Vec<Entry>>> {
        if self.done {
            return Ok(None);
        }
        let entries = store.list(&self.prefix, self.after.as_ref(), LIST).await?;
        self.done = entries.len() < LIST;
        self.after = entries.last().map(|entry| entry.key.clone());
        Ok(Some(entries))
    }
}
