//! What decorators have in common that do one thing around every call: delay it, refuse it, note it.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Condition, Deleted, Entry, Key, Limits, Multipart, Object, Part, Placed, Put, Result, Span, Store, Verb, Version,
    Versioned,
};

/// A [`Store`] that forwards each call to the one below, and does something around it.
///
/// [`Store::presign`] and [`Store::limits`] ask nobody, and pass. A decorator that must know more of a call than its
/// [`Call`], or more of an answer than whether it is an error, implements [`Store`] itself.
pub trait Around: fmt::Debug + Send + Sync + 'static {
    fn below(&self) -> &dyn Store;

    /// The store below is asked when `asking` is first polled, and never if it is not.
    fn around<T: Send>(
        &self,
        call: Call<'_>,
        asking: impl Future<Output = Result<T>> + Send,
    ) -> impl Future<Output = Result<T>> + Send;
}

/// A call that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    pub verb: Verb,
    /// The key of the object or of the upload; of a listing, the prefix.
    pub key: &'a str,
}

impl<'a> Call<'a> {
    fn on(key: &'a Key, verb: Verb) -> Self {
        Self { verb, key: key.as_str() }
    }
}

#[async_trait]
impl<A: Around> Store for A {
    async fn read(&self, key: &Key) -> Result<Option<Versioned>> {
        self.around(Call::on(key, Verb::Read), self.below().read(key)).await
    }

    async fn open(&self, key: &Key, span: Span) -> Result<Option<Object>> {
        self.around(Call::on(key, Verb::Open), self.below().open(key, span)).await
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>> {
        self.around(Call::on(key, Verb::Head), self.below().head(key)).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: Condition) -> Result<Put> {
        self.around(Call::on(key, Verb::Put), self.below().put(key, bytes, condition)).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.around(Call::on(key, Verb::Delete), self.below().delete(key)).await
    }

    async fn delete_if(&self, key: &Key, version: &Version) -> Result<Deleted> {
        self.around(Call::on(key, Verb::DeleteIf), self.below().delete_if(key, version)).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Entry>> {
        let call = Call { verb: Verb::List, key: prefix };
        self.around(call, self.below().list(prefix, after, limit)).await
    }

    async fn begin(&self, key: &Key) -> Result<Multipart> {
        self.around(Call::on(key, Verb::Begin), self.below().begin(key)).await
    }

    async fn put_part(&self, upload: &Multipart, number: u32, bytes: Bytes, previous: Option<&Part>) -> Result<Placed> {
        let asking = self.below().put_part(upload, number, bytes, previous);
        self.around(Call::on(&upload.key, Verb::PutPart), asking).await
    }

    async fn sync_parts(&self, upload: &Multipart, parts: &[Part]) -> Result<()> {
        self.around(Call::on(&upload.key, Verb::SyncParts), self.below().sync_parts(upload, parts)).await
    }

    async fn complete(&self, upload: &Multipart, parts: &[Part]) -> Result<()> {
        self.around(Call::on(&upload.key, Verb::Complete), self.below().complete(upload, parts)).await
    }

    async fn abort(&self, upload: &Multipart) -> Result<()> {
        self.around(Call::on(&upload.key, Verb::Abort), self.below().abort(upload)).await
    }

    async fn presign(&self, key: &Key, ttl: Duration) -> Result<Option<String>> {
        self.below().presign(key, ttl).await
    }

    fn limits(&self) -> Limits {
        self.below().limits()
    }
}
