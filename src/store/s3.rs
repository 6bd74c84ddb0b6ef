//! The store in a bucket of S3, or of whatever speaks its language.
//!
//! * Conditional writes are the store's own `If-None-Match: *` and `If-Match`; a version is an `ETag`.
//! * Every body we send is in memory, so that the SDK can send it again: throttling, 5xx, broken connections and
//!   conflicts are retried, with jitter, a few times, and are [`ErrorKind::Unavailable`] after that.
//! * **A retry may lose against itself.** If an earlier attempt at a conditional write was not answered, then an unmet condition
//!   proves nothing: it is answered as an error, and callers read back (`s3/error.rs`).
//! * `ListParts`, `ListMultipartUploads` and copy are never called.
//! * What an upload leaves behind whose id was lost before anybody wrote it down is for the bucket's lifecycle rule.

mod adapt;
mod clock;
mod connect;
mod error;
mod lifecycle;
mod list;
mod patience;
mod read;
mod settings;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod trust;

use std::{fmt, time::Duration};

use async_trait::async_trait;
use aws_sdk_s3::{
    Client,
    presigning::PresigningConfig,
    types::{CompletedMultipartUpload, CompletedPart, ServerSideEncryption, StorageClass as Class},
};
use bytes::Bytes;

use self::{
    clock::StoreClock,
    connect::configure,
    error::{Doubt, Refusal},
    list::Walk,
    read::Ask,
};
use super::{
    Body, Condition, Deleted, Entry, Error, ErrorKind, Key, Limits, Multipart, Object, Part, Placed, Put, Result, Span,
    Store, Version, Versioned,
};

pub use adapt::Unreliable;
pub use settings::{Credentials, Encryption, ListOrder, S3Settings, StorageClass};
pub use trust::{Authorities, AuthoritiesError};

/// The smallest part that is not the last.
const MIN_PART: u64 = 5 << 20;
/// The largest part.
const MAX_PART: u64 = 5 << 30;
/// The highest part number.
const MAX_PARTS: u32 = 10_000;
/// The most keys that a store lists at once.
const PAGE: usize = 1000;

pub struct S3Store {
    client: Client,
    /// Signs the URLs that clients are sent to. Never sends anything itself.
    public: Client,
    clock: StoreClock,
    settings: S3Settings,
    /// Empty, or ends in `/`.
    folder: String,
    limits: Limits,
    /// TLS sees to it that bytes arrive as they were sent: they need not be hashed once more to be signed.
    unsigned: bool,
}

impl S3Store {
    /// Finds out who and where we are. Asks nothing of the bucket.
    pub async fn open(settings: S3Settings) -> Self {
        let limits = Limits {
            min_part: MIN_PART,
            part: settings.part.clamp(MIN_PART, MAX_PART),
            max_part: MAX_PART,
            max_parts: MAX_PARTS,
            uniform_parts: true,
            conditional_delete: settings.conditional_delete,
        };
        Self::open_with(settings, limits).await
    }

    async fn open_with(settings: S3Settings, limits: Limits) -> Self {
        let clock = StoreClock::default();
        let config = configure(&settings).await.interceptor(clock.clone());
        let client = Client::from_conf(config.clone().build());
        let public = match &settings.public_endpoint {
            Some(endpoint) => Client::from_conf(config.endpoint_url(endpoint).build()),
            None => client.clone(),
        };
        let folder = match settings.prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let unsigned = settings.endpoint.as_ref().is_none_or(|endpoint| endpoint.starts_with("https://"));
        Self { client, public, clock, settings, folder, limits, unsigned }
    }

    /// The name of an object in the bucket.
    fn name(&self, key: &Key) -> String {
        format!("{}{key}", self.folder)
    }

    fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        match &self.settings.encryption {
            Encryption::BucketDefault => (None, None),
            Encryption::Store => (Some(ServerSideEncryption::Aes256), None),
            Encryption::Kms(key) => (Some(ServerSideEncryption::AwsKms), key.clone()),
        }
    }

    fn class(&self, key: &Key) -> Option<Class> {
        let class = self.settings.storage_class.as_ref()?;
        key.as_str().starts_with(&class.keys).then(|| Class::from(class.class.as_str()))
    }

    /// What is left of an object behind its end.
    async fn nothing_of(&self, key: &Key, span: Span) -> Result<Option<Object>> {
        match self.head(key).await? {
            Some(size) if span.within(size).length > 0 => {
                Err(Error::new(ErrorKind::Unavailable, format!("open {key}: it changed meanwhile")))
            }
            size => Ok(size.map(|size| Object { size, body: Body::Bytes(Bytes::new()) })),
        }
    }

    /// The next keys of the store, in its order, and whether there are more.
    async fn page(&self, prefix: &str, after: Option<String>, limit: usize) -> Result<(Vec<(String, u64)>, bool)> {
        let context = || format!("list {prefix}");
        let request = self.client.list_objects_v2().bucket(&self.settings.bucket);
        let answer = request
            .prefix(format!("{}{prefix}", self.folder))
            .set_start_after(after.map(|after| format!("{}{after}", self.folder)))
            .max_keys(i32::try_from(limit).unwrap_or(i32::MAX))
            .send()
            .await
            .map_err(|error| self.failed(error, context))?;
        let more = answer.is_truncated.unwrap_or_default();
        let mut keys = Vec::new();
        for object in answer.contents.unwrap_or_default() {
            let name = object.key.as_deref().and_then(|name| name.strip_prefix(&self.folder));
            let size = object.size.and_then(|size| u64::try_from(size).ok());
            let (Some(name), Some(size)) = (name, size) else {
                let context = format!("{}: a line with key {:?} and size {:?}", context(), object.key, object.size);
                return Err(Error::new(ErrorKind::Corrupt, context));
            };
            keys.push((name.to_owned(), size));
        }
        if more && keys.is_empty() {
            let context = format!("{}: there is more, but it is not shown", context());
            return Err(Error::new(ErrorKind::Corrupt, context));
        }
        Ok((keys, more))
    }

    /// What HEAD would say, from a GET whose body nobody reads: a HEAD's 404 has no body, and so no code that would tell a
    /// missing object from a missing bucket or way.
    async fn size_by_get(&self, key: &Key) -> Result<Option<u64>> {
        let context = || format!("head {key}");
        match self.client.get_object().bucket(&self.settings.bucket).key(self.name(key)).send().await {
            Ok(answer) => size(answer.content_length, context).map(Some),
            Err(error) if Refusal::of(&error).is_absent() => Ok(None),
            Err(error) => Err(self.failed(error, context)),
        }
    }
}

fn size(length: Option<i64>, context: impl FnOnce() -> String) -> Result<u64> {
    let size = length.and_then(|length| u64::try_from(length).ok());
    size.ok_or_else(|| Error::new(ErrorKind::Corrupt, format!("{}: no length", context())))
}

