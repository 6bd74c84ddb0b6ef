//! Requests made of a `Registry`, without the wire.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::stream;
use marina_distribution::{
    oci::{Algorithm, AnyDigest, Digest, Reference, Repository, Tag},
    registry::{Chunk, Clock, Error, PageRequest, Push, Registry, SessionId, Settings, TagCondition, Whole},
    store::Store,
};
use tokio::time::Instant;

use crate::history::{
    content::{BLOBS, CHUNKS, TAGS, blob, digest, manifest, manifest_of, need_of},
    request::{Answer, Condition, Request},
};

/// One of those that serve one store.
#[derive(Debug)]
pub(crate) struct Replica {
    registry: Arc<Registry>,
    /// By its clock, whatever is under way has expired.
    hasty: Arc<Registry>,
}

/// Runs as the test does, so that a seed replays the times that are written down, too.
#[derive(Debug)]
struct InTest {
    start: Instant,
    ahead: Duration,
}

impl Clock for InTest {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_hours(500_000) + self.start.elapsed() + self.ahead
    }
}

impl Replica {
    pub(crate) async fn open(store: Arc<dyn Store>) -> Self {
        // The clock runs a second for each store call, and sessions are to outlive the hasty clock.
        let day = Duration::from_hours(24);
        let settings = Settings { publish_deadline: 30 * day, upload_expiry: 30 * day, ..Settings::default() };
        let clock = |ahead| Arc::new(InTest { start: Instant::now(), ahead });
        let registry = Registry::open_with(Arc::clone(&store), settings.clone(), clock(Duration::ZERO)).await.unwrap();
        let hasty = Registry::open_with(store, settings, clock(3 * day)).await.unwrap();
        Self { registry, hasty }
    }

    pub(crate) fn start_upload(&self) -> SessionId {
        self.registry.start_upload(&Repository::parse("a").unwrap(), Algorithm::Sha256)
    }

    pub(crate) async fn settle(&self) {
        self.registry.settle().await;
        self.hasty.settle().await;
    }

    pub(crate) async fn perform(&self, request: Request, session: SessionId) -> Answer {
        self.try_to(request, session).await.unwrap_or_else(|error| match error {
            Error::NameUnknown | Error::BlobUnknown(_) | Error::UploadUnknown | Error::ManifestUnknown => {
                Answer::Absent
            }
            Error::OutOfOrder(stands) => Answer::OutOfOrder(stands.received),
            Error::DigestMismatch { .. } => Answer::WrongDigest,
            Error::TagConditionFailed => Answer::Refused,
            Error::ManifestBlobUnknown(missing) => {
                Answer::Missing(missing.iter().filter_map(AnyDigest::known).filter_map(need_of).collect())
            }
            Error::Busy | Error::Store(_) => Answer::Unclear,
            error => panic!("{request:?}: {error:?}"),
        })
    }

    async fn try_to(&self, request: Request, session: SessionId) -> Result<Answer, Error> {
        let registry = &self.registry;
        let [first, second] = ["a", "b"].map(|name| Repository::parse(name).unwrap());
        let repository = |index: usize| if index == 0 { &first } else { &second };
        match request {
            Request::Push { manifest, tag, condition } => self.push(&first, manifest, named(tag), &[], condition).await,
            Request::PushByDigest { manifest, tags } => {
                let tags: Vec<usize> = (0..TAGS.len()).filter(|tag| tags & (1 << tag) != 0).collect();
                self.push(&first, manifest, Reference::Digest(digest(manifest)), &tags, None).await
            }
            Request::DeleteManifest(manifest) => done(registry.delete_manifest(&first, &digest(manifest)).await),
            Request::DeleteTag(tag) => done(registry.delete_tag(&first, &name(tag)).await),
            Request::Pull(manifest) => self.pull(&first, Reference::Digest(digest(manifest))).await,
            Request::PullTag(tag) => self.pull(&first, named(tag)).await,
            Request::HeadTag(tag) => found(&registry.head_manifest(&first, &named(tag)).await?.digest),
            Request::ListTags => {
                let page = registry.tags(&first, &PageRequest::default()).await?;
                Ok(listed(page.items.iter().filter_map(|tag| TAGS.iter().position(|known| *known == tag.as_str()))))
            }
            Request::ListReferrers => {
                let page = registry.referrers(&first, &digest(0), &[], &PageRequest::default()).await?;
                Ok(listed(0..page.items.len()))
            }
            Request::Upload { repository: at, blob: index } => {
                let whole = registry.upload_whole(repository(at), &blob(index), body(None, BLOBS[index])).await?;
                assert_eq!(whole, Whole::Stored);
                Ok(Answer::Done)
            }
            Request::Stat { repository: at, blob: index } => {
                done(registry.stat_blob(repository(at), &blob(index)).await.map(drop))
            }
            Request::DeleteBlob { repository: at, blob: index } => {
                done(registry.delete_blob(repository(at), &blob(index)).await)
            }
            Request::Mount(index) => {
                let mounted = registry.mount(&second, &blob(index), Some(&first)).await?;
                Ok(if mounted { Answer::Done } else { Answer::Absent })
            }
            Request::Append(chunk) => {
                let (start, bytes, _) = CHUNKS[chunk];
                let progress = registry.append(&first, session, body(Some(start), bytes)).await?;
                Ok(Answer::Received(progress.received))
            }
            Request::Status => Ok(Answer::Received(registry.upload_status(&first, session).await?.received)),
            Request::Finish(index) => done(registry.finish(&first, session, &blob(index), body(None, b"")).await),
            Request::Cancel => done(registry.cancel_upload(&first, session).await),
            Request::Expire => done(self.hasty.expire().await.map(drop)),
        }
    }

    async fn push(
        &self,
        repository: &Repository,
        index: usize,
        target: Reference,
        tags: &[usize],
        condition: Option<Condition>,
    ) -> Result<Answer, Error> {
        let condition = condition.map(|condition| match condition {
            Condition::Absent => TagCondition::Absent,
            Condition::Is(manifest) => TagCondition::Is(digest(manifest)),
        });
        let (tags, bytes) = (tags.iter().map(|tag| name(*tag)).collect(), Bytes::from(manifest(index)));
        let push = Push { target, tags, content_type: None, bytes, condition };
        done(self.registry.put_manifest(repository, push).await.map(drop))
    }

    async fn pull(&self, repository: &Repository, reference: Reference) -> Result<Answer, Error> {
        let (head, bytes) = self.registry.manifest(repository, &reference).await?;
        let answer = found(&head.digest)?;
        assert!(matches!(answer, Answer::Manifest(index) if manifest(index) == bytes));
        Ok(answer)
    }
}

fn done(result: Result<(), Error>) -> Result<Answer, Error> {
    result.map(|()| Answer::Done)
}

#[expect(clippy::unnecessary_wraps, reason = "it ends what may fail")]
fn found(digest: &Digest) -> Result<Answer, Error> {
    Ok(Answer::Manifest(manifest_of(digest).unwrap()))
}

fn listed(entries: impl Iterator<Item = usize>) -> Answer {
    Answer::Listed(entries.map(|entry| 1 << entry).sum())
}

fn name(tag: usize) -> Tag {
    Tag::parse(TAGS[tag]).unwrap()
}

fn named(tag: usize) -> Reference {
    Reference::Tag(name(tag))
}

fn body(start: Option<u64>, bytes: &'static [u8]) -> Chunk {
    let body = Box::pin(stream::iter([Ok(Bytes::from_static(bytes))]));
    Chunk { start, declared: None, length: Some(bytes.len() as u64), body }
}
