//! Pushing a manifest: what it needs is there, it is there, and only then does anything point to it.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use futures_util::{
    StreamExt, TryStreamExt,
    future::{try_join, try_join_all, try_join3},
    stream,
};

use super::{Links, StoredManifest};
use crate::{
    oci::{Algorithm, AnyDigest, Descriptor, Digest, Link, Manifest, Reference, Repository, Tag},
    registry::{
        Deadline, Error, PARALLEL, Registry, Result, layout,
        nonce::Nonce,
        pending::PendingManifest,
        referrers,
        register::{Seen, Written},
        tag::{RepositoryExists, TagTarget},
    },
    store,
};

/// A manifest to be pushed.
#[derive(Clone, Debug)]
pub struct Push {
    /// The tag to set, or the digest that the bytes must have.
    pub target: Reference,
    /// More tags to set, where the target is a digest.
    pub tags: Vec<Tag>,
    pub content_type: Option<String>,
    pub bytes: Bytes,
    /// What the target tag must be for the push to happen.
    pub condition: Option<TagCondition>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagCondition {
    Absent,
    Is(Digest),
}

/// What a push did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    pub digest: Digest,
    /// The subject under which the referrers list now shows this manifest.
    pub subject: Option<AnyDigest>,
    /// Those of [`Push::tags`].
    pub tags: Vec<Tag>,
}

/// How many tags one push may set. The answer has a header for each, and proxies and clients take a hundred of them.
const MAX_TAGS: usize = 50;
/// How many tags a manifest's header names. Beyond that a delete reads all tags of the repository.
pub(super) const MAX_HEADER_TAGS: usize = 1000;

/// A push under way.
struct Job {
    repository: Repository,
    digest: Digest,
    manifest: Manifest,
    bytes: Bytes,
    tags: Vec<Tag>,
    condition: Option<TagCondition>,
    purpose: Purpose,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A client wants the manifest to be there.
    Push,
    /// It is there, and what belongs to it may not be: the push that brought it died. If it has gone, it stays gone.
    Complete,
}

/// What will be published over, as it was before the reference in flight was written.
struct Before {
    manifest: Seen<StoredManifest>,
    entry: Option<(Digest, Seen<Descriptor>)>,
    tags: Vec<(Tag, Seen<TagTarget>)>,
}

/// How setting one tag ended.
enum TagSet {
    Done,
    Again,
}

impl Registry {
    pub async fn put_manifest(self: &Arc<Self>, repository: &Repository, push: Push) -> Result<Pushed> {
        let room = self.room_to_publish(push.bytes.len()).await;
        let manifest = Manifest::parse(push.content_type.as_deref(), &push.bytes)
            .map_err(|error| Error::ManifestInvalid(error.to_string()))?;
        let (digest, tags) = match &push.target {
            Reference::Tag(tag) => (Digest::of(Algorithm::Sha256, &push.bytes), vec![tag.clone()]),
            Reference::Digest(expected) => {
                let actual = Digest::of(expected.algorithm(), &push.bytes);
                if actual != *expected {
                    return Err(Error::DigestMismatch { expected: *expected, actual });
                }
                (actual, push.tags.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect())
            }
        };
        if tags.len() > MAX_TAGS {
            return Err(Error::TooManyTags);
        }
        let subject = manifest.subject.as_ref().map(|subject| subject.digest.clone());
        let pushed = Pushed { digest, subject: subject.filter(|subject| subject.known().is_some()), tags: push.tags };
        let this = Arc::clone(self);
        let repository = repository.clone();
        let job = Job {
            repository,
            digest,
            manifest,
            bytes: push.bytes,
            tags,
            condition: push.condition,
            purpose: Purpose::Push,
        };
        let work = async move {
            let done = this.push(&job).await;
            drop((job, room));
            done
        };
        self.run(work).await?;
        Ok(pushed)
    }

