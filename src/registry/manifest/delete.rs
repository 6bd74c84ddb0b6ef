//! Deleting a manifest, and with it every tag that points to it and its entry among the referrers.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, future::try_join, stream};

use super::StoredManifest;
use crate::{
    oci::{Descriptor, Digest, Repository, Tag, digests_in},
    registry::{
        Deadline, Error, PARALLEL, Registry, Result, layout,
        pages::Pages,
        pending::{self, Dropped, DroppedWhat, PendingManifest},
        register::{Register, Seen, State},
        tag::TagTarget,
    },
};

/// What goes with the manifest, as it was read.
struct Hanging {
    tags: Vec<(Tag, Seen<TagTarget>)>,
    entry: Option<(Register<Descriptor>, Seen<Descriptor>)>,
}

/// What becomes of the tags that point to the manifest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tags {
    /// They go with it.
    TakeAlong,
    /// If there are any, it stays.
    Spare,
}

impl Hanging {
    /// One that is damaged may point anywhere.
    fn has_tag_of(&self, digest: &Digest) -> bool {
        let points = |seen: &Seen<TagTarget>| seen.live().is_some_and(|target| target.digest == *digest);
        self.tags.iter().any(|(_, seen)| points(seen) || seen.is_quarantined())
    }
}

impl Registry {
    pub async fn delete_manifest(self: &Arc<Self>, repository: &Repository, digest: &Digest) -> Result<()> {
        let (this, repository, digest) = (Arc::clone(self), repository.clone(), *digest);
        let deleting = async move {
            let deleted = this.delete_manifest_to_the_end(&repository, &digest).await;
            // Also where it is not clear whether it was deleted.
            this.manifests.forget(&repository, &digest);
            deleted
        };
        self.run(deleting).await
    }

    async fn delete_manifest_to_the_end(&self, repository: &Repository, digest: &Digest) -> Result<()> {
        let register = layout::manifest(repository, digest);
        let mut seen = register.read(self.store()).await?;
        if let State::Quarantined(content) = &seen.state {
            // Its tags stand for themselves. What it named may not be needed any more, as far as it still says that.
            let digests = digests_in(content).into_iter().collect();
            let what = DroppedWhat::Push { digest: *digest, tags: Vec::new(), digests };
            Dropped { at: self.now(), repository: repository.clone(), what }.put(self.store(), 0).await?;
            // If we stop here the entry waits, as all does in a repository with a manifest in quarantine.
            let is_done = register.bury(self.store(), &seen, true).await?.is_done();
            return if is_done { Ok(()) } else { Err(Error::Busy) };
        }
        if seen.present().is_none() {
            return Err(Error::ManifestUnknown);
        }
        let mut deadline = self.deadline();
        while let Some(manifest) = seen.present() {
            if self.delete_as_seen(repository, digest, &seen, manifest, Tags::TakeAlong, &deadline).await? {
                return Ok(());
            }
            // Something moved: the manifest was pushed again, completed or lifted, or what hangs on it was.
            deadline.again().await?;
            seen = register.read(self.store()).await?;
        }
        // Somebody else deleted it meanwhile.
        Ok(())
    }

    /// Deletes a manifest that was condemned, and that nothing was found to need since, if it is still what was seen and
    /// has no tag. `false`: it stays, and may still be condemned.
    pub(crate) async fn delete_condemned(
        &self,
        repository: &Repository,
        digest: &Digest,
        seen: &Seen<StoredManifest>,
    ) -> Result<bool> {
        let State::Condemned(manifest) = &seen.state else { return Ok(false) };
        let deleted = self.delete_as_seen(repository, digest, seen, manifest, Tags::Spare, &self.deadline()).await;
        self.manifests.forget(repository, digest);
        deleted
    }