#[async_trait]
impl Store for S3Store {
    async fn read(&self, key: &Key) -> Result<Option<Versioned>> {
        let context = || format!("read {key}");
        let request = self.client.get_object().bucket(&self.settings.bucket).key(self.name(key));
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) if Refusal::of(&error).is_absent() => return Ok(None),
            Err(error) => return Err(self.failed(error, context)),
        };
        let version = version(answer.e_tag, context)?;
        let body = answer.body.collect().await;
        let body = body.map_err(|torn| Error::new(ErrorKind::Unavailable, context()).with_source(torn))?;
        Ok(Some(Versioned { bytes: body.into_bytes(), version }))
    }

    async fn open(&self, key: &Key, span: Span) -> Result<Option<Object>> {
        let range = match Ask::for_span(span) {
            Ask::Size => return self.nothing_of(key, Span { length: 0, ..span }).await,
            Ask::Whole => None,
            Ask::Range(range) => Some(range),
        };
        let request = self.client.get_object().bucket(&self.settings.bucket).key(self.name(key)).set_range(range);
        match request.send().await {
            Ok(answer) => read::answered(key, span, answer).map(Some),
            Err(error) if Refusal::of(&error).is_absent() => Ok(None),
            Err(error) if Refusal::of(&error).is_beyond_the_end() => self.nothing_of(key, span).await,
            Err(error) => Err(self.failed(error, || format!("open {key}"))),
        }
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>> {
        let context = || format!("head {key}");
        let answer = match self.client.head_object().bucket(&self.settings.bucket).key(self.name(key)).send().await {
            Ok(answer) => answer,
            Err(error) if Refusal::of(&error).is_unexplained() => return self.size_by_get(key).await,
            Err(error) => return Err(self.failed(error, context)),
        };
        size(answer.content_length, context).map(Some)
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: Condition) -> Result<Put> {
        let context = || format!("put {key}");
        let (create, replace) = match condition {
            Condition::Create => (Some("*".to_owned()), None),
            Condition::Replace(version) => (None, Some(quoted(&version))),
        };
        let replacing = replace.is_some();
        let (encryption, encryption_key) = self.encryption();
        let (doubt, patience) = (Doubt::default(), patience::carrying(&self.settings, bytes.len()));
        let request = self.client.put_object().bucket(&self.settings.bucket).key(self.name(key)).body(bytes.into());
        let request = request.set_if_none_match(create).set_if_match(replace);
        let request = request.set_server_side_encryption(encryption).set_ssekms_key_id(encryption_key);
        let request = request.set_storage_class(self.class(key)).customize();
        let request = request.config_override(patience).interceptor(doubt.clone());
        let request = if self.unsigned { request.disable_payload_signing() } else { request };
        match request.send().await {
            Ok(answer) => version(answer.e_tag, context).map(Put::Stored),
            Err(error) => match Refusal::of(&error) {
                refusal if refusal.is_unmet_condition() => doubt.settle(Put::Lost, context),
                refusal if replacing && refusal.is_absent() => doubt.settle(Put::Lost, context),
                _ => Err(self.failed(error, context)),
            },
        }
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        match self.client.delete_object().bucket(&self.settings.bucket).key(self.name(key)).send().await {
            Ok(_) => Ok(()),
            Err(error) if Refusal::of(&error).is_absent() => Ok(()),
            Err(error) => Err(self.failed(error, || format!("delete {key}"))),
        }
    }

    async fn delete_if(&self, key: &Key, version: &Version) -> Result<Deleted> {
        let context = || format!("delete_if {key}");
        if !self.limits.conditional_delete {
            let context = format!("{}: the store would ignore the condition", context());
            return Err(Error::new(ErrorKind::Unavailable, context));
        }
        let doubt = Doubt::default();
        let request = self.client.delete_object().bucket(&self.settings.bucket).key(self.name(key));
        match request.if_match(quoted(version)).customize().interceptor(doubt.clone()).send().await {
            Ok(_) => Ok(Deleted::Deleted),
            Err(error) => match Refusal::of(&error) {
                refusal if refusal.is_unmet_condition() || refusal.is_absent() => doubt.settle(Deleted::Lost, context),
                _ => Err(self.failed(error, context)),
            },
        }
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Entry>> {
        let after = match after.map(Key::as_str) {
            Some(after) if after.starts_with(prefix) => after,
            Some(after) if after > prefix => return Ok(Vec::new()),
            _ => "",
        };
        if limit == 0 || !starts_a_key(prefix) {
            return Ok(Vec::new());
        }
        let page = match self.settings.list_order {
            ListOrder::Bytes => limit.min(PAGE),
            ListOrder::Paths => PAGE,
        };
        let mut walk = Walk::new(self.settings.list_order, prefix, after);
        loop {
            let (keys, more) = self.page(prefix, walk.start_after(), page).await?;
            walk.take(keys)
                .map_err(|disorder| Error::new(ErrorKind::Corrupt, format!("list {prefix}")).with_source(disorder))?;
            if !more || walk.has(limit) {
                return Ok(walk.into_entries(limit));
            }
        }
    }

    async fn begin(&self, key: &Key) -> Result<Multipart> {
        let context = || format!("begin {key}");
        let (encryption, encryption_key) = self.encryption();
        let request = self.client.create_multipart_upload().bucket(&self.settings.bucket).key(self.name(key));
        let request = request.set_server_side_encryption(encryption).set_ssekms_key_id(encryption_key);
        let answer = request.set_storage_class(self.class(key)).send().await;
        let id = answer.map_err(|error| self.failed(error, context))?.upload_id;
        let id = id.ok_or_else(|| Error::new(ErrorKind::Unavailable, format!("{}: no id", context())))?;
        Ok(Multipart { key: key.clone(), id })
    }

    async fn put_part(&self, upload: &Multipart, number: u32, bytes: Bytes, _: Option<&Part>) -> Result<Placed> {
        let context = || format!("part {number} of {}, upload {}", upload.key, upload.id);
        let (size, patience) = (bytes.len() as u64, patience::carrying(&self.settings, bytes.len()));
        let request = self.client.upload_part().bucket(&self.settings.bucket).key(self.name(&upload.key));
        let request = request.upload_id(&upload.id).part_number(part_number(number)).body(bytes.into());
        let request = request.customize().config_override(patience);
        let request = if self.unsigned { request.disable_payload_signing() } else { request };
        let answer = request.send().await.map_err(|error| self.failed(error, context))?;
        let tag = answer.e_tag.ok_or_else(|| no_etag(context))?;
        Ok(Placed::New(Part { number, size, tag }))
    }

    async fn sync_parts(&self, _: &Multipart, _: &[Part]) -> Result<()> {
        // A part that was answered is durable.
        Ok(())
    }

    async fn complete(&self, upload: &Multipart, parts: &[Part]) -> Result<()> {
        let context = || format!("complete {}, upload {}", upload.key, upload.id);
        if parts.is_empty() {
            return Err(Error::new(ErrorKind::Corrupt, format!("{}: no parts", context())));
        }
        let part =
            |part: &Part| CompletedPart::builder().part_number(part_number(part.number)).e_tag(&part.tag).build();
        let whole = CompletedMultipartUpload::builder().set_parts(Some(parts.iter().map(part).collect())).build();
        let request = self.client.complete_multipart_upload().bucket(&self.settings.bucket);
        let request =
            request.key(self.name(&upload.key)).upload_id(&upload.id).multipart_upload(whole).if_none_match("*");
        let request = request.customize().config_override(patience::completing(&self.settings));
        let error = match request.send().await {
            Ok(answer) if answer.e_tag.is_some() => return Ok(()),
            Ok(_) => no_etag(context),
            Err(error) => self.failed(error, context),
        };
        // The second time, each store says no in its own way, or this is a retry of what was done and never answered.
        // If the object is there the upload is not any more.
        if error.kind != ErrorKind::NotFound && self.head(&upload.key).await?.is_some() {
            return Err(Error { kind: ErrorKind::NotFound, ..error });
        }
        Err(error)
    }

    async fn abort(&self, upload: &Multipart) -> Result<()> {
        let request = self.client.abort_multipart_upload().bucket(&self.settings.bucket).key(self.name(&upload.key));
        match request.upload_id(&upload.id).send().await {
            Ok(_) => Ok(()),
            Err(error) if Refusal::of(&error).is_no_upload() => Ok(()),
            Err(error) => Err(self.failed(error, || format!("abort {}, upload {}", upload.key, upload.id))),
        }
    }

    async fn presign(&self, key: &Key, ttl: Duration) -> Result<Option<String>> {
        let context = || format!("presign {key}");
        let mut valid = PresigningConfig::builder().expires_in(ttl);
        valid.set_start_time(self.clock.now());
        let valid = valid.build().map_err(|error| Error::new(ErrorKind::Unavailable, context()).with_source(error))?;
        let request = self.public.get_object().bucket(&self.settings.bucket).key(self.name(key));
        let url = request.presigned(valid).await.map_err(|error| self.failed(error, context))?;
        Ok(Some(url.uri().to_owned()))
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

/// Whether a key can start with this text. Some stores make a path of it, and see more in `..` than two dots.
fn starts_a_key(prefix: &str) -> bool {
    prefix.is_empty() || Key::parse(prefix).is_some() || Key::parse(format!("{prefix}x")).is_some()
}

/// A version is an `ETag` without its quotes.
fn version(etag: Option<String>, context: impl FnOnce() -> String) -> Result<Version> {
    let etag = etag.ok_or_else(|| no_etag(context))?;
    Ok(Version(etag.trim_matches('"').to_owned()))
}

fn quoted(version: &Version) -> String {
    format!("\"{}\"", version.0)
}

fn no_etag(context: impl FnOnce() -> String) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{}: no ETag in the answer", context()))
}

/// No number that is too large for the store is ever within its limits.
fn part_number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Store").field("settings", &self.settings).finish_non_exhaustive()
    }
}
