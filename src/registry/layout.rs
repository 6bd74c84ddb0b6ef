//! Every key of the store, built and parsed back here and nowhere else.
//!
//! There are two kinds of objects. **Write-once** ones have names that are never used again; only they are deleted by
//! name. **Registers** ([`super::register`]) change by create-if-absent and compare-and-swap only.
//!
//! | key | kind | what it is |
//! |---|---|---|
//! | `data/<hh>/<session>[-<attempt>]` | write-once | the bytes of a blob, opaque |
//! | `blobs/<alg>/<hh>/<hex>/_` | register | the record: these bytes are that digest |
//! | `blobs/<alg>/<hh>/<hex>/<repo>` | register | the holder: this repository holds that blob |
//! | `repos/<name>/_manifests/<alg>/<hex>` | register | a manifest and what hangs on it |
//! | `repos/<name>/_tags/<tag>` | register | the descriptor that the tag points to |
//! | `repos/<name>/_referrers/<alg>/<hex>/<alg>-<hex>` | register | one referrer of a subject |
//! | `catalog/<repo>` | register | the repository exists |
//! | `uploads/<session>/<seq>` | write-once | the journal of an open session, newest first |
//! | `uploads/<session>/!end` | register | who ended the session |
//! | `pending/<alg>/<hh>/<hex>.<id>` | write-once | a blob reference in flight |
//! | `pending/manifests/<repo>/<id>` | write-once | a manifest push in flight |
//! | `dropped/<id>` | write-once | a reference taken away: work for the collector |
//! | `fleet/session-key` | write-once | signs session ids |
//! | `doctor/…` | | what is tried out on the store; nothing that means anything |
//!
//! `<name>` is the repository name as it is; `<repo>` is the same on one level ([`flat`]). Some stores list in the order
//! of path components, some hide `p/q` while an object `p` exists, and a disk cannot have both: so no key is a
//! `/`-prefix of another, and every list that must be ordered is one level deep. `_` cannot start a name component.

use uuid::Uuid;

use super::{register::Register, session::SessionId};
use crate::{
    oci::{Algorithm, Descriptor, Digest, Repository, Tag},
    registry::{
        blob::{Holder, Record},
        manifest::StoredManifest,
        tag::{RepositoryExists, TagTarget},
        upload::journal::End,
    },
    store::Key,
};

/// What the keys of the bytes of blobs start with.
pub const DATA: &str = "data/";
/// What keys start with that are used to find out what the store can do.
pub const SCRATCH: &str = "doctor/";
pub(crate) const TAGS: &str = "_tags";
pub(crate) const MANIFESTS: &str = "_manifests";
pub(crate) const REFERRERS: &str = "_referrers";
pub(crate) const CATALOG: &str = "catalog/";
pub(crate) const BLOBS: &str = "blobs/";
pub(crate) const REPOS: &str = "repos/";
pub(crate) const UPLOADS: &str = "uploads/";
pub(crate) const PENDING_BLOBS: [&str; 2] = ["pending/sha256/", "pending/sha512/"];
pub(crate) const PENDING_MANIFESTS: &str = "pending/manifests/";
pub(crate) const DROPPED: &str = "dropped/";

/// The leaf of a record. No repository encodes to it: names start with a letter or digit.
const RECORD: &str = "_";
/// The leaf of the register that ends a session. Sorts before every sequence number.
const END: &str = "!end";
/// The length of the text of a session's or any other id.
const ID_LENGTH: usize = uuid::fmt::Hyphenated::LENGTH;

/// Where the bytes of a session's upload lie; `attempt` where the bytes come in one request and are put whole.
pub(crate) fn data(session: SessionId, attempt: Option<Uuid>) -> Key {
    let shard = session.shard();
    match attempt {
        None => key(format!("{DATA}{shard:02x}/{session}")),
        Some(attempt) => key(format!("{DATA}{shard:02x}/{session}-{attempt}")),
    }
}

