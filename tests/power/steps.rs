//! The program that loses power: a client that does one of everything on a directory, and says what it was answered.

use std::{
    cell::OnceCell,
    fs::File,
    io::{IoSlice, Read, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use marina_distribution::{
    oci::{Algorithm, Reference, Tag},
    registry::{Chunk, Error, Push, Registry, Settings, Torn},
    store::fs::FsStore,
};
use serde_json::{Value, json};
use tokio::{runtime::Builder, task::spawn_blocking};

use crate::facts::{self, Effects, Line, State, Thing, Turned, chunk, content, name, parse, sha256};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// How often a request is repeated.
const TRIES: usize = 3;
/// What the store's thread opens last before the store. By then it has made more calls of each name than any other thread
/// ever makes: faults are counted by thread, and those of the store must hit no loader and no test runner.
pub(crate) const READY: &str = "/dev/null";
const MADE_FIRST: usize = 200;

struct Client {
    registry: Arc<Registry>,
    clock: Arc<Turned>,
    says: File,
    left_open: Vec<Thing>,
}

/// Does it all. `threads` is how many calls of the store are made side by side.
pub(crate) fn run(directory: &Path, says: File, threads: usize) {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .max_blocking_threads(threads)
        .thread_keep_alive(Duration::from_hours(1))
        .build()
        .unwrap();
    runtime.block_on(async {
        spawn_blocking(get_ready).await.unwrap();
        let clock = Arc::new(Turned::default());
        let mut client = Client { registry: open(directory, &clock).await, clock, says, left_open: Vec::new() };
        client.push().await;
        client.upload().await;
        client.tag_and_refer().await;
        client.delete().await;
        client.registry = open(directory, &client.clock).await;
        client.expire().await;
        client.registry.settle().await;
    });
}

fn get_ready() {
    for _ in 0..MADE_FIRST {
        let mut file = File::options().read(true).write(true).open("/dev/zero").unwrap();
        file.read_exact(&mut [0]).unwrap();
        file.write_all(&[0]).unwrap();
        file.metadata().unwrap();
        rustix::fs::fstat(&file).unwrap();
        rustix::fs::stat("/").unwrap();
    }
    File::open(READY).unwrap();
}

async fn open(directory: &Path, clock: &Arc<Turned>) -> Arc<Registry> {
    for _ in 0..TRIES {
        let at = directory.to_owned();
        if let Ok(store) = spawn_blocking(move || FsStore::open(&at)).await.unwrap()
            && let Ok(registry) = Registry::open_with(Arc::new(store), Settings::default(), clock.clone()).await
        {
            return registry;
        }
    }
    panic!("it does not open");
}

impl Client {
    async fn push(&mut self) {
        for size in [0, 300, 100_000] {
            self.push_whole("a", size).await;
        }
        // Another repository that brings the same, and one that only asks for it.
        self.push_whole("b", 0).await;
        self.push_whole("b", 300).await;
        let digest = parse(&sha256(&content(100_000)));
        self.step(vec![blob("b", 100_000)], async |registry| {
            assert!(registry.mount(&name("b"), &digest, Some(&name("a"))).await?);
            Ok(())
        })
        .await;
    }

    async fn upload(&mut self) {
        // All in the last request; small chunks only; parts that are lengthened, and several segments.
        for (size, chunks) in
            [(400, vec![]), (1_100_000, vec![]), (900, vec![300, 600]), (290_000, vec![70_000, 150_000])]
        {
            let id = self.start("a", size).await;
            for to in chunks {
                self.append("a", &id, size, to).await;
            }
            self.finish("a", &id, size).await;
        }
        // Left open: in the journal, in parts, and where a body broke off.
        let id = self.start("a", 500).await;
        self.append("a", &id, 500, 200).await;
        self.left_open.push(upload("a", &id, 500));
        let id = self.start("a", 250_000).await;
        self.append("a", &id, 250_000, 130_000).await;
        self.tear("a", &id, 250_000, 220_000).await;
        self.left_open.push(upload("a", &id, 250_000));
        let id = self.start("a", 260_000).await;
        self.append("a", &id, 260_000, 140_000).await;
        self.cancel("a", &id, 260_000).await;
    }

    async fn tag_and_refer(&mut self) {
        let first = image(&[300], None, "first");
        let second = image(&[300, 100_000], None, "second");
        self.push_manifest("a", IMAGE, &first, &["latest"], None).await;
        self.push_manifest("a", IMAGE, &second, &["latest", "v1", "v2"], None).await;
        self.push_manifest("a", IMAGE, &second, &["other"], None).await;
        let subject = sha256(second.as_bytes());
        let referrer = image(&[300], Some(&subject), "about it");
        self.push_manifest("a", IMAGE, &referrer, &[], Some(&subject)).await;
        self.push_manifest("a", INDEX, &index(&[&first, &second]), &["all"], None).await;
        self.push_manifest("b", IMAGE, &second, &["latest"], None).await;
    }

    async fn delete(&mut self) {
        let second = sha256(image(&[300, 100_000], None, "second").as_bytes());
        let tag = Tag::parse("v1").unwrap();
        let gone = |thing: Thing| (thing, None);
        self.step(vec![gone(tag_of("a", "v1"))], async |registry| registry.delete_tag(&name("a"), &tag).await).await;
        let effects = ["latest", "v2", "other"].map(|tag| gone(tag_of("a", tag)));
        let manifest = gone(Thing::Manifest { repository: "a".into(), digest: second.clone() });
        self.step([effects.as_slice(), &[manifest]].concat(), async |registry| {
            registry.delete_manifest(&name("a"), &parse(&second)).await
        })
        .await;
        let referrer = sha256(image(&[300], Some(&second), "about it").as_bytes());
        let entry = Thing::Referrer { repository: "a".into(), subject: second.clone(), digest: referrer.clone() };
        let manifest = Thing::Manifest { repository: "a".into(), digest: referrer.clone() };
        self.step(vec![gone(entry), gone(manifest)], async |registry| {
            registry.delete_manifest(&name("a"), &parse(&referrer)).await
        })
        .await;
        let (thing, _) = blob("b", 300);
        let digest = parse(&sha256(&content(300)));
        self.step(vec![gone(thing)], async |registry| registry.delete_blob(&name("b"), &digest).await).await;
        self.push_whole("b", 300).await;
    }

    /// Everything that was left open ends, and nothing else.
    async fn expire(&mut self) {
        self.clock.forward(30);
        let old = self.start("b", 700).await;
        self.append("b", &old, 700, 100).await;
        for _ in 0..2 {
            let gone = self.left_open.iter().map(|upload| (upload.clone(), None)).collect();
            self.step(gone, async |registry| match registry.expire().await?.left {
                0 => Ok(()),
                _ => Err(Error::Busy),
            })
            .await;
            self.clock.forward(1);
        }
        self.finish("b", &old, 700).await;
    }

    async fn push_whole(&mut self, repository: &str, size: usize) {
        let bytes = content(size);
        let digest = parse(&sha256(&bytes));
        self.step(vec![blob(repository, size)], async |registry| {
            registry.upload_whole(&name(repository), &digest, chunk(None, &bytes)).await.map(drop)
        })
        .await;
    }

    async fn start(&mut self, repository: &str, size: usize) -> String {
        let id = self.registry.start_upload(&name(repository), Algorithm::Sha256).to_string();
        self.step(vec![(upload(repository, &id, size), Some("0".into()))], async |_| Ok(())).await;
        id
    }

    async fn append(&mut self, repository: &str, id: &str, size: usize, to: usize) {
        let bytes = content(size);
        self.step(vec![(upload(repository, id, size), Some(to.to_string()))], async |registry| {
            let (name, id) = (name(repository), facts::session(id));
            let from = usize::try_from(registry.upload_status(&name, id).await?.received).unwrap();
            if from < to {
                let appended = registry.append(&name, id, chunk(Some(from), &bytes[from..to])).await?;
                assert_eq!(appended.received, to as u64);
            }
            Ok(())
        })
        .await;
    }

    /// Sends a chunk that breaks off.
    async fn tear(&mut self, repository: &str, id: &str, size: usize, to: usize) {
        let bytes = content(size);
        let (name, id) = (name(repository), facts::session(id));
        let Ok(status) = self.registry.upload_status(&name, id).await else { return };
        let piece = Bytes::copy_from_slice(&bytes[usize::try_from(status.received).unwrap()..to]);
        let body = Box::pin(stream::iter([Ok(piece), Err(Torn)]));
        let torn = Chunk { start: None, declared: None, length: None, body };
        self.registry.append(&name, id, torn).await.unwrap_err();
    }

    async fn finish(&mut self, repository: &str, id: &str, size: usize) {
        let bytes = content(size);
        let digest = parse(&sha256(&bytes));
        // What is repeated is the same request.
        let from = OnceCell::new();
        self.step(vec![blob(repository, size), (upload(repository, id, size), None)], async |registry| {
            let (name, id) = (name(repository), facts::session(id));
            if from.get().is_none() {
                let received = registry.upload_status(&name, id).await?.received;
                from.set(usize::try_from(received).unwrap()).unwrap();
            }
            let from = *from.get().unwrap();
            registry.finish(&name, id, &digest, chunk(Some(from).filter(|it| *it > 0), &bytes[from..])).await
        })
        .await;
    }

    async fn cancel(&mut self, repository: &str, id: &str, size: usize) {
        self.step(vec![(upload(repository, id, size), None)], async |registry| {
            registry.cancel_upload(&name(repository), facts::session(id)).await
        })
        .await;
    }

    async fn push_manifest(
        &mut self,
        repository: &str,
        media_type: &str,
        bytes: &str,
        tags: &[&str],
        subject: Option<&str>,
    ) {
        let digest = sha256(bytes.as_bytes());
        let there = Some(digest.clone());
        let mut effects: Effects = tags.iter().map(|tag| (tag_of(repository, tag), there.clone())).collect();
        effects.push((Thing::Manifest { repository: repository.into(), digest: digest.clone() }, there.clone()));
        if let Some(subject) = subject {
            let (subject, digest) = (subject.to_owned(), digest.clone());
            effects.push((Thing::Referrer { repository: repository.into(), subject, digest }, there));
        }
        let push = Push {
            target: Reference::Digest(parse(&digest)),
            tags: tags.iter().map(|tag| Tag::parse(tag).unwrap()).collect(),
            content_type: Some(media_type.to_owned()),
            bytes: Bytes::from(bytes.to_owned()),
            condition: None,
        };
        self.step(effects, async |registry| registry.put_manifest(&name(repository), push.clone()).await.map(drop))
            .await;
    }

    /// Has something done, and says so. What fails is asked for again, as a client does.
    async fn step(&mut self, effects: Effects, request: impl AsyncFn(&Arc<Registry>) -> Result<(), Error>) {
        self.say(&Line::Begins(effects.clone()));
        for tried in 0..TRIES {
            match request(&self.registry).await {
                Ok(()) => return self.say(&Line::Done(effects)),
                // What is asked for again may have been done already.
                Err(Error::BlobUnknown(_) | Error::ManifestUnknown | Error::UploadUnknown)
                    if tried > 0 && effects.iter().all(|(_, state)| state.is_none()) =>
                {
                    return self.say(&Line::Done(effects));
                }
                Err(Error::Corrupt(error)) => panic!("{effects:?}: {error:?}"),
                Err(error) => self.say(&Line::Failed(format!("{effects:?}: {error:?}"))),
            }
        }
        panic!("not done: {effects:?}");
    }

    /// By `writev`, which the store never calls: no fault meant for the store can hit it.
    fn say(&mut self, line: &Line) {
        let line = serde_json::to_string(line).unwrap();
        let length = self.says.write_vectored(&[IoSlice::new(line.as_bytes()), IoSlice::new(b"\n")]).unwrap();
        assert_eq!(length, line.len() + 1);
    }
}

fn blob(repository: &str, size: usize) -> (Thing, State) {
    let digest = sha256(&content(size));
    (Thing::Blob { repository: repository.into(), digest: digest.clone() }, Some(digest))
}

fn tag_of(repository: &str, tag: &str) -> Thing {
    Thing::Tag { repository: repository.into(), tag: tag.into() }
}

fn upload(repository: &str, id: &str, size: usize) -> Thing {
    Thing::Upload { repository: repository.into(), id: id.into(), size }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": sha256(bytes), "size": bytes.len() })
}

fn image(layers: &[usize], subject: Option<&str>, note: &str) -> String {
    let blob = |size: &usize| descriptor("application/octet-stream", &content(*size));
    let mut image = json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": blob(&0),
        "layers": layers.iter().map(blob).collect::<Vec<_>>(),
        "annotations": { "note": note },
    });
    if let Some(subject) = subject {
        image["subject"] = json!({ "mediaType": IMAGE, "digest": subject, "size": 1 });
    }
    image.to_string()
}

fn index(images: &[&str]) -> String {
    let images: Vec<_> = images.iter().map(|image| descriptor(IMAGE, image.as_bytes())).collect();
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": images }).to_string()
}
