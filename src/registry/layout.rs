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
//! | `dropped/<repo>/<id>` | write-once | a reference taken away: work for the collector |
//! | `history/<day>.<repo>/<tag>!<id>` | write-once | a change of a tag, the latest of a day first |
//! | `gc/condemned/<repo>/<id>` | write-once | holders that the collector has condemned |
//! | `gc/unheld/<id>` | write-once | blobs that perhaps no repository holds any more |
//! | `gc/bytes/<id>` | write-once | bytes about to be deleted |
//! | `gc/tombstones/<id>` | write-once | tombstones, to be removed when nobody can mean them any more |
//! | `gc/lease`, `gc/retention` | register | who collects, who retains; saves work, and decides nothing |
//! | `fleet/session-key` | write-once | signs session ids |
//! | `doctor/…` | | what is tried out on the store; nothing that means anything |
//!
//! `<name>` is the repository name as it is; `<repo>` is the same on one level ([`flat`]). Some stores list in the order
//! of path components, some hide `p/q` while an object `p` exists, and a disk cannot have both: so no key is a
//! `/`-prefix of another, and every list that must be ordered is one level deep. `_` cannot start a name component.
//!
//! The ids of references in flight and of the collector's entries begin with the time at which they are due, so that a
//! list tells what there is to be done ([`due`]). Days are counted from the epoch, so that the oldest changes of all tags
//! are listed first.

use uuid::Uuid;

use super::{gc::Lease, nonce, register::Register, session::SessionId};
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
pub(crate) const HISTORY: &str = "history/";
pub(crate) const CONDEMNED: &str = "gc/condemned/";
pub(crate) const UNHELD: &str = "gc/unheld/";
pub(crate) const BYTES: &str = "gc/bytes/";
pub(crate) const TOMBSTONES: &str = "gc/tombstones/";

/// The leaf of a record. No repository encodes to it: names start with a letter or digit.
const RECORD: &str = "_";
/// The leaf of the register that ends a session. Sorts before every sequence number.
const END: &str = "!end";
/// Between a tag and what is its own. It is in no tag, and sorts before all that is.
const OF_TAG: char = '!';
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

/// The session that these bytes belong to; `None`: they are those of one attempt, which alone can ever publish them.
pub(crate) fn session_of(data: &Key) -> Option<SessionId> {
    data.as_str().rsplit('/').next().and_then(SessionId::parse)
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
    Register::at(key(format!("{}{}/{}", manifests(repository), digest.algorithm(), digest.hex())))
}

/// The prefix of a repository's manifests.
pub(crate) fn manifests(repository: &Repository) -> String {
    format!("{REPOS}{repository}/{MANIFESTS}/")
}

pub(crate) fn tag(repository: &Repository, tag: &Tag) -> Register<TagTarget> {
    Register::at(key(format!("{}{tag}", tags(repository))))
}

/// The prefix of a repository's tags.
pub(crate) fn tags(repository: &Repository) -> String {
    format!("{REPOS}{repository}/{TAGS}/")
}

/// The key behind which are the tags that sort after `last`, whatever that is. `None`: all do.
pub(crate) fn tags_up_to(repository: &Repository, last: &str) -> Option<Key> {
    Key::parse(tags(repository) + &Tag::up_to(last))
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

/// The key behind which are the repositories that sort after `last`, whatever that is. `None`: all do.
pub(crate) fn catalog_up_to(last: &str) -> Option<Key> {
    Key::parse(format!("{CATALOG}{}", flatten(&Repository::up_to(last))))
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

pub(crate) fn dropped(repository: &Repository, id: Uuid) -> Key {
    key(format!("{}{id}", dropped_of(repository)))
}

/// The prefix of what was taken away in a repository.
pub(crate) fn dropped_of(repository: &Repository) -> String {
    format!("{DROPPED}{}/", flat(repository))
}

pub(crate) fn history(repository: &Repository, tag: &Tag, id: Uuid) -> Key {
    key(format!("{}{id}", history_of(repository, tag, day(nonce::milliseconds_of(id)))))
}

/// The prefix of a tag's changes on one day.
pub(crate) fn history_of(repository: &Repository, tag: &Tag, day: u64) -> String {
    format!("{HISTORY}{day:07}.{}/{tag}{OF_TAG}", flat(repository))
}

/// The day of a time, counted from the epoch.
pub(crate) fn day(milliseconds: u64) -> u64 {
    milliseconds / (24 * 60 * 60 * 1000)
}

pub(crate) fn condemned(repository: &Repository, id: Uuid) -> Key {
    key(format!("{}{id}", condemned_of(repository)))
}

/// The prefix of what was condemned in a repository.
pub(crate) fn condemned_of(repository: &Repository) -> String {
    format!("{CONDEMNED}{}/", flat(repository))
}

pub(crate) fn unheld(id: Uuid) -> Key {
    key(format!("{UNHELD}{id}"))
}

pub(crate) fn bytes(id: Uuid) -> Key {
    key(format!("{BYTES}{id}"))
}

pub(crate) fn tombstones(id: Uuid) -> Key {
    key(format!("{TOMBSTONES}{id}"))
}

pub(crate) fn lease() -> Register<Lease> {
    Register::at(key("gc/lease".to_owned()))
}

pub(crate) fn retention_lease() -> Register<Lease> {
    Register::at(key("gc/retention".to_owned()))
}

/// When a reference in flight expires, or an entry is to be worked on; in seconds since the epoch.
pub(crate) fn due(key: &Key) -> u64 {
    let id = key.as_str().split_at_checked(key.as_str().len().saturating_sub(ID_LENGTH)).map(|(_, id)| id);
    id.and_then(self::id).map_or(0, nonce::time_of)
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
    Dropped(Repository),
    History(Repository, Tag, Uuid),
    Condemned(Repository),
    Unheld,
    Bytes,
    Tombstones,
    Lease,
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
        ["dropped", repo, leaf] => id(leaf).and(Some(Named::Dropped(unflat(repo)?))),
        ["history", folder, leaf] => {
            let ((_, repo), (tag, leaf)) = (folder.split_once('.')?, leaf.split_once(OF_TAG)?);
            let (repository, tag, id) = (unflat(repo)?, Tag::parse(tag)?, id(leaf)?);
            (history(&repository, &tag, id) == *key).then_some(Named::History(repository, tag, id))
        }
        ["gc", "condemned", repo, leaf] => id(leaf).and(Some(Named::Condemned(unflat(repo)?))),
        ["gc", "unheld", leaf] => id(leaf).and(Some(Named::Unheld)),
        ["gc", "bytes", leaf] => id(leaf).and(Some(Named::Bytes)),
        ["gc", "tombstones", leaf] => id(leaf).and(Some(Named::Tombstones)),
        ["gc", "lease" | "retention"] => Some(Named::Lease),
        ["fleet", "session-key"] => Some(Named::SessionKey),
        ["doctor", _, ..] => Some(Named::Scratch),
        _ => None,
    }
}

/// A repository name on one level. Reversible, and the byte order of the results is the order of the names.
pub(crate) fn flat(repository: &Repository) -> String {
    flatten(repository.as_str())
}

fn flatten(name: &str) -> String {
    name.chars().map(|c| FLAT.iter().find(|(from, _)| *from == c).map_or(c, |(_, to)| *to)).collect()
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
mod tests;
