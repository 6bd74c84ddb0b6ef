//! Drawing what is asked.

use proptest::{option, prelude::*, sample::select, strategy::Union};

use super::{
    ask::{Ask, Chunk, Condition, Finish, Name, Page, Range, Sent, Target, Unless},
    content::{BLOBS, REPOSITORIES, SAMPLES, TAGS},
};

/// Mostly the first, now and then another, rarely the one that is none.
fn repository() -> impl Strategy<Value = usize> {
    prop_oneof![30 => Just(0_usize), 5 => Just(1), 2 => 2..4_usize, 1 => Just(4)]
}

fn name() -> impl Strategy<Value = Name> {
    prop_oneof![
        12 => (0..BLOBS.len()).prop_map(Name::Blob),
        4 => (0..BLOBS.len()).prop_map(Name::Long),
        1 => select(vec![Name::Nowhere, Name::Unsupported, Name::Malformed]),
    ]
}

fn of_manifest() -> impl Strategy<Value = Name> {
    prop_oneof![
        12 => (0..SAMPLES.len()).prop_map(Name::Manifest),
        1 => select(vec![Name::Nowhere, Name::Unsupported, Name::Malformed]),
    ]
}

fn target() -> impl Strategy<Value = Target> {
    let tag = prop_oneof![8 => 0..3_usize, 1 => Just(3_usize)];
    prop_oneof![tag.prop_map(Target::Tag), of_manifest().prop_map(Target::Digest)]
}

fn unless() -> impl Strategy<Value = Option<Unless>> {
    let digest = prop_oneof![of_manifest(), name()];
    option::weighted(0.2, prop_oneof![Just(Unless::Any), digest.prop_map(Unless::Is)])
}

fn chunk() -> impl Strategy<Value = Chunk> {
    let range = prop_oneof![
        6 => Just(Range::None),
        6 => Just(Range::At(0, 0)),
        1 => (-6..6_i64).prop_map(|beside| Range::At(beside, 0)),
        1 => Just(Range::At(0, 1)),
        1 => Just(Range::Malformed),
    ];
    let body = prop_oneof![6 => Just(Sent::Whole), 2 => Just(Sent::WithoutLength), 2 => Just(Sent::Torn)];
    (0..BLOBS.len(), range, body).prop_map(|(blob, range, body)| Chunk { blob, range, body })
}

fn page(last: impl Strategy<Value = String>) -> impl Strategy<Value = Page> {
    let n = option::weighted(0.7, select(vec!["", "0", "1", "2", "3", "18446744073709551616", "-1"]));
    (n, option::weighted(0.4, last)).prop_map(|(n, last)| Page { n, last })
}

fn ranges() -> impl Strategy<Value = String> {
    let one = prop_oneof![
        (0..26_u64, 0..26_u64).prop_map(|(from, to)| format!("{from}-{to}")),
        (0..26_u64).prop_map(|from| format!("{from}-")),
        (0..26_u64).prop_map(|last| format!("-{last}")),
    ];
    prop_oneof![
        9 => proptest::collection::vec(one, 1..4).prop_map(|runs| format!("bytes={}", runs.join(","))),
        1 => select(vec!["bytes=x".to_owned(), "lines=0-1".to_owned(), "bytes=".to_owned()]),
    ]
}

/// All about one upload, of which chunks come torn, beside where it stands and through either replica: it takes several in a
/// row to get an upload wrong.
pub(crate) fn upload() -> impl Strategy<Value = Vec<(usize, Ask)>> {
    let start = select(vec![None, Some("sha512")]).prop_map(|hint| Ask::Start {
        repository: 0,
        mount: None,
        whole: None,
        hint,
    });
    let step = prop_oneof![
        12 => chunk().prop_map(|chunk| Ask::Append { session: 0, chunk }),
        1 => any::<bool>().prop_map(|head| Ask::Stands { session: 0, head }),
        4 => (finishes(), chunk()).prop_map(|(digest, chunk)| Ask::Close { session: 0, digest, chunk }),
        1 => Just(Ask::Cancel { session: 0 }),
        1 => name().prop_map(|digest| Ask::DeleteBlob { repository: 0, digest }),
    ];
    let steps = proptest::collection::vec((0..2_usize, step), 1..20);
    (0..2_usize, start, steps).prop_map(|(replica, start, steps)| [vec![(replica, start)], steps].concat())
}