/// Whether these are the bytes of one attempt, which nobody but that attempt can ever publish.
pub(crate) fn is_attempt(data: &Key) -> bool {
    data.as_str().rsplit('/').next().is_some_and(|leaf| leaf.len() > ID_LENGTH)
}

pub(crate) fn record(digest: &Digest) -> Register<Record> {
    Register::at(key(format!("{}{RECORD}", holders(digest))))
}

pub(crate) fn holder(digest: &Digest, repository: &Repository) -> Register<Holder> {
    Register::at(key(format!("{}{}", holders(digest), flat(repository))))
}

/// The prefix of a blob's record and holders.
pub(crate) fn holders(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("{BLOBS}{}/{}/{hex}/", digest.algorithm(), shard_of(&hex))
}

pub(crate) fn manifest(repository: &Repository, digest: &Digest) -> Register<StoredManifest> {
    Register::at(key(format!("{REPOS}{repository}/{MANIFESTS}/{}/{}", digest.algorithm(), digest.hex())))
}

pub(crate) fn tag(repository: &Repository, tag: &Tag) -> Register<TagTarget> {
    Register::at(key(format!("{}{tag}", tags(repository))))
}

/// The prefix of a repository's tags.
pub(crate) fn tags(repository: &Repository) -> String {
    format!("{REPOS}{repository}/{TAGS}/")
}

pub(crate) fn referrer(repository: &Repository, subject: &Digest, referrer: &Digest) -> Register<Descriptor> {
    let leaf = format!("{}-{}", referrer.algorithm(), referrer.hex());
    Register::at(key(format!("{}{leaf}", referrers(repository, subject))))
}

/// The prefix of a subject's referrers.
pub(crate) fn referrers(repository: &Repository, subject: &Digest) -> String {
    format!("{REPOS}{repository}/{REFERRERS}/{}/{}/", subject.algorithm(), subject.hex())
}

pub(crate) fn catalog(repository: &Repository) -> Register<RepositoryExists> {
    Register::at(key(format!("{CATALOG}{}", flat(repository))))
}

/// The prefix of a session's journal and end.
pub(crate) fn session(session: SessionId) -> String {
    format!("{UPLOADS}{session}/")
}

/// Record `seq` of a journal. Counted down in the name, so that a list begins with the newest.
pub(crate) fn journal(id: SessionId, seq: u64) -> Key {
    key(format!("{}{:020}", session(id), u64::MAX - seq))
}

pub(crate) fn end(id: SessionId) -> Register<End> {
    Register::at(key(format!("{}{END}", session(id))))
}

pub(crate) fn pending_blob(digest: &Digest, id: Uuid) -> Key {
    key(format!("{}{id}", pending_blobs(digest)))
}

/// The prefix of a blob's references in flight.
pub(crate) fn pending_blobs(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("pending/{}/{}/{hex}.", digest.algorithm(), shard_of(&hex))
}

pub(crate) fn pending_manifest(repository: &Repository, id: Uuid) -> Key {
    key(format!("{}{id}", pending_manifests(repository)))
}

/// The prefix of a repository's manifest pushes in flight.
pub(crate) fn pending_manifests(repository: &Repository) -> String {
    format!("{PENDING_MANIFESTS}{}/", flat(repository))
}

pub(crate) fn dropped(id: Uuid) -> Key {
    key(format!("{DROPPED}{id}"))
}

pub(crate) fn session_key() -> Key {
    key("fleet/session-key".to_owned())
}

/// What a key names, parsed back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Data,
    Record(Digest),
    Holder(Digest, Repository),
    Manifest(Repository, Digest),
    Tag(Repository, Tag),
    Referrer { repository: Repository, subject: Digest, referrer: Digest },
    Catalog(Repository),
    Journal(SessionId, u64),
    End(SessionId),
    PendingBlob(Digest),
    PendingManifest(Repository),
    Dropped,
    SessionKey,
    Scratch,
}

