//! Tags and the catalog: small registers in ordered lists.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Deadline, Error, Registry, Result, layout,
    pages::LIST,
    pending::{Dropped, DroppedWhat},
    register::{JsonValue, LIVE_AT_LEAST, Seen, Written},
};
use crate::{
    oci::{Digest, Repository, Tag},
    store::Key,
};

/// What a tag points to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TagTarget {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// It was set on a condition: nothing came just before it that the condition does not know of.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) conditional: bool,
    /// When it was set, in seconds since the epoch; unknown of those that are older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<u64>,
}

/// A line of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RepositoryExists {
    repository: Repository,
}

impl JsonValue for TagTarget {}
impl JsonValue for RepositoryExists {}

/// Which page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// How many at most; fewer come where the limit of a page is lower.
    pub n: Option<usize>,
    /// Only what sorts after this, in byte order. It need not be in the list.
    pub last: Option<String>,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// There is more after the last item.
    pub more: bool,
}

/// The most that one page of tags or repositories holds. At 128 bytes a tag it stays far below the 4 MiB that clients read.
const MAX_PAGE: usize = 10_000;
/// How many keys the first list call asks for at least.
const FIRST: usize = 100;

impl RepositoryExists {
    pub(crate) fn of(repository: &Repository) -> Self {
        Self { repository: repository.clone() }
    }
}

impl Registry {
    pub async fn delete_tag(self: &Arc<Self>, repository: &Repository, tag: &Tag) -> Result<()> {
        let (this, repository, tag) = (Arc::clone(self), repository.clone(), tag.clone());
        self.run(async move { this.delete_tag_to_the_end(&repository, &tag).await }).await
    }

    async fn delete_tag_to_the_end(&self, repository: &Repository, tag: &Tag) -> Result<()> {
        let register = layout::tag(repository, tag);
        let mut deadline = self.deadline();
        loop {
            let seen = register.read(self.store()).await?;
            let digest = seen.live().ok_or(Error::ManifestUnknown)?.digest;
            match self.delete_tag_as_seen(repository, tag, &seen, &digest, &deadline).await? {
                Written::Done(_) => return Ok(()),
                Written::Lost(_) => deadline.again().await?,
                // Perhaps it was gone and is another by now; one delete does not take two.
                Written::Unclear(_) => return Err(Error::Busy),
            }
        }
    }

    /// Deletes a tag if it is still what was seen.
    pub(super) async fn delete_tag_as_seen(
        &self,
        repository: &Repository,
        tag: &Tag,
        seen: &Seen<TagTarget>,
        digest: &Digest,
        deadline: &Deadline,
    ) -> Result<Written<TagTarget>> {
        let what = DroppedWhat::Tag { tag: tag.clone(), digest: *digest };
        // The collector learns of it first. If we stop here it finds the tag where it was.
        Dropped { at: self.now(), repository: repository.clone(), what }.put(self.store(), 0).await?;
        deadline.check()?;
        self.change_tag(repository, tag, seen, None).await
    }

    pub async fn tags(&self, repository: &Repository, page: &PageRequest) -> Result<Page<Tag>> {
        let n = page.n.unwrap_or(MAX_PAGE).min(MAX_PAGE);
        let mut items = self.tags_after(repository, page.last.as_deref(), n.saturating_add(1)).await?;
        if items.is_empty() && layout::catalog(repository).read(self.store()).await?.present().is_none() {
            return Err(Error::NameUnknown);
        }
        let more = n > 0 && items.len() > n;
        items.truncate(n);
        Ok(Page { items, more })
    }

    pub async fn catalog(&self, page: &PageRequest) -> Result<Page<Repository>> {
        let n = page.n.unwrap_or(MAX_PAGE).min(MAX_PAGE);
        let after = page.last.as_deref().and_then(layout::catalog_up_to);
        let parse = |key: &Key| match layout::parse(key) {
            Some(layout::Named::Catalog(repository)) => Some(repository),
            _ => None,
        };
        let mut items = self.live_after(layout::CATALOG, after, n.saturating_add(1), parse).await?;
        let more = n > 0 && items.len() > n;
        items.truncate(n);
        Ok(Page { items, more })
    }

    pub(crate) async fn tags_after(
        &self,
        repository: &Repository,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Tag>> {
        let after = last.and_then(|last| layout::tags_up_to(repository, last));
        let parse = |key: &Key| match layout::parse(key) {
            Some(layout::Named::Tag(_, tag)) => Some(tag),
            _ => None,
        };
        self.live_after(&layout::tags(repository), after, limit, parse).await
    }

    /// Up to `limit` live names of a list, behind a key. Tombstones are told by their size, without a read.
    async fn live_after<T>(
        &self,
        prefix: &str,
        mut after: Option<Key>,
        limit: usize,
        parse: impl Fn(&Key) -> Option<T>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        let mut after_first = false;
        loop {
            // As many as are missing, and at first not many more; a run of tombstones is stepped over a whole list at a time.
            let wanted = if after_first { LIST } else { limit.clamp(FIRST, LIST) };
            after_first = true;
            let page = self.store().list(prefix, after.as_ref(), wanted).await?;
            let is_last = page.len() < wanted;
            after = page.last().map(|entry| entry.key.clone());
            found.extend(page.iter().filter(|entry| entry.size >= LIVE_AT_LEAST).filter_map(|entry| parse(&entry.key)));
            if is_last || found.len() >= limit {
                found.truncate(limit);
                return Ok(found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::registry::register::Value;

    #[test]
    fn a_tag_that_was_set_before_times_were_kept_can_be_read_and_its_time_is_unknown() {
        let digest = Digest::of(crate::oci::Algorithm::Sha256, b"");
        let before = format!(r#"{{"mediaType":"a/b","digest":"{digest}","size":0}}"#);
        let with = |at: &str| TagTarget::decode(Bytes::from(before.replace('}', at))).unwrap().at;
        assert_eq!((with("}"), with(r#","at":7}"#)), (None, Some(7)));
    }
}