    /// Publishes what is still missing of a manifest that is there, by the way in which it was pushed.
    pub(crate) async fn complete_push(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        manifest: Manifest,
        bytes: Bytes,
    ) -> Result<()> {
        let (this, repository, digest) = (Arc::clone(self), repository.clone(), *digest);
        let (tags, condition, purpose) = (Vec::new(), None, Purpose::Complete);
        let job = Job { repository, digest, manifest, bytes, tags, condition, purpose };
        self.run(async move { this.push(&job).await }).await
    }

    async fn push(&self, job: &Job) -> Result<()> {
        let mut deadline = self.deadline();
        let mut to_set = job.tags.clone();
        let mut written: Option<String> = None;
        // A new repository, or one that is listed, is the usual case. Otherwise the write below loses.
        let mut line = Seen::absent();
        loop {
            let before = self.read_before(job, &to_set).await?;
            if job.purpose == Purpose::Complete && before.manifest.present().is_none() {
                return Ok(());
            }
            if written.is_some() && before.life() != written.as_deref() {
                // Deleted since we wrote it, and the tags that we had set with it: all of it once more, or nothing.
                (written, to_set) = (None, job.tags.clone());
                continue;
            }
            job.check_type(&before)?;
            job.check_condition(&before)?;
            // From here on, what the manifest needs and is not condemned yet stays.
            let pending = job.pending(self.now()).put(self.store(), self.settings.grace.as_secs()).await?;
            let unchecked = match self.check_references(job, &before).await {
                Ok(unchecked) => unchecked,
                Err(refused) => {
                    self.drop_later(pending);
                    return Err(refused);
                }
            };
            deadline.check()?;
            // If we stop here: what it needs is protected until the reference in flight expires, and nothing else is.
            let stored = job.stored(&before, unchecked, self.now());
            let (is_written, is_listed) = self.publish_manifest(job, &before, &stored, &mut line).await?;
            if is_written {
                written = Some(stored.links.life);
                // If we stop here the manifest is whole but not listed: the reference in flight leads the expiry to it.
                if is_listed && self.publish_entry(job, before.entry.as_ref(), &deadline).await? {
                    // If we stop among the tags, those that are set are set: nobody was told anything yet.
                    to_set = self.set_tags(job, &before.tags, &deadline).await?;
                    if to_set.is_empty() {
                        self.drop_later(pending);
                        return Ok(());
                    }
                }
            }
            // Something came between: a twin, a delete, an expiry. Start again from the reads; tags that are set are set.
            deadline.again().await?;
        }
    }

    async fn read_before(&self, job: &Job, tags: &[Tag]) -> Result<Before> {
        let manifest = layout::manifest(&job.repository, &job.digest);
        let entry = async {
            let Some(subject) = job.subject() else { return Ok(None) };
            let seen = layout::referrer(&job.repository, subject, &job.digest).read(self.store()).await?;
            Ok(Some((*subject, seen)))
        };
        let tags = try_join_all(tags.iter().map(|tag| self.read_tag(&job.repository, tag)));
        let (manifest, entry, tags) = try_join3(manifest.read(self.store()), entry, tags).await?;
        Ok(Before { manifest, entry, tags })
    }

    async fn read_tag(&self, repository: &Repository, tag: &Tag) -> store::Result<(Tag, Seen<TagTarget>)> {
        Ok((tag.clone(), layout::tag(repository, tag).read(self.store()).await?))
    }

    /// Looks at everything that the manifest names and lifts what is condemned; what is missing and may be missing.
    async fn check_references(&self, job: &Job, before: &Before) -> Result<Vec<AnyDigest>> {
        let looks: Vec<_> = job.manifest.references.iter().map(|link| self.is_held(job, link)).collect();
        let held: Vec<bool> = stream::iter(looks).buffered(PARALLEL).try_collect().await?;
        let mut missing: Vec<_> = job
            .manifest
            .references
            .iter()
            .zip(held)
            .filter(|(_, held)| !held)
            .map(|(link, _)| link.digest().clone())
            .collect();
        if job.purpose == Purpose::Complete {
            // What was pushed stays, also when something of it has gone since; which is not excused by this.
            missing.retain(|digest| before.manifest.present().is_some_and(|it| it.links.unchecked.contains(digest)));
        } else if !missing.is_empty() && !self.settings.allow_missing_references {
            return Err(Error::ManifestBlobUnknown(missing));
        }
        Ok(missing)
    }