/// Parses a key back; `None` for one that this registry never writes.
pub(crate) fn parse(key: &Key) -> Option<Named> {
    let segments: Vec<&str> = key.as_str().split('/').collect();
    match *segments.as_slice() {
        ["data", _, leaf] => {
            let (session, attempt) = leaf.split_at_checked(ID_LENGTH)?;
            let attempt = if attempt.is_empty() { None } else { Some(id(attempt.strip_prefix('-')?)?) };
            (data(SessionId::parse(session)?, attempt) == *key).then_some(Named::Data)
        }
        ["blobs", algorithm, _, hex, leaf] => {
            let digest = digest(algorithm, hex)?;
            let named = if leaf == RECORD { Named::Record(digest) } else { Named::Holder(digest, unflat(leaf)?) };
            key.as_str().starts_with(&holders(&digest)).then_some(named)
        }
        ["repos", ref name @ .., TAGS, tag] => Some(Named::Tag(repository(name)?, Tag::parse(tag)?)),
        ["repos", ref name @ .., MANIFESTS, algorithm, hex] => {
            Some(Named::Manifest(repository(name)?, digest(algorithm, hex)?))
        }
        ["repos", ref name @ .., REFERRERS, algorithm, hex, leaf] => {
            let (of, referrer) = leaf.split_once('-')?;
            Some(Named::Referrer {
                repository: repository(name)?,
                subject: digest(algorithm, hex)?,
                referrer: digest(of, referrer)?,
            })
        }
        ["catalog", repo] => Some(Named::Catalog(unflat(repo)?)),
        ["uploads", session, END] => Some(Named::End(SessionId::parse(session)?)),
        ["uploads", session, seq] => {
            let (session, seq) = (SessionId::parse(session)?, u64::MAX - seq.parse::<u64>().ok()?);
            (journal(session, seq) == *key).then_some(Named::Journal(session, seq))
        }
        ["pending", "manifests", repo, leaf] => id(leaf).and(Some(Named::PendingManifest(unflat(repo)?))),
        ["pending", algorithm, _, leaf] => {
            let (hex, leaf) = leaf.split_once('.')?;
            let digest = digest(algorithm, hex)?;
            (pending_blob(&digest, id(leaf)?) == *key).then_some(Named::PendingBlob(digest))
        }
        ["dropped", leaf] => id(leaf).and(Some(Named::Dropped)),
        ["fleet", "session-key"] => Some(Named::SessionKey),
        ["doctor", _, ..] => Some(Named::Scratch),
        _ => None,
    }
}

/// A repository name on one level. Reversible, and the byte order of the results is the order of the names.
pub(crate) fn flat(repository: &Repository) -> String {
    repository.as_str().chars().map(|c| FLAT.iter().find(|(from, _)| *from == c).map_or(c, |(_, to)| *to)).collect()
}

fn unflat(text: &str) -> Option<Repository> {
    let name: String =
        text.chars().map(|c| FLAT.iter().find(|(_, to)| *to == c).map_or(c, |(from, _)| *from)).collect();
    Repository::parse(&name).ok()
}

const FLAT: [(char, char); 3] = [('-', '!'), ('.', '-'), ('/', '.')];

fn shard_of(hex: &str) -> &str {
    hex.get(..2).unwrap_or(hex)
}

fn digest(algorithm: &str, hex: &str) -> Option<Digest> {
    Algorithm::parse(algorithm)?;
    Digest::parse(&format!("{algorithm}:{hex}")).ok()
}

/// An id in the one spelling that is written.
fn id(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok().filter(|id| id.hyphenated().to_string() == text)
}

fn repository(segments: &[&str]) -> Option<Repository> {
    Repository::parse(&segments.join("/")).ok()
}

