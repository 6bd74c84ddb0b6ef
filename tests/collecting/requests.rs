//! Requests that are stopped before each of their calls while whole rounds go by, and then go on.

use std::{ops::AddAssign, sync::Arc, time::Duration};

use marina_distribution::{
    oci::{Algorithm, Reference},
    registry::{Error, PageRequest, Registry, Settings, Version},
};

use crate::{
    content::{Doc, chunk, digest, push, repo, tag, upload},
    world::{PAIR, World},
};

/// More than a part, so that it needs a session.
const PARTS: &str = "a session of parts";

/// What a client asks. What it needs lies in repositories `a` and `new`, and is of no use to anybody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Upload(&'static str),
    /// In two chunks.
    Session(&'static str),
    Mount,
    Image(&'static str),
    /// An index with its children, and a signature of it.
    Index,
    MoveTag,
    DeleteTag,
    DeleteImage,
    DeleteBlob,
    RestoreImage,
    RestoreTag,
}

const ALL: [Request; 14] = [
    Request::Upload("a"),
    Request::Upload("new"),
    Request::Session("a"),
    Request::Session("new"),
    Request::Mount,
    Request::Image("a"),
    Request::Image("new"),
    Request::Index,
    Request::MoveTag,
    Request::DeleteTag,
    Request::DeleteImage,
    Request::DeleteBlob,
    Request::RestoreImage,
    Request::RestoreTag,
];

/// How far the collector has come with what the request needs when it begins.
#[derive(Clone, Copy, Debug)]
enum Age {
    /// It was just pushed.
    Young,
    /// The next round condemns it.
    Old,
    /// It is condemned, and rests.
    Resting,
    /// The next round takes it.
    Rested,
}

/// What goes by while the request is stopped.
#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    /// One round, at once.
    Round,
    /// As many as it takes to condemn and take whatever nobody needs, within the life of a tombstone.
    Rounds,
    /// More, until the tombstones are gone as well, and the marks of sessions. That takes longer than any call and any
    /// publisher: it never goes on.
    Days,
    /// A walk, and the round after it.
    Walk,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    trials: u64,
    done: u64,
    /// Or never answered.
    refused: u64,
}

impl Request {
    async fn prepare(self, world: &World) {
        for blob in ["orphan", PARTS] {
            upload(&world.sound, "a", blob).await.unwrap();
        }
        match self {
            Self::Upload(_) | Self::Session(_) | Self::Mount | Self::DeleteBlob => {}
            Self::Image(name) => upload(&world.sound, name, "orphan").await.unwrap(),
            Self::Index => {
                for blob in PAIR.into_iter().chain(["sig"]) {
                    upload(&world.sound, "new", blob).await.unwrap();
                }
            }
            Self::MoveTag | Self::DeleteTag | Self::DeleteImage | Self::RestoreImage | Self::RestoreTag => {
                for (name, blob) in [(Some("x"), "one"), (None, "two")] {
                    upload(&world.sound, "new", blob).await.unwrap();
                    push(&world.sound, "new", name, Doc::Image(blob)).await.unwrap();
                }
            }
        }
        match self {
            Self::RestoreImage => {
                world.sound.delete_manifest(&repo("new"), &Doc::Image("one").digest()).await.unwrap();
            }
            Self::RestoreTag => world.sound.delete_tag(&repo("new"), &tag("x")).await.unwrap(),
            _ => {}
        }
        world.sound.settle().await;
    }

