//! The bucket of the server, in memory. Every state change happens under one lock.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard},
};

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use hyper::StatusCode;
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, dto::*, s3_error};
use sha2::{Digest, Sha256};

use super::{BUCKET, Quirks};
use crate::store::s3::list::is_after;

#[derive(Debug)]
pub(super) struct Bucket {
    quirks: Quirks,
    min_part: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Stored>,
    uploads: HashMap<String, Upload>,
    last_upload: u64,
    lifecycle: Option<Vec<LifecycleRule>>,
}

#[derive(Clone, Debug)]
struct Stored {
    bytes: Bytes,
    etag: ETag,
}

#[derive(Debug)]
struct Upload {
    key: String,
    parts: BTreeMap<i32, Stored>,
    over: Option<Over>,
}

#[derive(Clone, Debug)]
enum Over {
    Completed(ETag),
    Aborted,
}

impl Stored {
    fn new(bytes: Bytes) -> Self {
        let etag = ETag::Strong(hex(&Sha256::digest(&bytes)));
        Self { bytes, etag }
    }

    fn size(&self) -> i64 {
        i64::try_from(self.bytes.len()).unwrap()
    }
}

/// As long as that of S3, which is an MD5.
fn hex(hash: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&hash[..16])
}

#[expect(clippy::unnecessary_wraps, reason = "what every operation returns")]
fn answer<T>(output: T) -> S3Result<S3Response<T>> {
    Ok(S3Response::new(output))
}

/// The error that a quirk has in place of success.
fn refuse(status: StatusCode) -> S3Error {
    match status {
        StatusCode::NOT_FOUND => s3_error!(NoSuchUpload),
        StatusCode::FORBIDDEN => s3_error!(AccessDenied),
        _ => s3_error!(InternalError),
    }
}

impl Bucket {
    pub(super) fn new(quirks: Quirks, min_part: u64) -> Self {
        Self { quirks, min_part, state: Mutex::default() }
    }

    fn state(&self, bucket: &str) -> S3Result<MutexGuard<'_, State>> {
        if bucket == BUCKET { Ok(self.state.lock().unwrap()) } else { Err(s3_error!(NoSuchBucket)) }
    }

    /// Whether a write may happen over what is there.
    fn check(
        &self,
        there: Option<&Stored>,
        if_match: Option<&ETagCondition>,
        if_none_match: Option<&ETagCondition>,
    ) -> S3Result<()> {
        if self.quirks.writes_anyway {
            return Ok(());
        }
        if there.is_some() && if_none_match.is_some() {
            return Err(s3_error!(PreconditionFailed));
        }
        match (if_match.and_then(ETagCondition::as_etag), there) {
            (Some(_), None) if self.quirks.no_match == StatusCode::NOT_FOUND => Err(s3_error!(NoSuchKey)),
            (Some(_), None) => Err(s3_error!(PreconditionFailed)),
            (Some(expected), Some(there)) if *expected != there.etag => Err(s3_error!(PreconditionFailed)),
            _ => Ok(()),
        }
    }

    fn is_hidden(&self, state: &State, key: &str) -> bool {
        self.quirks.hides_below_objects && key.match_indices('/').any(|(at, _)| state.objects.contains_key(&key[..at]))
    }

    /// The bytes of these parts, if S3 would make an object of them.
    fn join(&self, upload: &Upload, named: &[CompletedPart]) -> S3Result<Stored> {
        if named.is_empty() {
            return Err(s3_error!(MalformedXML));
        }
        let (mut bytes, mut hash, mut previous, mut first) = (BytesMut::new(), Sha256::new(), 0, None);
        for (left, part) in (0..named.len()).rev().zip(named) {
            let number = part.part_number.unwrap_or_default();
            let there = upload.parts.get(&number).filter(|there| part.e_tag.as_ref() == Some(&there.etag));
            let there = there.ok_or_else(|| s3_error!(InvalidPart))?;
            let size = there.bytes.len() as u64;
            let first = *first.get_or_insert(size);
            if number <= previous {
                return Err(s3_error!(InvalidPartOrder));
            }
            if left > 0 && size < self.min_part {
                return Err(s3_error!(EntityTooSmall));
            }
            // As R2 wants it.
            if size > first || (left > 0 && size != first) {
                return Err(s3_error!(InvalidPart));
            }
            previous = number;
            bytes.extend_from_slice(&there.bytes);
            hash.update(there.etag.value());
        }
        let etag = ETag::Strong(format!("{}-{}", hex(&hash.finalize()), named.len()));
        Ok(Stored { bytes: bytes.freeze(), etag })
    }
}

impl State {
    fn open_upload(&mut self, key: &str, id: &str) -> S3Result<&mut Upload> {
        let upload = self.uploads.get_mut(id).filter(|upload| upload.key == key && upload.over.is_none());
        upload.ok_or_else(|| s3_error!(NoSuchUpload))
    }
}

async fn collect(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let Some(body) = body else { return Ok(Bytes::new()) };
    // An error of the body is one of its signature, or of its connection.
    let chunks: Vec<Bytes> =
        body.try_collect().await.map_err(|error| S3Error::with_source(S3ErrorCode::IncompleteBody, error))?;
    Ok(chunks.concat().into())
}

