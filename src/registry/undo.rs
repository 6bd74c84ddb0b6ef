//! Putting back what was deleted or overwritten: an ordinary push, of what the history and the dropped entries say.
//!
//! A manifest that was deleted is kept in its dropped entry until that is due, and the collector leaves alone what it
//! names. It is put back by the way in which it came: with a reference in flight, and a look at all that it needs. So
//! this needs no protocol of its own, any replica can do it, and if we stop anywhere, doing it again goes on.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{
    Error, ManifestHead, Push, Registry, Result, TagCondition, layout,
    left::go_on,
    pages::Pages,
    pending::{self, Dropped, DroppedWhat},
};
use crate::{
    oci::{AnyDigest, Digest, Link, Manifest, Reference, Repository, Tag},
    store::Key,
};

/// What a tag is to be again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version {
    /// What it was last, other than what it is.
    Before,
    /// What it was then.
    At(SystemTime),
    Digest(Digest),
}

/// What was put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    pub digest: Digest,
    /// How many manifests were not there: this one, its children, and their referrers.
    pub manifests: usize,
    /// The tags that point to it again.
    pub tags: Vec<Tag>,
}

/// The manifests of a repository that can be put back, each as it was deleted last.
#[derive(Default)]
struct Trash(HashMap<Digest, Deleted>);

struct Deleted {
    entry: Key,
    at: u64,
    tags: Vec<Tag>,
    subject: Option<Digest>,
}

/// A manifest that is there, or can be put back.
struct Found {
    head: ManifestHead,
    bytes: Bytes,
    is_there: bool,
}

enum Step {
    Look(Digest),
    /// What it names has been looked at.
    PutBack(Found),
}

/// How many dropped entries are read side by side: each may be as large as a manifest.
const READS: usize = 4;
/// How many changes of a tag are read at a time.
const CHANGES: usize = 100;

impl Registry {
    /// Points a tag to what it was, and puts that back if it is not there. A tag that somebody else changes meanwhile is
    /// theirs.
    pub async fn restore_tag(
        self: &Arc<Self>,
        repository: &Repository,
        tag: &Tag,
        version: Version,
    ) -> Result<Restored> {
        let now = layout::tag(repository, tag).read(self.store()).await?.live().map(|target| target.digest);
        let digest = match version {
            Version::Digest(digest) => digest,
            Version::Before => self.before(repository, tag, now).await?,
            Version::At(then) => self.at(repository, tag, now, then).await?,
        };
        let trash = self.trash(repository).await?;
        let (found, manifests) = self.put_back(repository, &digest, &trash).await?;
        let condition = now.map_or(TagCondition::Absent, TagCondition::Is);
        let mut tags = Vec::new();
        if now != Some(digest) {
            self.push_again(repository, &found, Some((tag, condition))).await?;
            tags.push(tag.clone());
        }
        Ok(Restored { digest, manifests, tags })
    }

