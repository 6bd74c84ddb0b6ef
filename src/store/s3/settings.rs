//! How to reach a bucket and what to ask of it.

use std::{fmt, time::Duration};

use super::Authorities;

/// Everything that [`S3Store::open`](super::S3Store::open) needs to know.
#[derive(Clone, Debug)]
pub struct S3Settings {
    pub bucket: String,
    /// All keys lie under this folder of the bucket; empty: the whole bucket is ours.
    pub prefix: String,
    /// `None`: AWS, over TLS. The environment and the profile have no say in it.
    pub endpoint: Option<String>,
    /// `None`: as the environment, the profile or the instance says; at an endpoint of one's own, `AWS_REGION` or
    /// `us-east-1`.
    pub region: Option<String>,
    /// `host/bucket/key` instead of `bucket.host/key`: what most stores outside AWS want.
    pub path_style: bool,
    /// Where clients reach the store, for URLs that are handed out; `None`: where we reach it.
    pub public_endpoint: Option<String>,
    /// Who may sign the certificate of the store, beside whom the system trusts.
    pub authorities: Option<Authorities>,
    pub credentials: Credentials,
    pub encryption: Encryption,
    pub storage_class: Option<StorageClass>,
    /// The size of a part: between 5 MiB and 5 GiB, and 10,000 of them hold the largest blob.
    pub part: u64,
    /// How often a request is sent before it fails, the first time included.
    pub max_attempts: u32,
    /// At most how long the second attempt waits for the first; each one after it up to twice as long as the one before.
    pub backoff: Duration,
    pub connect_timeout: Duration,
    /// From a request that carries little to the head of its answer. Twice that, and the call is given up, however often
    /// it was sent.
    pub answer_timeout: Duration,
    /// The longest silence within a body.
    pub silence: Duration,
    /// The store honours `If-Match` on DELETE. MinIO ignores it: to be found out, not assumed.
    pub conditional_delete: bool,
    pub list_order: ListOrder,
}

impl S3Settings {
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: String::new(),
            endpoint: None,
            region: None,
            path_style: false,
            public_endpoint: None,
            authorities: None,
            credentials: Credentials::Chain,
            encryption: Encryption::BucketDefault,
            storage_class: None,
            part: 8 << 20,
            max_attempts: 4,
            backoff: Duration::from_millis(200),
            connect_timeout: Duration::from_secs(3),
            answer_timeout: Duration::from_secs(5),
            silence: Duration::from_secs(20),
            conditional_delete: false,
            list_order: ListOrder::Bytes,
        }
    }
}

/// Who we are.
#[derive(Clone)]
pub enum Credentials {
    /// The environment, the profile, a web identity, the container or the instance, in this order.
    Chain,
    Static {
        access_key_id: String,
        secret_access_key: String,
        session_token: Option<String>,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chain => "Chain",
            Self::Static { .. } => "Static(..)",
        })
    }
}

/// How the store encrypts what it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// As the bucket says.
    BucketDefault,
    /// With keys of the store (SSE-S3).
    Store,
    /// With a key of the key service (SSE-KMS); `None`: its default key.
    Kms(Option<String>),
}

/// Keys that start with this are stored in this class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageClass {
    pub keys: String,
    pub class: String,
}

/// In what order the store lists, and what it means by "after".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListOrder {
    /// By the bytes of whole keys, as S3 has it.
    Bytes,
    /// By path components, as `SeaweedFS` has it: all of `a/` comes before `a-b`.
    Paths,
}
