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
        let change = nonce::latest_first_id(seq % (1 << 48));
        let entry = Named::Referrer { repository: name.clone(), subject: one, referrer: other };
        for (key, named) in [
            (data(session, None), Named::Data),
            (data(session, Some(fresh_id())), Named::Data),
            (record(&one).key().clone(), Named::Record(one)),
            (holder(&one, &name).key().clone(), Named::Holder(one, name.clone())),
            (manifest(&name, &one).key().clone(), Named::Manifest(name.clone(), one)),
            (super::tag(&name, &tag).key().clone(), Named::Tag(name.clone(), tag.clone())),
            (history(&name, &tag, change), Named::History(name.clone(), tag, change)),
            (referrer(&name, &one, &other).key().clone(), entry),
            (catalog(&name).key().clone(), Named::Catalog(name.clone())),
            (journal(session, seq), Named::Journal(session, seq)),
            (end(session).key().clone(), Named::End(session)),
            (pending_blob(&one, fresh_id()), Named::PendingBlob(one)),
            (pending_manifest(&name, fresh_id()), Named::PendingManifest(name.clone())),
            (dropped(&name, fresh_id()), Named::Dropped(name.clone())),
            (condemned(&name, fresh_id()), Named::Condemned(name)),
            (unheld(fresh_id()), Named::Unheld),
            (bytes(fresh_id()), Named::Bytes),
            (tombstones(fresh_id()), Named::Tombstones),
            (lease().key().clone(), Named::Lease),
            (retention_lease().key().clone(), Named::Lease),
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
        format!("dropped/{other}"),
        "dropped/a/x".to_owned(),
        format!("dropped/a/{}", other.simple()),
        "gc/unheld/x".to_owned(),
        format!("gc/condemned/{other}"),
        "repos/_tags/x".to_owned(),
        "repos/A/_tags/x".to_owned(),
        "fleet/other".to_owned(),
    ] {
        let key = Key::parse(bad).unwrap();
        assert_eq!(parse(&key), None, "{key}");
    }
}