#[expect(clippy::too_many_lines, reason = "a few lines for each kind of request")]
pub(crate) fn asks() -> impl Strategy<Value = Ask> {
    let session = || 0..3_usize;
    let of_a_manifest =
        prop_oneof![Just(Condition::Absent), of_manifest().prop_map(Condition::Is), Just(Condition::Malformed)];
    let mount = || option::of((name(), option::of(repository())));
    let start = (
        repository(),
        option::weighted(0.2, (name(), 0..BLOBS.len())),
        option::weighted(0.2, select(vec!["sha256", "sha512", "md5"])),
    );
    let last = || select(REPOSITORIES.iter().chain(&TAGS).map(|it| (*it).to_owned()).collect::<Vec<_>>());
    let types = select(vec!["x/signature", "x/listing+json", "a/config"]);
    Union::new_weighted(vec![
        (3, start.prop_map(|(repository, whole, hint)| Ask::Start { repository, mount: None, whole, hint }).boxed()),
        (
            2,
            (repository(), mount())
                .prop_map(|(repository, mount)| Ask::Start { repository, mount, whole: None, hint: None })
                .boxed(),
        ),
        (
            6,
            (repository(), 0..BLOBS.len())
                .prop_map(|(repository, blob)| Ask::Start {
                    repository,
                    mount: None,
                    whole: Some((Name::Blob(blob), blob)),
                    hint: None,
                })
                .boxed(),
        ),
        (6, (session(), chunk()).prop_map(|(session, chunk)| Ask::Append { session, chunk }).boxed()),
        (2, (session(), any::<bool>()).prop_map(|(session, head)| Ask::Stands { session, head }).boxed()),
        (
            4,
            (session(), finishes(), chunk())
                .prop_map(|(session, digest, chunk)| Ask::Close { session, digest, chunk })
                .boxed(),
        ),
        (1, session().prop_map(|session| Ask::Cancel { session }).boxed()),
        (
            5,
            (repository(), name(), any::<bool>(), option::of(ranges()), unless(), option::weighted(0.2, name()))
                .prop_map(|(repository, digest, head, range, unless, if_range)| Ask::Blob {
                    repository,
                    digest,
                    head,
                    range,
                    unless,
                    if_range,
                })
                .boxed(),
        ),
        (2, (repository(), name()).prop_map(|(repository, digest)| Ask::DeleteBlob { repository, digest }).boxed()),
        (
            6,
            (
                repository(),
                0..SAMPLES.len(),
                target(),
                proptest::collection::vec(0..3_usize, 0..3),
                option::weighted(0.3, of_a_manifest),
            )
                .prop_map(|(repository, manifest, target, tags, condition)| Ask::Push {
                    repository,
                    manifest,
                    target,
                    tags,
                    condition,
                })
                .boxed(),
        ),
        (
            6,
            (repository(), 0..SAMPLES.len(), proptest::collection::vec(0..4_usize, 0..3))
                .prop_map(|(repository, manifest, tags)| Ask::Push {
                    repository,
                    manifest,
                    target: Target::Digest(Name::Manifest(manifest)),
                    tags,
                    condition: None,
                })
                .boxed(),
        ),
        (
            4,
            (repository(), target(), any::<bool>(), unless())
                .prop_map(|(repository, target, head, unless)| Ask::Manifest { repository, target, head, unless })
                .boxed(),
        ),
        (2, (repository(), target()).prop_map(|(repository, target)| Ask::Delete { repository, target }).boxed()),
        (2, (repository(), page(last())).prop_map(|(repository, page)| Ask::Tags { repository, page }).boxed()),
        (1, page(last()).prop_map(|page| Ask::Catalog { page }).boxed()),
        (
            3,
            (
                repository(),
                of_manifest(),
                proptest::collection::vec(types, 0..3),
                page(of_manifest().prop_map(Name::text)),
            )
                .prop_map(|(repository, subject, types, page)| Ask::Referrers { repository, subject, types, page })
                .boxed(),
        ),
    ])
}

fn finishes() -> impl Strategy<Value = Finish> {
    prop_oneof![
        6 => Just(Finish::Right),
        2 => Just(Finish::RightLong),
        2 => name().prop_map(Finish::Other),
        1 => Just(Finish::Unnamed),
    ]
}
