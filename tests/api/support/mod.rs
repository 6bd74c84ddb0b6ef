//! What the tests of the API share: a registry on every driver, served over real TCP, and a small client.

mod client;
pub(crate) mod images;
pub(crate) mod raw;

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use marina_distribution::{
    http,
    registry::{self, Registry},
    server::{self, Ended, Stop},
    store::{
        Limits, Store,
        fs::FsStore,
        memory::{MemoryStore, TINY_PARTS},
    },
};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};

pub(crate) use client::{Reply, Sending};
pub(crate) use raw::Raw;

/// What tests turn of a server and what it serves.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) idle_timeout: Duration,
    pub(crate) http: http::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self { idle_timeout: Duration::from_mins(1), http: http::Settings::default() }
    }
}

/// A registry that serves on a loopback port until it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    store: Arc<dyn Store>,
    settings: Settings,
    client: client::Client,
    serving: JoinHandle<Ended>,
}

/// Runs a test on a fresh registry on every driver.
pub(crate) async fn everywhere(test: impl AsyncFn(&Server)) {
    everywhere_with(Settings::default(), test).await;
}

pub(crate) async fn everywhere_with(settings: Settings, test: impl AsyncFn(&Server)) {
    eprintln!("on the store in memory");
    test(&Server::start(memory(), settings.clone()).await).await;

    eprintln!("on a directory");
    let directory = tempfile::tempdir().unwrap();
    test(&Server::start(directory_store(&directory), settings).await).await;
}

/// The id of a session, as docker finds it in the session's URL.
pub(crate) fn id_of(session: &str) -> &str {
    session.rsplit('/').next().unwrap()
}

/// A registry in memory, for tests of what no driver can change.
pub(crate) async fn in_memory() -> Server {
    Server::start(memory(), Settings::default()).await
}

pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let entries: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.into_iter().flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

pub(crate) fn directory_store(directory: &TempDir) -> Arc<dyn Store> {
    Arc::new(FsStore::open(directory.path()).unwrap())
}

/// Its parts are small, so that the blobs of these tests have many.
pub(crate) fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new(Limits { min_part: 1024, part: 1024, max_part: 1024 * 1024, ..TINY_PARTS }))
}

impl Server {
    pub(crate) async fn start(store: Arc<dyn Store>, settings: Settings) -> Self {
        let registry = Registry::open(Arc::clone(&store), registry::Settings::default()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = http::router(registry, settings.http.clone());
        let kept = server::Settings {
            idle_timeout: settings.idle_timeout,
            drain: Duration::ZERO,
            max_connections: NonZeroU32::new(1024).unwrap(),
        };
        let serving = tokio::spawn(server::serve(listener, router, kept, Stop::default()));
        Self { address, store, settings, client: client::client(), serving }
    }

    /// Another server of the same store, which shares nothing else with this one.
    pub(crate) async fn replica(&self) -> Self {
        Self::start(Arc::clone(&self.store), self.settings.clone()).await
    }

    pub(crate) fn get(&self, url: &str) -> Sending {
        self.request("GET", url)
    }

    pub(crate) fn head(&self, url: &str) -> Sending {
        self.request("HEAD", url)
    }

    pub(crate) fn post(&self, url: &str) -> Sending {
        self.request("POST", url)
    }

    pub(crate) fn patch(&self, url: &str) -> Sending {
        self.request("PATCH", url)
    }

    pub(crate) fn put(&self, url: &str) -> Sending {
        self.request("PUT", url)
    }

    pub(crate) fn delete(&self, url: &str) -> Sending {
        self.request("DELETE", url)
    }

    pub(crate) fn request(&self, method: &str, url: &str) -> Sending {
        Sending::new(self.client.clone(), self.address, method, url)
    }

    /// A connection on which the bytes are the test's own.
    pub(crate) async fn raw(&self) -> Raw {
        Raw::connect(self.address).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
