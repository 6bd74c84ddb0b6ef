//! The contract, on a server that behaves as S3 does, or as others do.

mod faults;
mod lifecycle;
mod requests;

use std::{sync::Arc, time::Duration};

use hyper::StatusCode;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Authorities, Credentials, ListOrder, S3Settings, S3Store,
    testing::{Quirks, Server},
};
use crate::store::{Condition, ErrorKind, Key, Store, contract, contract::contract};

async fn on(quirks: Quirks) -> (S3Store, Server) {
    let server = Server::start(quirks).await;
    (server.store().await, server)
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

/// The server that `MARINA_TEST_S3` names, for one that is not ours: `endpoint,bucket,key id,secret`, and as it applies
/// `paths` and `conditional-delete`. Each clause gets a folder of its own in the bucket.
async fn named() -> Option<S3Store> {
    let named = std::env::var("MARINA_TEST_S3").ok()?;
    let mut words = named.split(',').map(str::to_owned);
    let [endpoint, bucket, access_key_id, secret_access_key] = std::array::from_fn(|_| words.next().unwrap());
    let mut settings = S3Settings {
        prefix: format!("marina-test/{:032x}", u128::from_le_bytes(random())),
        endpoint: Some(endpoint),
        path_style: true,
        credentials: Credentials::Static { access_key_id, secret_access_key, session_token: None },
        ..S3Settings::new(bucket)
    };
    for word in words {
        match word.as_str() {
            "paths" => settings.list_order = ListOrder::Paths,
            "conditional-delete" => settings.conditional_delete = true,
            _ => panic!("{word:?} in MARINA_TEST_S3"),
        }
    }
    Some(S3Store::open(settings).await)
}

fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

async fn named_or_ours() -> (S3Store, Option<Server>) {
    if let Some(store) = named().await {
        return (store, None);
    }
    let (store, server) = on(Quirks::S3).await;
    (store, Some(server))
}

contract!(named_or_ours().await);

mod on_minio {
    use super::*;

    contract!(on(Quirks::MINIO).await);
}

mod on_seaweed {
    use super::*;

    contract!(on(Quirks::SEAWEED).await);
}

#[tokio::test]
async fn races_end_as_well_on_a_store_that_is_far_away() {
    let (store, _server) = on(Quirks { latency: Duration::from_millis(2), ..Quirks::S3 }).await;
    contract::of_racing_creators_one_wins_and_the_others_change_nothing(&store).await;
    contract::of_racing_replacers_one_wins_and_the_others_change_nothing(&store).await;
    contract::of_a_replace_racing_a_conditional_delete_one_wins(&store).await;
    contract::racing_completers_leave_the_object_right(&store).await;
    contract::a_listing_has_every_key_that_was_there_throughout(&store).await;
}

#[tokio::test]
async fn completing_twice_is_well_in_every_dialect() {
    let dialects = [StatusCode::OK, StatusCode::FORBIDDEN, StatusCode::NOT_FOUND, StatusCode::INTERNAL_SERVER_ERROR];
    for second_complete in dialects {
        let (store, _server) = on(Quirks { second_complete, ..Quirks::S3 }).await;
        contract::completing_twice_leaves_the_object_right(&store).await;
        contract::racing_completers_leave_the_object_right(&store).await;
    }
}

/// Speaks TLS for a server that does not.
async fn behind_tls(server: std::net::SocketAddr) -> (String, tokio::task::AbortHandle) {
    let chain = CertificateDer::pem_slice_iter(include_bytes!("tests/tls/server.pem")).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tests/tls/server-key.pem")).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                // Who does not believe us ends it here.
                let Ok(mut outside) = acceptor.accept(socket).await else { return };
                let mut inside = TcpStream::connect(server).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut outside, &mut inside).await);
            });
        }
    });
    (endpoint, serving.abort_handle())
}

#[tokio::test]
async fn a_certificate_is_believed_if_an_authority_that_is_named_signed_it() {
    let server = Server::start(Quirks::S3).await;
    let (endpoint, serving) = behind_tls(server.address()).await;
    let settings = S3Settings { endpoint: Some(endpoint), max_attempts: 1, ..server.settings() };
    let stranger = server.store_with(settings.clone()).await.head(&key("a")).await.unwrap_err();
    assert_eq!(stranger.kind, ErrorKind::Unavailable);
    assert!(format!("{stranger:?}").contains("UnknownIssuer"), "{stranger:?}");
    let authorities = Some(Authorities::parse(include_bytes!("tests/tls/authority.pem")).unwrap());
    let store = server.store_with(S3Settings { authorities, ..settings }).await;
    store.put(&key("a"), "1".into(), Condition::Create).await.unwrap();
    assert_eq!(store.head(&key("a")).await.unwrap(), Some(1));
    serving.abort();
}
