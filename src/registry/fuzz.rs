//! What holds of any bytes that a store may hand back: keys, registers and entries in flight.

use std::fmt::Debug;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    blob::{Holder, Record},
    gc,
    history::Change,
    layout::{self, Named},
    manifest::StoredManifest,
    pending::{Dropped, PendingBlob, PendingManifest},
    register::{LIVE_AT_LEAST, State, Value},
    tag::{RepositoryExists, TagTarget},
    upload::journal::End,
};
use crate::{
    oci::{Descriptor, fuzz::reads_back},
    store::Key,
};

/// What a key names is built again as that key; of what is named by an id alone, the folder.
pub(crate) fn key(input: &[u8]) {
    let Some(key) = Key::parse(String::from_utf8_lossy(input)) else { return };
    let Some(named) = layout::parse(&key) else { return };
    let built = match &named {
        Named::Data => layout::DATA.to_owned(),
        Named::Record(digest) => layout::record(digest).key().to_string(),
        Named::Holder(digest, repository) => layout::holder(digest, repository).key().to_string(),
        Named::Manifest(repository, digest) => layout::manifest(repository, digest).key().to_string(),
        Named::Tag(repository, tag) => layout::tag(repository, tag).key().to_string(),
        Named::Referrer { repository, subject, referrer } => {
            layout::referrer(repository, subject, referrer).key().to_string()
        }
        Named::Catalog(repository) => layout::catalog(repository).key().to_string(),
        Named::Journal(session, seq) => layout::journal(*session, *seq).to_string(),
        Named::End(session) => layout::end(*session).key().to_string(),
        Named::PendingBlob(digest) => layout::pending_blobs(digest),
        Named::PendingManifest(repository) => layout::pending_manifests(repository),
        Named::Dropped(repository) => layout::dropped_of(repository),
        Named::History(repository, tag, id) => layout::history(repository, tag, *id).to_string(),
        Named::Condemned(repository) => layout::condemned_of(repository),
        Named::Unheld => layout::UNHELD.to_owned(),
        Named::Bytes => layout::BYTES.to_owned(),
        Named::Tombstones => layout::TOMBSTONES.to_owned(),
        Named::Lease => layout::lease().key().to_string(),
        Named::SessionKey => layout::session_key().to_string(),
        Named::Scratch => layout::SCRATCH.to_owned(),
    };
    let by_id = matches!(
        named,
        Named::Data
            | Named::PendingBlob(_)
            | Named::PendingManifest(_)
            | Named::Dropped(_)
            | Named::Condemned(_)
            | Named::Unheld
            | Named::Bytes
            | Named::Tombstones
            | Named::Scratch
    );
    assert!(if by_id { key.as_str().starts_with(&built) } else { key.as_str() == built }, "{key} is built as {built}");
}

/// What is read of a register or an entry, whatever it holds, and written again reads back as the same.
pub(crate) fn register(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    written_again::<Record>(&bytes);
    written_again::<Holder>(&bytes);
    written_again::<StoredManifest>(&bytes);
    written_again::<TagTarget>(&bytes);
    written_again::<Descriptor>(&bytes);
    written_again::<RepositoryExists>(&bytes);
    written_again::<End>(&bytes);
    entry::<PendingBlob>(input);
    entry::<PendingManifest>(input);
    entry::<Dropped>(input);
    entry::<Change>(input);
    entry::<gc::Condemned>(input);
    entry::<gc::Unheld>(input);
    entry::<gc::Bytes>(input);
    entry::<gc::Tombstones>(input);
}

/// And by its size, a list tells whether it is there.
fn written_again<T: Value + PartialEq + Debug>(bytes: &Bytes) {
    let Ok((nonce, state)) = State::<T>::decode(bytes) else { return };
    let (letter, value) = match &state {
        State::Quarantined(content) => {
            assert!(bytes.ends_with(content) && content.len() as u64 >= LIVE_AT_LEAST);
            return;
        }
        State::Live(value) => ('l', Some(value)),
        State::Condemned(value) => ('c', Some(value)),
        State::Gone { by_client: false } => ('g', None),
        State::Gone { by_client: true } => ('d', None),
        State::Absent => return,
    };
    let mut again = BytesMut::from(format!("{letter}{nonce}").as_bytes());
    if let Some(value) = value {
        again.put_u8(b'\n');
        assert!(value.encode(&mut again).is_ok());
    }
    assert!(value.is_some() || again == bytes);
    assert_eq!(again.len() as u64 >= LIVE_AT_LEAST, value.is_some());
    assert_eq!(State::decode(&again.freeze()), Ok((nonce, state)));
}

fn entry<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(entry) = serde_json::from_slice::<T>(bytes) {
        reads_back(&entry);
    }
}
