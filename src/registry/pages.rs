//! A list of keys, page by page.

use crate::store::{Key, Store};

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
        if self.done {
            return Ok(None);
        }
        let keys = store.list(&self.prefix, self.after.as_ref(), LIST).await?;
        let keys: Vec<Key> = keys.into_iter().map(|entry| entry.key).collect();
        self.done = keys.len() < LIST;
        self.after = keys.last().cloned();
        Ok(Some(keys))
    }
}
