//! What clients ask, as data, so that it can be asked alone, twice, in any order, and with any fault in between.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, LazyLock, Mutex},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use marina_distribution::{
    oci::{Algorithm, Digest, Reference, Repository, Tag},
    registry::{Chunk, Error, PageRequest, Progress, Push, Registry, Result, SessionId, TagCondition, Torn},
    store::Span,
};

/// Below a part.
pub(crate) const SMALL: &str = "1234";
/// Four parts and a tail.
pub(crate) const BIG: &str = "abcdefghijklmnopqrstuvw";
/// More parts than a writer claims at a time, and a tail.
pub(crate) const LONG: &str =
    "The quick brown fox jumps over the lazy dog, and over it again, and then once more, 96 bytes on.";

/// An upload session of repository `a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    Big,
    Long,
    /// Announced as sha512.
    Wide,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doc {
    /// Of the config `SMALL` and the layer `BIG`.
    Image,
    /// The same, annotated.
    Other,
    /// Refers to the image.
    Signature,
    /// Lists the image.
    Index,
}

/// One request. Where no repository is named it is `a`.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Whole(&'static str, &'static str),
    /// One whose content is not what its digest says.
    WholeWrong(&'static str),
    /// Appends these bytes of the session's content, saying where they begin.
    Append(Session, Range<usize>),
    /// Appends without saying where.
    Stream(Session, Range<usize>),
    /// The client goes away when it has sent these bytes.
    Torn(Session, Range<usize>),
    /// Sends these last bytes, and has all published under its digest.
    Finish(Session, Range<usize>, Algorithm),
    /// The same, with a digest of something else.
    FinishWrong(Session, Range<usize>, Algorithm),
    Status(Session),
    Cancel(Session),
    /// Asks how far the session has come, sends the rest, and finishes; or starts anew if there is none any more.
    Resume(Session),
    Mount(&'static str, &'static str, Option<&'static str>),
    Push(Doc, &'static str),
    PushByDigest(Doc, &'static [&'static str]),
    PushIf(Doc, &'static str, Option<Doc>),
    DeleteTag(&'static str),
    DeleteManifest(Doc),
    DeleteBlob(&'static str, &'static str),
    /// By a replica whose clock is days ahead.
    Expire,
    Stat(&'static str, &'static str),
    Read(&'static str, &'static str),
    Head(Doc),
    Get(Doc),
    HeadTag(&'static str),
    GetTag(&'static str),
    Tags,
    Referrers(Doc),
    Catalog,
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Done(String),
    Refused(String),
    /// It may or may not have taken effect; the client may ask again.
    Unavailable,
}

/// A client of one replica. `later` is another, on the same store, with its clock days ahead.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) registry: Arc<Registry>,
    pub(crate) later: Arc<Registry>,
    pub(crate) sessions: [SessionId; 3],
}

impl Session {
    pub(crate) const ALL: [Self; 3] = [Self::Big, Self::Long, Self::Wide];

    fn content(self) -> &'static str {
        match self {
            Self::Big | Self::Wide => BIG,
            Self::Long => LONG,
        }
    }

    pub(crate) fn announced(self) -> Algorithm {
        match self {
            Self::Big | Self::Long => Algorithm::Sha256,
            Self::Wide => Algorithm::Sha512,
        }
    }
}

impl Doc {
    pub(crate) const ALL: [Self; 4] = [Self::Image, Self::Other, Self::Signature, Self::Index];

    fn media_type(self) -> &'static str {
        match self {
            Self::Image | Self::Other | Self::Signature => "application/vnd.oci.image.manifest.v1+json",
            Self::Index => "application/vnd.oci.image.index.v1+json",
        }
    }

    fn bytes(self) -> &'static str {
        static BYTES: [LazyLock<String>; 4] = [
            LazyLock::new(|| Doc::Image.write()),
            LazyLock::new(|| Doc::Other.write()),
            LazyLock::new(|| Doc::Signature.write()),
            LazyLock::new(|| Doc::Index.write()),
        ];
        BYTES.get(self as usize).unwrap()
    }

    fn write(self) -> String {
        let media_type = self.media_type();
        let head = format!(r#""schemaVersion":2,"mediaType":"{media_type}""#);
        let blob = |content: &str| {
            let digest = Digest::of(Algorithm::Sha256, content.as_bytes());
            format!(r#"{{"mediaType":"application/x","digest":"{digest}","size":{}}}"#, content.len())
        };
        let image = |more: &str| format!(r#"{{{head},"config":{},"layers":[{}]{more}}}"#, blob(SMALL), blob(BIG));
        let link = |doc: Self| {
            let (media_type, size) = (doc.media_type(), doc.bytes().len());
            format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{size}}}"#, doc.digest())
        };
        match self {
            Self::Image => image(""),
            Self::Other => image(r#","annotations":{"other":"yes"}"#),
            Self::Signature => image(&format!(r#","subject":{}"#, link(Self::Image))),
            Self::Index => format!(r#"{{{head},"manifests":[{}]}}"#, link(Self::Image)),
        }
    }

    pub(crate) fn digest(self) -> Digest {
        digest(self.bytes())
    }
}

impl Client {
    pub(crate) async fn run(&self, op: &Op) -> Outcome {
        match self.attempt(op).await {
            Ok(done) => Outcome::Done(done),
            Err(Error::Store(_) | Error::Busy) => Outcome::Unavailable,
            Err(Error::OutOfOrder(progress)) => Outcome::Refused(format!("OutOfOrder, at {}", progress.received)),
            Err(Error::BlobUnknown(_)) => Outcome::Refused("BlobUnknown".to_owned()),
            Err(error) => Outcome::Refused(format!("{error:?}")),
        }
    }

    /// Waits until what was left to be done after replies is done.
    pub(crate) async fn settle(&self) {
        self.registry.settle().await;
        self.later.settle().await;
    }

    async fn attempt(&self, op: &Op) -> Result<String> {
        let a = repository("a");
        let registry = &self.registry;
        Ok(match *op {
            Op::DeleteTag(name) => say(registry.delete_tag(&a, &tag(name)).await?),
            Op::DeleteManifest(doc) => say(registry.delete_manifest(&a, &doc.digest()).await?),
            Op::DeleteBlob(repo, blob) => say(registry.delete_blob(&repository(repo), &digest(blob)).await?),
            Op::Mount(repo, blob, from) => {
                say(registry.mount(&repository(repo), &digest(blob), from.map(repository).as_ref()).await?)
            }
            Op::Push(doc, name) => self.push(doc, Reference::Tag(tag(name)), &[], None).await?,
            Op::PushByDigest(doc, tags) => self.push(doc, Reference::Digest(doc.digest()), tags, None).await?,
            Op::PushIf(doc, name, is) => {
                let condition = is.map_or(TagCondition::Absent, |doc| TagCondition::Is(doc.digest()));
                self.push(doc, Reference::Tag(tag(name)), &[], Some(condition)).await?
            }
            Op::Expire => {
                self.later.expire().await?;
                String::new()
            }
            Op::Stat(repo, blob) => say(registry.stat_blob(&repository(repo), &digest(blob)).await?.size),
            Op::Read(repo, blob) => self.read(&repository(repo), &digest(blob)).await?,
            Op::Head(doc) => say(registry.head_manifest(&a, &Reference::Digest(doc.digest())).await?),
            Op::Get(doc) => self.get(Reference::Digest(doc.digest())).await?,
            Op::HeadTag(name) => say(registry.head_manifest(&a, &Reference::Tag(tag(name))).await?),
            Op::GetTag(name) => self.get(Reference::Tag(tag(name))).await?,
            Op::Tags => say(registry.tags(&a, &PageRequest::default()).await?),
            Op::Referrers(doc) => say(registry.referrers(&a, &doc.digest(), &[], &PageRequest::default()).await?),
            Op::Catalog => say(registry.catalog(&PageRequest::default()).await?),
            _ => self.upload(op).await?,
        })
    }

    async fn upload(&self, op: &Op) -> Result<String> {
        let a = repository("a");
        let registry = &self.registry;
        let received = |progress: Progress| say(progress.received);
        Ok(match op.clone() {
            Op::Whole(repo, blob) => {
                say(registry.upload_whole(&repository(repo), &digest(blob), chunk(None, blob)).await?)
            }
            Op::WholeWrong(blob) => say(registry.upload_whole(&a, &digest("wrong"), chunk(None, blob)).await?),
            Op::Append(session, range) => {
                let chunk = chunk(Some(range.start), &session.content()[range]);
                received(registry.append(&a, self.id(session), chunk).await?)
            }
            Op::Stream(session, range) => {
                received(registry.append(&a, self.id(session), chunk(None, &session.content()[range])).await?)
            }
            Op::Torn(session, range) => {
                let mut chunk = chunk(Some(range.start), &session.content()[range]);
                chunk.body = Box::pin(chunk.body.chain(stream::iter([Err(Torn)])));
                chunk.length = None;
                received(registry.append(&a, self.id(session), chunk).await?)
            }
            Op::Finish(session, range, algorithm) => {
                let digest = Digest::of(algorithm, session.content().as_bytes());
                self.finish(session, range, &digest).await?
            }
            Op::FinishWrong(session, range, algorithm) => {
                self.finish(session, range, &Digest::of(algorithm, b"wrong")).await?
            }
            Op::Status(session) => received(registry.upload_status(&a, self.id(session)).await?),
            Op::Cancel(session) => say(registry.cancel_upload(&a, self.id(session)).await?),
            Op::Resume(session) => self.resume(session).await?,
            other => unreachable!("{other:?}"),
        })
    }

    async fn push(
        &self,
        doc: Doc,
        target: Reference,
        tags: &[&str],
        condition: Option<TagCondition>,
    ) -> Result<String> {
        let content_type = Some(doc.media_type().to_owned());
        let tags = tags.iter().map(|name| tag(name)).collect();
        let push = Push { target, tags, content_type, bytes: Bytes::from_static(doc.bytes().as_bytes()), condition };
        Ok(say(self.registry.put_manifest(&repository("a"), push).await?))
    }

    async fn finish(&self, session: Session, range: Range<usize>, digest: &Digest) -> Result<String> {
        let start = (!range.is_empty()).then_some(range.start);
        let chunk = chunk(start, &session.content()[range]);
        Ok(say(self.registry.finish(&repository("a"), self.id(session), digest, chunk).await?))
    }

    /// Which document is there, byte for byte.
    async fn get(&self, reference: Reference) -> Result<String> {
        let (head, bytes) = self.registry.manifest(&repository("a"), &reference).await?;
        let doc = Doc::ALL.into_iter().find(|doc| doc.bytes().as_bytes() == bytes).unwrap();
        assert_eq!((head.digest, head.media_type.as_str()), (doc.digest(), doc.media_type()));
        Ok(say(doc))
    }

    async fn resume(&self, session: Session) -> Result<String> {
        let (a, content) = (repository("a"), session.content());
        match self.registry.upload_status(&a, self.id(session)).await {
            Ok(progress) => {
                let at = usize::try_from(progress.received).unwrap();
                self.finish(session, at..content.len(), &digest(content)).await?;
            }
            Err(Error::UploadUnknown) => {
                self.registry.upload_whole(&a, &digest(content), chunk(None, content)).await?;
            }
            Err(error) => return Err(error),
        }
        Ok(String::new())
    }

    async fn read(&self, repository: &Repository, digest: &Digest) -> Result<String> {
        let blob = self.registry.find_blob(repository, digest).await?;
        let mut stream = self.registry.read_blob(&blob, Span::ALL).await?.into_stream();
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await {
            bytes.extend_from_slice(&piece?);
        }
        Ok(String::from_utf8(bytes).unwrap())
    }

    fn id(&self, session: Session) -> SessionId {
        *self.sessions.get(session as usize).unwrap()
    }
}

impl Op {
    pub(crate) fn is_of_session(&self) -> bool {
        use Op::{Append, Cancel, Finish, FinishWrong, Resume, Status, Stream, Torn};
        matches!(
            self,
            Append(..) | Stream(..) | Torn(..) | Finish(..) | FinishWrong(..) | Status(_) | Cancel(_) | Resume(_)
        )
    }

    pub(crate) fn is_push(&self) -> bool {
        matches!(self, Self::Push(..) | Self::PushByDigest(..) | Self::PushIf(..))
    }

    /// It is answered the same however much of it is kept, and nothing is promised.
    pub(crate) fn is_torn(&self) -> bool {
        matches!(self, Self::Torn(..))
    }
}

pub(crate) fn repository(name: &str) -> Repository {
    Repository::parse(name).unwrap()
}

fn tag(name: &str) -> Tag {
    Tag::parse(name).unwrap()
}

/// Remembered: there are few contents, and they are asked for all the time.
fn digest(content: &'static str) -> Digest {
    static DIGESTS: LazyLock<Mutex<HashMap<&str, Digest>>> = LazyLock::new(Mutex::default);
    *DIGESTS.lock().unwrap().entry(content).or_insert_with(|| Digest::of(Algorithm::Sha256, content.as_bytes()))
}

fn chunk(start: Option<usize>, bytes: &'static str) -> Chunk {
    let length = Some(bytes.len() as u64);
    Chunk {
        start: start.map(|start| start as u64),
        declared: None,
        length,
        body: Box::pin(stream::iter([Ok(Bytes::from_static(bytes.as_bytes()))])),
    }
}

fn say(answer: impl std::fmt::Debug) -> String {
    format!("{answer:?}")
}
