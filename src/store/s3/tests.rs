//! The contract, on a server that behaves as S3 does, or as others do.

mod faults;
mod lifecycle;
mod requests;

use std::time::Duration;

use hyper::StatusCode;

use super::{
    Credentials, ListOrder, S3Settings, S3Store,
    testing::{Quirks, Server},
};
use crate::store::{Key, contract, contract::contract};

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