    /// Deletes the manifest if it is still what was seen. `false`: it, or what hangs on it, has changed, or is spared.
    async fn delete_as_seen(
        &self,
        repository: &Repository,
        digest: &Digest,
        seen: &Seen<StoredManifest>,
        manifest: &StoredManifest,
        tags: Tags,
        deadline: &Deadline,
    ) -> Result<bool> {
        // The collector learns of it first, and what it was. If we stop anywhere from here on, it looks at what is left;
        // every time anew, since it may have looked and found the manifest where it was.
        let dropped = Dropped { at: self.now(), repository: repository.clone(), what: manifest.dropped(digest) };
        dropped.put(self.store(), self.settings.undelete.as_secs()).await?;
        let register = layout::manifest(repository, digest);
        let hanging = self.read_hanging(repository, digest, manifest).await?;
        if tags == Tags::Spare && hanging.has_tag_of(digest) {
            return Ok(false);
        }
        // Unchanged since before those reads: then every push whose tags could point here has named them where we read
        // them, or will lose against what we write below.
        if !register.read(self.store()).await?.is_same(seen)
            || !self.take_down(repository, digest, hanging, deadline).await?
        {
            return Ok(false);
        }
        deadline.check()?;
        // If we stop before this the manifest stands with no tag: a delete that did not finish, to be repeated. Only a client
        // may leave an index without a child.
        Ok(register.bury(self.store(), seen, tags == Tags::TakeAlong).await?.is_done())
    }

    async fn read_hanging(
        &self,
        repository: &Repository,
        digest: &Digest,
        manifest: &StoredManifest,
    ) -> Result<Hanging> {
        let named = if manifest.links.more_tags {
            self.every_tag_that_may_point_to(repository, digest).await?
        } else {
            manifest.links.tags.clone()
        };
        let tags = stream::iter(named)
            .map(|tag| async move {
                let seen = layout::tag(repository, &tag).read(self.store()).await?;
                Ok::<_, Error>((tag, seen))
            })
            .buffered(PARALLEL)
            .try_collect();
        let entry = async {
            let Some(subject) = &manifest.links.subject else { return Ok(None) };
            let register = layout::referrer(repository, subject, digest);
            let seen = register.read(self.store()).await?;
            Ok(Some((register, seen)))
        };
        let (tags, entry) = try_join(tags, entry).await?;
        Ok(Hanging { tags, entry })
    }

    /// Takes down what points to the manifest, and leaves a new content where a push under way expects what we read.
    /// `false`: something changed; read again.
    async fn take_down(
        &self,
        repository: &Repository,
        digest: &Digest,
        hanging: Hanging,
        deadline: &Deadline,
    ) -> Result<bool> {
        deadline.check()?;
        let tags = stream::iter(hanging.tags)
            .map(|(tag, seen)| async move {
                match &seen.state {
                    // Points elsewhere: it stays, but a push that read it before must not move it here any more.
                    State::Live(target) if target.digest != *digest => {
                        Ok(layout::tag(repository, &tag).refresh(self.store(), &seen).await?)
                    }
                    _ => self.change_tag(repository, &tag, &seen, None).await.map(|written| written.is_done()),
                }
            })
            .buffer_unordered(PARALLEL)
            .try_fold(true, |all, done| async move { Ok(all && done) });
        let entry = async {
            let Some((register, seen)) = hanging.entry else { return Ok(true) };
            Ok(register.bury(self.store(), &seen, true).await?.is_done())
        };
        let (tags, entry) = try_join(tags, entry).await?;
        Ok(tags && entry)
    }

    /// All tags of the repository, and those that pushes of this manifest are about to set: the header has no room for more.
    async fn every_tag_that_may_point_to(&self, repository: &Repository, digest: &Digest) -> Result<Vec<Tag>> {
        let mut tags = self.tags_after(repository, None, usize::MAX).await?;
        let mut pages = Pages::new(&layout::pending_manifests(repository));
        while let Some(keys) = pages.next(self.store()).await? {
            for key in keys {
                let entry: Option<PendingManifest> = pending::read(self.store(), &key).await?;
                tags.extend(entry.filter(|entry| entry.digest == *digest).into_iter().flat_map(|entry| entry.tags));
            }
        }
        Ok(tags)
    }
}