    /// Puts a manifest back that was deleted, and the tags that went with it, unless they have been set since.
    pub async fn restore_manifest(self: &Arc<Self>, repository: &Repository, digest: &Digest) -> Result<Restored> {
        let trash = self.trash(repository).await?;
        let (found, manifests) = self.put_back(repository, digest, &trash).await?;
        let mut tags = Vec::new();
        if let Some(deleted) = trash.0.get(digest) {
            for tag in &deleted.tags {
                if self.went_with(repository, tag, digest, deleted).await? {
                    match self.push_again(repository, &found, Some((tag, TagCondition::Absent))).await {
                        Ok(()) => tags.push(tag.clone()),
                        Err(Error::TagConditionFailed) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(Restored { digest: *digest, manifests, tags })
    }

    /// Back from what it is, change by change. A line that leads elsewhere is of a change that did not happen.
    async fn before(&self, repository: &Repository, tag: &Tag, now: Option<Digest>) -> Result<Digest> {
        let (mut was, mut last) = (now, None);
        loop {
            let changes = self.changes_after(repository, tag, last, CHANGES).await?;
            for change in &changes {
                if digest_of(change.to.as_ref()) == was {
                    was = digest_of(change.from.as_ref());
                    if let Some(before) = was.filter(|was| Some(*was) != now) {
                        return Ok(before);
                    }
                }
            }
            last =
                Some(changes.last().ok_or_else(|| unknown(format!("nothing is known of what {tag} was before")))?.id);
        }
    }

    async fn at(&self, repository: &Repository, tag: &Tag, now: Option<Digest>, then: SystemTime) -> Result<Digest> {
        let begins = SystemTime::UNIX_EPOCH + Duration::from_millis(self.history_begins());
        if then < begins {
            return Err(unknown(format!("what {tag} was then is not known any more")));
        }
        // Back from what it is, change by change.
        let (mut was, mut last) = (now, None);
        'back: loop {
            let changes = self.changes_after(repository, tag, last, CHANGES).await?;
            for change in &changes {
                if change.at() <= then {
                    was = digest_of(change.to.as_ref());
                    break 'back;
                }
                was = digest_of(change.from.as_ref());
            }
            let Some(change) = changes.last() else { break };
            last = Some(change.id);
        }
        was.ok_or_else(|| unknown(format!("{tag} was not there then")))
    }

    /// Whether the tag pointed to the manifest when that was deleted, and has not been set since.
    async fn went_with(&self, repository: &Repository, tag: &Tag, digest: &Digest, deleted: &Deleted) -> Result<bool> {
        let latest = self.changes_after(repository, tag, None, 1).await?;
        // A delete announces itself anew each time that something comes between, and takes tags down each time.
        let since = deleted.at.saturating_sub(self.settings.publish_deadline.as_secs());
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(since);
        Ok(latest.iter().any(|change| {
            change.to.is_none() && digest_of(change.from.as_ref()) == Some(*digest) && change.at() >= since
        }))
    }

    /// Puts a manifest back with what it names and with the referrers that went with it or after it, children first.
    /// Returns it, and how many were not there.
    async fn put_back(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        trash: &Trash,
    ) -> Result<(Found, usize)> {
        let (mut asked_for, mut manifests) = (None, 0);
        let (mut steps, mut looked_at) = (vec![Step::Look(*digest)], HashSet::new());
        while let Some(step) = steps.pop() {
            match step {
                Step::Look(digest) => {
                    // What is nowhere is not missing for sure: the push of what names it decides.
                    if looked_at.insert(digest)
                        && let Some(found) = self.find(repository, &digest, trash).await?
                    {
                        if !found.is_there {
                            steps.extend(trash.referrers_that_went_with(&digest).map(Step::Look));
                        }
                        let children = found.children()?;
                        steps.push(Step::PutBack(found));
                        steps.extend(children.into_iter().map(Step::Look));
                    }
                }
                Step::PutBack(found) => {
                    if !found.is_there {
                        self.push_again(repository, &found, None).await?;
                        manifests += 1;
                    }
                    if found.head.digest == *digest {
                        asked_for = Some(found);
                    }
                }
            }
        }
        let nowhere = || unknown(format!("{digest} is neither in {repository} nor among what can be put back"));
        Ok((asked_for.ok_or_else(nowhere)?, manifests))
    }

    /// A manifest from the repository if it is there, else from what was deleted.
    async fn find(&self, repository: &Repository, digest: &Digest, trash: &Trash) -> Result<Option<Found>> {
        match self.manifest(repository, &Reference::Digest(*digest)).await {
            Ok((head, bytes)) => return Ok(Some(Found { head, bytes, is_there: true })),
            Err(Error::ManifestUnknown) => {}
            Err(error) => return Err(error),
        }
        let Some(deleted) = trash.0.get(digest) else { return Ok(None) };
        let entry: Option<Dropped> = pending::read(self.store(), &deleted.entry).await?;
        Ok(entry.and_then(|entry| match entry.what {
            DroppedWhat::Manifest { digest, media_type, manifest, .. } => {
                let head = ManifestHead { digest, media_type, size: manifest.len() as u64 };
                Some(Found { head, bytes: manifest.into(), is_there: false })
            }
            _ => None,
        }))
    }

    async fn push_again(
        self: &Arc<Self>,
        repository: &Repository,
        found: &Found,
        tag: Option<(&Tag, TagCondition)>,
    ) -> Result<()> {
        let push = Push {
            target: Reference::Digest(found.head.digest),
            tags: tag.iter().map(|(tag, _)| (*tag).clone()).collect(),
            content_type: Some(found.head.media_type.clone()),
            bytes: found.bytes.clone(),
            condition: tag.map(|(_, condition)| condition),
        };
        match self.put_manifest(repository, push).await {
            Ok(_) => Ok(()),
            Err(Error::ManifestBlobUnknown(missing)) => {
                let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
                let digest = found.head.digest;
                Err(unknown(format!("{digest} needs what {repository} does not hold any more: {}", missing.join(", "))))
            }
            Err(error) => Err(error),
        }
    }

    async fn trash(&self, repository: &Repository) -> Result<Trash> {
        let mut trash = Trash::default();
        let mut pages = Pages::new(&layout::dropped_of(repository));
        while let Some(keys) = pages.next(self.store()).await? {
            // What is due is the collector's: it may be taking what it names.
            let kept: Vec<_> = keys.into_iter().filter(|key| !self.is_due(key)).collect();
            let reads = kept.into_iter().map(|key| async move {
                let entry = pending::read(self.store(), &key).await;
                // A damaged one keeps no other from being put back.
                let entry: Option<Dropped> = go_on(entry, &key)?;
                Ok::<_, Error>((key, entry))
            });
            let mut reads = stream::iter(reads).buffered(READS);
            while let Some(read) = reads.next().await {
                let (entry, Some(Dropped { at, what, .. })) = read? else { continue };
                if let DroppedWhat::Manifest { digest, tags, subject, .. } = what {
                    // Listed by their times: the last one stays.
                    trash.0.insert(digest, Deleted { entry, at, tags, subject });
                }
            }
        }
        Ok(trash)
    }
}

impl Trash {
    fn referrers_that_went_with(&self, subject: &Digest) -> impl Iterator<Item = Digest> {
        let since = self.0.get(subject).map_or(u64::MAX, |deleted| deleted.at);
        let went = move |deleted: &Deleted| deleted.subject == Some(*subject) && deleted.at >= since;
        self.0.iter().filter(move |(_, deleted)| went(deleted)).map(|(digest, _)| *digest)
    }
}

impl Found {
    /// The manifests that it names.
    fn children(&self) -> Result<Vec<Digest>> {
        let manifest = Manifest::parse(Some(&self.head.media_type), &self.bytes)
            .map_err(|error| Error::ManifestInvalid(format!("{}: {error}", self.head.digest)))?;
        let children = manifest.references.into_iter().filter_map(|link| match link {
            Link::Manifest { digest: AnyDigest::Known(digest), .. } => Some(digest),
            Link::Manifest { .. } | Link::Blob { .. } => None,
        });
        Ok(children.collect())
    }
}

fn digest_of(head: Option<&ManifestHead>) -> Option<Digest> {
    head.map(|head| head.digest)
}

fn unknown(why: String) -> Error {
    Error::NotRestorable(why)
}