#[expect(
    clippy::expect_used,
    reason = "built from parsed names, whose grammars are narrower than a key's; see the tests"
)]
fn key(text: String) -> Key {
    Key::parse(text).expect("a key built from parsed names is a key")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::registry::nonce::fresh_id;

    fn digests() -> impl Strategy<Value = Digest> {
        (any::<[u8; 8]>(), prop_oneof![Just(Algorithm::Sha256), Just(Algorithm::Sha512)])
            .prop_map(|(bytes, algorithm)| Digest::of(algorithm, &bytes))
    }

    fn repositories() -> impl Strategy<Value = Repository> {
        "[a-z0-9]{1,3}((__?|\\.|-{1,2}|/)[a-z0-9]{1,3}){0,4}".prop_map(|name| Repository::parse(&name).unwrap())
    }

    proptest! {
        #[test]
        fn every_key_parses_back_to_what_it_was_built_from(
            (one, other) in (digests(), digests()),
            name in repositories(),
            tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}",
            seq: u64,
        ) {
            let (session, tag) = (SessionId::parse(&fresh_id().to_string()).unwrap(), Tag::parse(&tag).unwrap());
            let entry = Named::Referrer { repository: name.clone(), subject: one, referrer: other };
            for (key, named) in [
                (data(session, None), Named::Data),
                (data(session, Some(fresh_id())), Named::Data),
                (record(&one).key().clone(), Named::Record(one)),
                (holder(&one, &name).key().clone(), Named::Holder(one, name.clone())),
                (manifest(&name, &one).key().clone(), Named::Manifest(name.clone(), one)),
                (super::tag(&name, &tag).key().clone(), Named::Tag(name.clone(), tag)),
                (referrer(&name, &one, &other).key().clone(), entry),
                (catalog(&name).key().clone(), Named::Catalog(name.clone())),
                (journal(session, seq), Named::Journal(session, seq)),
                (end(session).key().clone(), Named::End(session)),
                (pending_blob(&one, fresh_id()), Named::PendingBlob(one)),
                (pending_manifest(&name, fresh_id()), Named::PendingManifest(name)),
                (dropped(fresh_id()), Named::Dropped),
                (session_key(), Named::SessionKey),
                (key(format!("{SCRATCH}{session}/a-b")), Named::Scratch),
            ] {
                prop_assert_eq!(parse(&key), Some(named), "{}", key);
            }
        }

        #[test]
        fn names_on_one_level_keep_their_order(one in repositories(), other in repositories()) {
            prop_assert_eq!(flat(&one).cmp(&flat(&other)), one.cmp(&other));
        }
    }

    #[test]
    fn a_key_in_another_spelling_than_ours_does_not_parse() {
        let (session, other, digest) =
            (SessionId::parse(&fresh_id().to_string()).unwrap(), fresh_id(), Digest::of(Algorithm::Sha256, b""));
        let (shard, hex) = (session.shard(), digest.hex());
        for bad in [
            format!("data/{:02x}/{session}", shard ^ 1),
            format!("data/{shard:02x}/{session}-"),
            format!("data/{shard:02x}/{session}{other}"),
            format!("data/{shard:02x}/{session}-{}", other.simple()),
            format!("data/{shard:02x}/x"),
            format!("blobs/sha256/00/{hex}/_"),
            format!("blobs/sha256/00/{hex}/a"),
            format!("blobs/sha256/e3/{}/_", hex.to_uppercase()),
            format!("blobs/md5/e3/{hex}/_"),
            format!("blobs/sha256/e3/{hex}/_a"),
            format!("uploads/{session}/1"),
            format!("uploads/{session}/{:021}", 1),
            format!("pending/sha256/00/{hex}.{other}"),
            format!("pending/sha256/e3/{hex}.x"),
            "pending/manifests/a/x".to_owned(),
            "dropped/x".to_owned(),
            format!("dropped/{}", other.simple()),
            "repos/_tags/x".to_owned(),
            "repos/A/_tags/x".to_owned(),
            "fleet/other".to_owned(),
        ] {
            let key = Key::parse(bad).unwrap();
            assert_eq!(parse(&key), None, "{key}");
        }
    }
}
