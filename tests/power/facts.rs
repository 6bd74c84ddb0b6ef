//! What was acknowledged, and how to see that it is so.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use marina_distribution::{
    oci::{Algorithm, Digest, Reference, Repository, Tag},
    registry::{Chunk, Clock, Error, PageRequest, Registry, SessionId, Settings, Whole, check},
    store::{Span, fs::FsStore},
};
use serde::{Deserialize, Serialize};

/// Something that is there or is not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Thing {
    Blob {
        repository: String,
        digest: String,
    },
    Manifest {
        repository: String,
        digest: String,
    },
    Tag {
        repository: String,
        tag: String,
    },
    Referrer {
        repository: String,
        subject: String,
        digest: String,
    },
    /// Of [`content`] of this size.
    Upload {
        repository: String,
        id: String,
        size: usize,
    },
}

/// The digest that is there, or the offset of an upload; `None`: nothing is there.
pub(crate) type State = Option<String>;
pub(crate) type Effects = Vec<(Thing, State)>;

/// A line that the program under test says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Line {
    /// It sets out to do this.
    Begins(Effects),
    /// It was answered that this is done.
    Done(Effects),
    Failed(String),
}

/// What may be true of each thing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Facts(BTreeMap<Thing, BTreeSet<State>>);

/// A clock that stands until it is turned.
#[derive(Debug, Default)]
pub(crate) struct Turned(AtomicU64);

impl Clock for Turned {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_hours(500_000 + self.0.load(Ordering::Relaxed))
    }
}

impl Turned {
    pub(crate) fn forward(&self, hours: u64) {
        self.0.fetch_add(hours, Ordering::Relaxed);
    }
}

impl Facts {
    pub(crate) fn hear(&mut self, line: &Line) {
        match line {
            Line::Begins(effects) => {
                for (thing, state) in effects {
                    self.0.entry(thing.clone()).or_insert_with(|| BTreeSet::from([None])).insert(state.clone());
                }
            }
            Line::Done(effects) => {
                for (thing, state) in effects {
                    self.0.insert(thing.clone(), BTreeSet::from([state.clone()]));
                }
            }
            Line::Failed(_) => {}
        }
    }

    /// Looks for whatever is not as it was acknowledged, and for everything that is damaged; then has the registry go on
    /// from there, and looks again.
    pub(crate) async fn verify(&self, directory: &Path) -> Result<(), String> {
        let say = |error: &dyn std::fmt::Display| error.to_string();
        let store = Arc::new(FsStore::open(directory).map_err(|error| say(&error))?);
        let clock = Arc::new(Turned::default());
        let registry = Registry::open_with(store.clone(), Settings::default(), clock.clone()).await;
        let registry = registry.map_err(|error| say(&error))?;
        clean(&store).await?;
        for (thing, possible) in &self.0 {
            let seen = look(&registry, thing).await.map_err(|error| format!("{thing:?}: {error}"))?;
            if !possible.iter().any(|state| thing.is(&seen, state)) {
                return Err(format!("{thing:?} is {seen:?} and must be one of {possible:?}"));
            }
        }
        for thing in self.0.keys() {
            resume(&registry, thing).await.map_err(|error| format!("{thing:?}, resumed: {error}"))?;
        }
        push_anew(&registry, directory).await.map_err(|error| format!("the next push: {error}"))?;
        clean(&store).await?;
        clock.forward(100);
        registry.expire().await.map_err(|error| format!("expire: {error:?}"))?;
        registry.settle().await;
        clean(&store).await?;
        for (thing, possible) in self.0.iter().filter(|(thing, _)| !matches!(thing, Thing::Upload { .. })) {
            let seen = look(&registry, thing).await.map_err(|error| format!("{thing:?}, later: {error}"))?;
            if !possible.contains(&seen) {
                return Err(format!("{thing:?} is {seen:?} after an expiry and must be one of {possible:?}"));
            }
        }
        Ok(())
    }
}

impl Thing {
    fn is(&self, seen: &State, state: &State) -> bool {
        match (self, seen, state) {
            // What was not acknowledged may be there as well.
            (Self::Upload { .. }, Some(seen), Some(at_least)) => offset(seen) >= offset(at_least),
            _ => seen == state,
        }
    }
}