    /// `false`: politely refused.
    async fn run(self, registry: Arc<Registry>) -> Result<bool, Error> {
        let (new, one) = (repo("new"), Doc::Image("one"));
        match self {
            Self::Upload(name) => upload(&registry, name, "orphan").await?,
            Self::Session(name) => {
                let id = registry.start_upload(&repo(name), Algorithm::Sha256);
                let (first, last) = PARTS.split_at(12);
                registry.append(&repo(name), id, chunk(first)).await?;
                registry.finish(&repo(name), id, &digest(PARTS), chunk(last)).await?;
            }
            Self::Mount => return registry.mount(&new, &digest("orphan"), Some(&repo("a"))).await,
            Self::Image(name) => push(&registry, name, Some("x"), Doc::Image("orphan")).await?,
            Self::Index => {
                for blob in PAIR {
                    push(&registry, "new", None, Doc::Image(blob)).await?;
                }
                push(&registry, "new", Some("x"), Doc::Index(PAIR)).await?;
                push(&registry, "new", None, Doc::Signature(PAIR, "sig")).await?;
            }
            Self::MoveTag => push(&registry, "new", Some("x"), Doc::Image("two")).await?,
            Self::DeleteTag => registry.delete_tag(&new, &tag("x")).await?,
            Self::DeleteImage => registry.delete_manifest(&new, &one.digest()).await?,
            Self::DeleteBlob => registry.delete_blob(&repo("a"), &digest("orphan")).await?,
            Self::RestoreImage => drop(registry.restore_manifest(&new, &one.digest()).await?),
            Self::RestoreTag => drop(registry.restore_tag(&new, &tag("x"), Version::Before).await?),
        }
        Ok(true)
    }

    /// An answer that a client can do something with.
    fn may_fail_with(self, error: &Error) -> bool {
        matches!(
            (self, error),
            (_, Error::Busy)
                | (Self::Image(_) | Self::Index, Error::ManifestBlobUnknown(_))
                | (Self::Session(_), Error::UploadUnknown)
                | (Self::DeleteBlob, Error::BlobUnknown(_))
                | (Self::RestoreImage | Self::RestoreTag, Error::NotRestorable(_))
        )
    }

    /// What holds once it was answered.
    async fn holds(self, world: &World) -> Result<(), String> {
        let x = || Reference::Tag(tag("x"));
        match self {
            Self::Upload(name) => world.reads(name, "orphan").await,
            Self::Session(name) => world.reads(name, PARTS).await,
            Self::Mount => world.reads("new", "orphan").await,
            Self::Image(name) => world.serves(name, x(), Doc::Image("orphan")).await,
            Self::Index => {
                world.serves("new", x(), Doc::Index(PAIR)).await?;
                for doc in [Doc::Image("one"), Doc::Image("two"), Doc::Signature(PAIR, "sig")] {
                    world.serves("new", Reference::Digest(doc.digest()), doc).await?;
                }
                let page = PageRequest::default();
                let referrers = world.sound.referrers(&repo("new"), &Doc::Index(PAIR).digest(), &[], &page).await;
                let count = referrers.map_err(|error| format!("{error:?}"))?.items.len();
                if count == 1 { Ok(()) } else { Err(format!("{count} referrers")) }
            }
            Self::MoveTag => world.serves("new", x(), Doc::Image("two")).await,
            // Its tag as well, if it was still known that it had one.
            Self::RestoreImage => {
                let one = Doc::Image("one");
                world.serves("new", Reference::Digest(one.digest()), one).await
            }
            Self::RestoreTag => world.serves("new", x(), Doc::Image("one")).await,
            Self::DeleteTag | Self::DeleteImage => match world.sound.manifest(&repo("new"), &x()).await {
                Err(Error::ManifestUnknown) => Ok(()),
                found => Err(format!("{found:?}")),
            },
            Self::DeleteBlob => match world.reads("a", "orphan").await {
                Err(_) => Ok(()),
                Ok(()) => Err("the blob is still there".into()),
            },
        }
    }

    /// Nobody needs what it brought unless a manifest names it.
    fn is_for_ever(self) -> bool {
        !matches!(self, Self::Upload(_) | Self::Session(_) | Self::Mount)
    }
}