    async fn is_held(&self, job: &Job, link: &Link) -> Result<bool> {
        let repository = &job.repository;
        let (size, declared, digest) = match link {
            Link::Blob { digest: AnyDigest::Known(digest), size } => {
                (self.lift_holder(repository, digest).await?, *size, digest)
            }
            Link::Manifest { digest: AnyDigest::Known(digest), size } => {
                (self.lift_manifest(repository, digest).await?, *size, digest)
            }
            Link::Blob { digest: AnyDigest::Unsupported(_), .. }
            | Link::Manifest { digest: AnyDigest::Unsupported(_), .. } => return Ok(false),
        };
        match size {
            // It came after a push that was allowed to lack it.
            Some(size) if size != declared && job.purpose == Purpose::Complete => Ok(false),
            Some(size) if size != declared => Err(Error::ManifestInvalid(format!(
                "{digest} has {size} bytes, and not {declared} as its descriptor says"
            ))),
            size => Ok(size.is_some()),
        }
    }

    /// Publishes the manifest and, beside it, its repository's line in the catalog; which of the two is there now.
    async fn publish_manifest(
        &self,
        job: &Job,
        before: &Before,
        stored: &StoredManifest,
        line: &mut Seen<RepositoryExists>,
    ) -> Result<(bool, bool)> {
        let register = layout::manifest(&job.repository, &job.digest);
        let manifest = async { Ok(register.publish(self.store(), &before.manifest, stored).await?.is_done()) };
        try_join(manifest, self.list_repository(&job.repository, line)).await
    }

    /// Lists the repository in the catalog, over what was seen of its line. `false`: it is not listed, as is seen now. Who
    /// publishes a manifest starts again then: an expiry that gave him up may have left a tombstone, to shut him out.
    async fn list_repository(&self, repository: &Repository, line: &mut Seen<RepositoryExists>) -> Result<bool> {
        match layout::catalog(repository).publish(self.store(), line, &RepositoryExists::of(repository)).await? {
            Written::Done(_) => Ok(true),
            Written::Lost(now) | Written::Unclear(now) if now.live().is_some() => Ok(true),
            Written::Lost(now) | Written::Unclear(now) => {
                *line = now;
                Ok(false)
            }
        }
    }

    /// Lists a repository that has a manifest.
    pub(crate) async fn ensure_repository(&self, repository: &Repository) -> Result<()> {
        let mut line = Seen::absent();
        while !self.list_repository(repository, &mut line).await? {}
        Ok(())
    }

    async fn publish_entry(
        &self,
        job: &Job,
        before: Option<&(Digest, Seen<Descriptor>)>,
        deadline: &Deadline,
    ) -> Result<bool> {
        let Some((subject, seen)) = before else { return Ok(true) };
        deadline.check()?;
        let register = layout::referrer(&job.repository, subject, &job.digest);
        let descriptor = referrers::descriptor(&job.manifest, job.digest, job.bytes.len());
        let written = register.publish(self.store(), seen, &descriptor).await?;
        Ok(matches!(written, Written::Done(_)))
    }

    /// Points the tags here, over what was read of them. Returns those that have to be tried again.
    async fn set_tags(&self, job: &Job, tags: &[(Tag, Seen<TagTarget>)], deadline: &Deadline) -> Result<Vec<Tag>> {
        let set = try_join_all(tags.iter().map(|(tag, seen)| self.set_tag(job, tag, seen, deadline))).await?;
        Ok(set.into_iter().filter_map(|(tag, set)| matches!(set, TagSet::Again).then_some(tag)).collect())
    }

    async fn set_tag(
        &self,
        job: &Job,
        tag: &Tag,
        seen: &Seen<TagTarget>,
        deadline: &Deadline,
    ) -> Result<(Tag, TagSet)> {
        deadline.check()?;
        let written = self.change_tag(&job.repository, tag, seen, Some(&job.tag_target(self.now()))).await?;
        Ok((tag.clone(), job.judge(seen, written)?))
    }
}