fn offset(text: &str) -> usize {
    text.parse().unwrap()
}

async fn clean(store: &Arc<FsStore>) -> Result<(), String> {
    let mut findings = Vec::new();
    let checked = check::check(store.clone(), |finding| findings.push(finding.to_string())).await;
    checked.map_err(|error| format!("check: {error}"))?;
    if findings.is_empty() { Ok(()) } else { Err(findings.join("; ")) }
}

async fn look(registry: &Arc<Registry>, thing: &Thing) -> Result<State, Error> {
    match thing {
        Thing::Blob { repository, digest } => {
            let blob = match registry.find_blob(&name(repository), &parse(digest)).await {
                Err(Error::BlobUnknown(_)) => return Ok(None),
                blob => blob?,
            };
            let mut body = registry.read_blob(&blob, Span::ALL).await?.into_stream();
            let mut bytes = Vec::new();
            while let Some(piece) = body.next().await {
                bytes.extend_from_slice(&piece?);
            }
            Ok(Some(sha256(&bytes)))
        }
        Thing::Manifest { repository, digest } => {
            manifest(registry, repository, Reference::Digest(parse(digest))).await
        }
        Thing::Tag { repository, tag } => {
            manifest(registry, repository, Reference::Tag(Tag::parse(tag).unwrap())).await
        }
        Thing::Referrer { repository, subject, digest } => {
            let page = registry.referrers(&name(repository), &parse(subject), &[], &PageRequest::default()).await?;
            let listed = page.items.iter().any(|it| it.digest.to_string() == *digest);
            Ok(listed.then(|| digest.clone()))
        }
        Thing::Upload { repository, id, .. } => match registry.upload_status(&name(repository), session(id)).await {
            Err(Error::UploadUnknown) => Ok(None),
            status => Ok(Some(status?.received.to_string())),
        },
    }
}

async fn manifest(registry: &Arc<Registry>, repository: &str, reference: Reference) -> Result<State, Error> {
    match registry.manifest(&name(repository), &reference).await {
        Err(Error::ManifestUnknown | Error::NameUnknown) => Ok(None),
        found => Ok(Some(sha256(&found?.1))),
    }
}

/// Finishes an upload from where it stands.
async fn resume(registry: &Arc<Registry>, thing: &Thing) -> Result<(), Error> {
    let Thing::Upload { repository, id, size } = thing else { return Ok(()) };
    let Some(received) = look(registry, thing).await? else { return Ok(()) };
    let content = content(*size);
    let digest = sha256(&content);
    let rest = chunk(Some(offset(&received)), &content[offset(&received)..]);
    registry.finish(&name(repository), session(id), &parse(&digest), rest).await?;
    let blob = Thing::Blob { repository: repository.clone(), digest: digest.clone() };
    assert_eq!(look(registry, &blob).await?, Some(digest));
    Ok(())
}

async fn push_anew(registry: &Arc<Registry>, directory: &Path) -> Result<(), Error> {
    let bytes = directory.as_os_str().as_encoded_bytes();
    let digest = parse(&sha256(bytes));
    for repository in ["a", "b"] {
        assert_eq!(registry.upload_whole(&name(repository), &digest, chunk(None, bytes)).await?, Whole::Stored);
    }
    Ok(())
}

/// Bytes that no other size has.
pub(crate) fn content(size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        let mixed = ((bytes.len() ^ size) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bytes.extend_from_slice(&mixed.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Digest::of(Algorithm::Sha256, bytes).to_string()
}

pub(crate) fn parse(digest: &str) -> Digest {
    Digest::parse(digest).unwrap()
}

pub(crate) fn session(id: &str) -> SessionId {
    SessionId::parse(id).unwrap()
}

pub(crate) fn name(repository: &str) -> Repository {
    Repository::parse(repository).unwrap()
}

/// A chunk whose body arrives in pieces.
pub(crate) fn chunk(start: Option<usize>, bytes: &[u8]) -> Chunk {
    let pieces: Vec<_> = bytes.chunks(50_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    Chunk {
        start: start.map(|start| start as u64),
        declared: None,
        length: Some(bytes.len() as u64),
        body: Box::pin(stream::iter(pieces)),
    }
}