/// Where one and the other meet.
const CASES: [(Age, Meanwhile); 9] = [
    (Age::Young, Meanwhile::Rounds),
    (Age::Young, Meanwhile::Days),
    (Age::Young, Meanwhile::Walk),
    (Age::Old, Meanwhile::Round),
    (Age::Resting, Meanwhile::Rounds),
    (Age::Resting, Meanwhile::Days),
    (Age::Rested, Meanwhile::Round),
    (Age::Rested, Meanwhile::Rounds),
    (Age::Rested, Meanwhile::Walk),
];

impl Age {
    async fn pass(self, world: &World) -> Result<(), String> {
        match self {
            Self::Young => Ok(()),
            Self::Old => {
                world.forward(3);
                Ok(())
            }
            Self::Resting => world.rounds(1, 3).await,
            Self::Rested => {
                world.rounds(1, 3).await?;
                world.forward(3);
                Ok(())
            }
        }
    }
}

impl Meanwhile {
    async fn pass(self, world: &World) -> Result<(), String> {
        match self {
            Self::Round => world.rounds(1, 0).await,
            Self::Rounds => world.rounds(6, 3).await,
            Self::Days => world.rounds(4, 30).await,
            Self::Walk => world.walk().await,
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.trials += other.trials;
        self.done += other.done;
        self.refused += other.refused;
    }
}

/// Stopped before this call. `None`: it makes fewer.
async fn trial(request: Request, age: Age, meanwhile: Meanwhile, at: usize) -> Result<Option<bool>, String> {
    let hours = Duration::from_hours;
    let settings = Settings { grace: hours(2), undelete: hours(8), upload_expiry: hours(10), ..Settings::default() };
    let world = World::new(settings).await;
    upload(&world.sound, "b", "kept").await.unwrap();
    push(&world.sound, "b", Some("kept"), Doc::Image("kept")).await.unwrap();
    request.prepare(&world).await;
    age.pass(&world).await?;
    let replica = world.replica().await;
    let stopped = replica.stop(at, request.run(Arc::clone(&replica.registry))).await;
    let Ok(task) = stopped else { return Ok(None) };
    meanwhile.pass(&world).await?;
    let done = match meanwhile {
        Meanwhile::Days => false,
        Meanwhile::Round | Meanwhile::Rounds | Meanwhile::Walk => match replica.release(task).await {
            Ok(done) => done,
            Err(error) if request.may_fail_with(&error) => false,
            Err(error) => return Err(format!("{error:?}")),
        },
    };
    world.is_sound().await?;
    if done {
        request.holds(&world).await?;
    }
    world.rounds(3, 7).await?;
    if done && request.is_for_ever() {
        request.holds(&world).await?;
    }
    world.serves("b", Reference::Tag(tag("kept")), Doc::Image("kept")).await?;
    world.ends_empty().await?;
    Ok(Some(done))
}

async fn try_all(request: Request) -> (Tally, Vec<String>) {
    let (mut tally, mut failures) = (Tally::default(), Vec::new());
    for (age, meanwhile) in CASES {
        for at in 0.. {
            match trial(request, age, meanwhile, at).await {
                Ok(None) => break,
                Ok(Some(done)) => tally += Tally { trials: 1, done: done.into(), refused: (!done).into() },
                Err(failure) => {
                    failures.push(format!("{request:?}, {age:?}, {meanwhile:?}, before call {at}: {failure}"));
                }
            }
        }
    }
    (tally, failures)
}

#[tokio::test(start_paused = true)]
async fn wherever_a_request_stalls_rounds_and_walks_take_nothing_that_it_then_acknowledges_and_leave_nothing_else() {
    let (mut all, mut failures) = (Tally::default(), Vec::new());
    for request in ALL {
        let (tally, failed) = try_all(request).await;
        println!("{request:?}: {tally:?}");
        all += tally;
        failures.extend(failed);
    }
    println!("{all:?}");
    assert!(failures.is_empty(), "{} failures: {}", failures.len(), failures.join("\n"));
}