impl Before {
    fn life(&self) -> Option<&str> {
        self.manifest.present().map(|manifest| manifest.links.life.as_str())
    }
}

impl Job {
    fn subject(&self) -> Option<&Digest> {
        self.manifest.subject.as_ref()?.digest.known()
    }

    /// Bytes without a media type of their own are what they were first pushed as: what hangs on them depends on it.
    fn check_type(&self, before: &Before) -> Result<()> {
        match before.manifest.present().map(StoredManifest::media_type) {
            Some(stored) if stored != self.manifest.media_type => {
                Err(Error::ManifestInvalid(format!("the repository has these bytes already, as {stored}")))
            }
            _ => Ok(()),
        }
    }

    fn check_condition(&self, before: &Before) -> Result<()> {
        let Some(condition) = &self.condition else { return Ok(()) };
        let holds = before.tags.iter().all(|(_, seen)| match (condition, seen.live()) {
            (TagCondition::Absent, tag) => tag.is_none(),
            (TagCondition::Is(digest), tag) => tag.is_some_and(|tag| tag.digest == *digest),
        });
        if holds { Ok(()) } else { Err(Error::TagConditionFailed) }
    }

    fn pending(&self, at: u64) -> PendingManifest {
        PendingManifest {
            at,
            repository: self.repository.clone(),
            digest: self.digest,
            tags: self.tags.clone(),
            subject: self.subject().copied(),
            references: self.manifest.references.iter().map(|link| link.digest().clone()).collect(),
        }
    }

    /// The manifest with a header that names the tags before they point here, so that a delete finds them all.
    fn stored(&self, before: &Before, unchecked: Vec<AnyDigest>, now: u64) -> StoredManifest {
        let known = before.manifest.present().map(|manifest| manifest.links.clone()).unwrap_or_default();
        let known_tags = known.tags.into_iter().filter(|tag| !self.tags.contains(tag));
        let mut tags: Vec<_> = self.tags.iter().cloned().chain(known_tags).collect();
        let more_tags = known.more_tags || tags.len() > MAX_HEADER_TAGS;
        tags.truncate(MAX_HEADER_TAGS);
        let life = before.life().map_or_else(|| Nonce::fresh().to_string(), str::to_owned);
        let at = if self.purpose == Purpose::Push { Some(now) } else { known.at };
        let links = Links { life, at, tags, more_tags, subject: self.subject().copied(), unchecked };
        StoredManifest::new(self.manifest.media_type.clone(), links, self.bytes.clone())
    }

    fn tag_target(&self, now: u64) -> TagTarget {
        TagTarget {
            media_type: self.manifest.media_type.clone(),
            digest: self.digest,
            size: self.bytes.len() as u64,
            conditional: self.condition.is_some(),
            at: Some(now),
        }
    }

    /// What the end of one tag's write means.
    fn judge(&self, seen: &Seen<TagTarget>, written: Written<TagTarget>) -> Result<TagSet> {
        match written {
            Written::Done(_) => Ok(TagSet::Done),
            Written::Lost(now) | Written::Unclear(now) if self.is_overtaken(seen, &now) => Ok(TagSet::Done),
            Written::Lost(_) => Ok(TagSet::Again),
            // Perhaps it was set and has moved on since; nobody can tell, so nobody claims it or sets it twice.
            Written::Unclear(_) => Err(Error::Busy),
        }
    }

    /// Another put came, and this one took effect just before it. Not before one with a condition, which would not have
    /// held then; and a delete that only refreshed the tag is none.
    fn is_overtaken(&self, seen: &Seen<TagTarget>, now: &Seen<TagTarget>) -> bool {
        let overtakes = |tag: &TagTarget| !tag.conditional && tag.digest != self.digest && Some(tag) != seen.live();
        self.condition.is_none() && now.live().is_some_and(overtakes)
    }
}
