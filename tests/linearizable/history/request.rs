//! What a client may ask, and what it may be answered.

use super::{
    content::{CHUNKS, MANIFESTS, Need, TAGS},
    random::Random,
};

pub(crate) const REPOSITORIES: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Absent,
    Is(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Push {
        manifest: usize,
        tag: usize,
        condition: Option<Condition>,
    },
    /// By digest, and with it the tags that are set in this number.
    PushByDigest {
        manifest: usize,
        tags: usize,
    },
    DeleteManifest(usize),
    DeleteTag(usize),
    Pull(usize),
    PullTag(usize),
    HeadTag(usize),
    ListTags,
    ListReferrers,
    Upload {
        repository: usize,
        blob: usize,
    },
    Stat {
        repository: usize,
        blob: usize,
    },
    DeleteBlob {
        repository: usize,
        blob: usize,
    },
    /// From the first repository into the second.
    Mount(usize),
    Append(usize),
    Status,
    Finish(usize),
    Cancel,
    /// Shuts out every push under way, and completes those that died.
    Expire,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Absent,
    /// The condition does not hold.
    Refused,
    Missing(Vec<Need>),
    Manifest(usize),
    /// The entries that are set in this number.
    Listed(usize),
    Received(u64),
    OutOfOrder(u64),
    WrongDigest,
    /// The store failed, or others were faster for too long: it has happened, or has not, or will.
    Unclear,
}

/// What the clients of one history are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Theme {
    Tags,
    Referrers,
    Blobs,
    Session,
    All,
}

impl Theme {
    pub(crate) const ALL: [Self; 5] = [Self::Tags, Self::Referrers, Self::Blobs, Self::Session, Self::All];
}

/// What is done before a history begins, one after the other.
pub(crate) fn prepared(random: &mut Random) -> Vec<Request> {
    let mut prepared = Vec::new();
    if random.chance(80) {
        let upload = |blob| Request::Upload { repository: 0, blob };
        prepared.extend([upload(0), upload(1)]);
        if random.chance(50) {
            let condition = None;
            prepared.push(Request::Push { manifest: 0, tag: 0, condition });
            prepared.push(Request::Push { manifest: 2, tag: 1, condition });
        }
    }
    prepared
}

pub(crate) fn request(theme: Theme, random: &mut Random) -> Request {
    #[derive(Clone, Copy)]
    enum Kind {
        Tag,
        Manifest,
        Blob,
        Session,
    }
    let kind = match theme {
        Theme::Tags => random.pick(&[(8, Kind::Tag), (2, Kind::Manifest)]),
        Theme::Referrers => random.pick(&[(2, Kind::Tag), (8, Kind::Manifest)]),
        Theme::Blobs => random.pick(&[(8, Kind::Blob), (2, Kind::Manifest)]),
        Theme::Session => random.pick(&[(9, Kind::Session), (1, Kind::Blob)]),
        Theme::All => random.pick(&[(3, Kind::Tag), (3, Kind::Manifest), (3, Kind::Blob), (1, Kind::Session)]),
    };
    match kind {
        Kind::Tag => about_tags(random),
        Kind::Manifest => about_manifests(random),
        Kind::Blob => about_blobs(random),
        Kind::Session => about_the_session(random),
    }
}

fn about_tags(random: &mut Random) -> Request {
    let (tag, manifest) = (random.below(TAGS.len()), random.below(2));
    let condition = match random.below(3) {
        0 => None,
        1 => Some(Condition::Absent),
        _ => Some(Condition::Is(random.below(2))),
    };
    let requests = [
        (5, Request::Push { manifest, tag, condition }),
        (1, Request::PushByDigest { manifest, tags: 3 }),
        (1, Request::DeleteTag(tag)),
        (1, Request::DeleteManifest(manifest)),
        (2, Request::PullTag(tag)),
        (1, Request::HeadTag(tag)),
        (1, Request::ListTags),
    ];
    random.pick(&requests)
}

fn about_manifests(random: &mut Random) -> Request {
    let manifest = random.below(MANIFESTS);
    let requests = [
        (3, Request::PushByDigest { manifest, tags: random.below(4) }),
        (2, Request::Push { manifest, tag: random.below(TAGS.len()), condition: None }),
        (3, Request::DeleteManifest(manifest)),
        (2, Request::Pull(manifest)),
        (2, Request::ListReferrers),
        (1, Request::Expire),
    ];
    random.pick(&requests)
}

fn about_blobs(random: &mut Random) -> Request {
    let (repository, blob) = (random.below(REPOSITORIES), random.below(2));
    let requests = [
        (3, Request::Upload { repository, blob }),
        (3, Request::DeleteBlob { repository, blob }),
        (2, Request::Mount(blob)),
        (2, Request::Stat { repository, blob }),
        (1, Request::Expire),
    ];
    random.pick(&requests)
}

fn about_the_session(random: &mut Random) -> Request {
    let requests = [
        (5, Request::Append(random.below(CHUNKS.len()))),
        (2, Request::Status),
        (3, Request::Finish(2 + random.below(CHUNKS.len()))),
        (1, Request::Cancel),
        (1, Request::Stat { repository: 0, blob: 2 + random.below(CHUNKS.len()) }),
        (1, Request::DeleteBlob { repository: 0, blob: 2 + random.below(CHUNKS.len()) }),
    ];
    random.pick(&requests)
}