#[async_trait::async_trait]
impl S3 for Bucket {
    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let there = self.state(&input.bucket)?.objects.get(&input.key).cloned().ok_or_else(|| s3_error!(NoSuchKey))?;
        let size = there.bytes.len() as u64;
        let (bytes, content_range) = match input.range {
            None => (there.bytes, None),
            Some(range) => {
                let range = range.check(size)?;
                let told = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                let [start, end] = [range.start, range.end].map(|at| usize::try_from(at).unwrap());
                (there.bytes.slice(start..end), Some(told))
            }
        };
        answer(GetObjectOutput {
            content_length: Some(i64::try_from(bytes.len()).unwrap()),
            body: Some(StreamingBlob::from(s3s::Body::from(bytes))),
            content_range,
            e_tag: Some(there.etag),
            ..Default::default()
        })
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        let there = self.state(&input.bucket)?.objects.get(&input.key).cloned().ok_or_else(|| s3_error!(NoSuchKey))?;
        answer(HeadObjectOutput { content_length: Some(there.size()), e_tag: Some(there.etag), ..Default::default() })
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        let stored = Stored::new(collect(input.body).await?);
        let mut state = self.state(&input.bucket)?;
        self.check(state.objects.get(&input.key), input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let e_tag = Some(stored.etag.clone());
        state.objects.insert(input.key, stored);
        answer(PutObjectOutput { e_tag, ..Default::default() })
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        let mut state = self.state(&input.bucket)?;
        if !self.quirks.deletes_anyway {
            self.check(state.objects.get(&input.key), input.if_match.as_ref(), None)?;
        }
        state.objects.remove(&input.key);
        answer(DeleteObjectOutput::default())
    }

    /// Never answers a token: whoever goes on from the last key does not need one.
    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let (prefix, after) = (input.prefix.unwrap_or_default(), input.start_after.unwrap_or_default());
        let limit = usize::try_from(input.max_keys.unwrap_or(1000)).unwrap().min(1000);
        let order = self.quirks.list_order;
        let state = self.state(&input.bucket)?;
        let keys = state.objects.keys().filter(|key| key.starts_with(&prefix) && is_after(order, key, &after));
        let mut keys: Vec<&String> = keys.filter(|key| !self.is_hidden(&state, key)).collect();
        keys.sort_by(|a, b| order.compare(a, b));
        let contents = keys.iter().take(limit).map(|key| Object {
            key: Some((*key).clone()),
            size: Some(state.objects[*key].size()),
            ..Default::default()
        });
        answer(ListObjectsV2Output {
            contents: Some(contents.collect()),
            is_truncated: Some(keys.len() > limit),
            ..Default::default()
        })
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        let mut state = self.state(&input.bucket)?;
        state.last_upload += 1;
        let id = format!("upload-{}", state.last_upload);
        state.uploads.insert(id.clone(), Upload { key: input.key, parts: BTreeMap::new(), over: None });
        answer(CreateMultipartUploadOutput { upload_id: Some(id), ..Default::default() })
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        let part = Stored::new(collect(input.body).await?);
        let e_tag = Some(part.etag.clone());
        let mut state = self.state(&input.bucket)?;
        state.open_upload(&input.key, &input.upload_id)?.parts.insert(input.part_number, part);
        answer(UploadPartOutput { e_tag, ..Default::default() })
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let mut state = self.state(&input.bucket)?;
        if let Some(Over::Completed(etag)) = state.uploads.get(&input.upload_id).and_then(|upload| upload.over.clone())
        {
            return match self.quirks.second_complete {
                StatusCode::OK => answer(CompleteMultipartUploadOutput { e_tag: Some(etag), ..Default::default() }),
                status => Err(refuse(status)),
            };
        }
        let named = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let stored = self.join(state.open_upload(&input.key, &input.upload_id)?, &named)?;
        self.check(state.objects.get(&input.key), input.if_match.as_ref(), input.if_none_match.as_ref())?;
        state.open_upload(&input.key, &input.upload_id)?.over = Some(Over::Completed(stored.etag.clone()));
        let e_tag = Some(stored.etag.clone());
        state.objects.insert(input.key, stored);
        answer(CompleteMultipartUploadOutput { e_tag, ..Default::default() })
    }

    async fn get_bucket_lifecycle_configuration(
        &self,
        request: S3Request<GetBucketLifecycleConfigurationInput>,
    ) -> S3Result<S3Response<GetBucketLifecycleConfigurationOutput>> {
        let rules = self.state(&request.input.bucket)?.lifecycle.clone();
        let rules = rules.ok_or_else(|| s3_error!(NoSuchLifecycleConfiguration))?;
        answer(GetBucketLifecycleConfigurationOutput { rules: Some(rules), ..Default::default() })
    }

    async fn put_bucket_lifecycle_configuration(
        &self,
        request: S3Request<PutBucketLifecycleConfigurationInput>,
    ) -> S3Result<S3Response<PutBucketLifecycleConfigurationOutput>> {
        let input = request.input;
        self.state(&input.bucket)?.lifecycle = input.lifecycle_configuration.map(|whole| whole.rules);
        answer(PutBucketLifecycleConfigurationOutput::default())
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = request.input;
        let mut state = self.state(&input.bucket)?;
        match state.open_upload(&input.key, &input.upload_id) {
            Ok(upload) => upload.over = Some(Over::Aborted),
            Err(_) if self.quirks.second_abort == StatusCode::NO_CONTENT => {}
            Err(error) => return Err(error),
        }
        answer(AbortMultipartUploadOutput::default())
    }
}
