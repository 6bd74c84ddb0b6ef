//! A decorator that fails to plan: requests that never arrive, replies that are lost, requests that arrive late or again,
//! requests that hang.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

use super::{
    Condition, Deleted, Entry, Error, ErrorKind, Key, Limits, Multipart, Object, Part, Placed, Put, Result, Span,
    Store, Verb, Version, Versioned,
};

/// Asks its plan, call by call, what goes wrong. It records the calls, so that a test can run once without a fault, look
/// at what was called, and then again with a fault at each of them.
pub struct Faulty {
    store: Arc<dyn Store>,
    plan: Box<dyn Fn(&Call) -> Fault + Send + Sync>,
    state: Mutex<State>,
    /// A permit for each call that has come to a halt.
    halted: Semaphore,
    /// Closed when they may go on.
    gate: Semaphore,
}

/// A call as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Counts from 0 in the order in which calls were made.
    pub index: usize,
    pub verb: Verb,
    /// The key of the object or of the upload; of a listing, the prefix.
    pub key: String,
}

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// It is not applied, and answers [`ErrorKind::Unavailable`].
    NotApplied,
    /// It is not applied, and answers [`ErrorKind::Throttled`].
    Throttled,
    /// It is not applied, and answers [`ErrorKind::Refused`].
    Refused,
    /// It is applied, and answers [`ErrorKind::Unavailable`].
    ReplyLost,
    /// It answers [`ErrorKind::Unavailable`], and a write is applied when `after` further calls have been.
    AppliedLate {
        after: usize,
    },
    /// A write is applied and answers as usual, and arrives once more when `after` further calls have been applied.
    /// Reads take no notice.
    RepeatedLate {
        after: usize,
    },
    /// It halts before it is applied until [`Faulty::release`], as if its caller had been stopped.
    Halted,
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    late: Vec<Late>,
}

/// A write on its way.
struct Late {
    /// When the call with this index has been applied.
    after: usize,
    request: BoxFuture<'static, ()>,
}

impl Faulty {
    pub fn new(store: Arc<dyn Store>, plan: impl Fn(&Call) -> Fault + Send + Sync + 'static) -> Self {
        let (halted, gate) = (Semaphore::new(0), Semaphore::new(0));
        Self { store, plan: Box::new(plan), state: Mutex::default(), halted, gate }
    }

    /// The calls made so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// Waits until a call has come to a halt.
    pub async fn halted(&self) {
        // Never closed.
        drop(self.halted.acquire().await);
    }

    /// Lets go on what has come to a halt; from here on nothing halts any more.
    pub fn release(&self) {
        self.gate.close();
    }

    /// Has everything arrive now that was still to arrive late.
    pub async fn deliver_late(&self) {
        self.deliver(usize::MAX).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, so a poisoned one is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, verb: Verb, key: &str) -> (Call, Fault) {
        let mut state = self.state();
        let call = Call { index: state.calls.len(), verb, key: key.to_owned() };
        state.calls.push(call.clone());
        drop(state);
        let fault = (self.plan)(&call);
        (call, fault)
    }

    async fn halt(&self, fault: Fault) {
        if fault == Fault::Halted {
            self.halted.add_permits(1);
            // No permit ever comes: this ends when the gate is closed.
            drop(self.gate.acquire().await);
        }
    }

    async fn read_like<T>(&self, verb: Verb, key: &str, request: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let (call, fault) = self.record(verb, key);
        self.halt(fault).await;
        let reply = match fault {
            Fault::None | Fault::RepeatedLate { .. } | Fault::Halted => request.await,
            Fault::NotApplied | Fault::Throttled | Fault::Refused | Fault::ReplyLost | Fault::AppliedLate { .. } => {
                Err(failed(&call, fault))
            }
        };
        self.deliver(call.index).await;
        reply
    }

    async fn write_like<T, F>(&self, verb: Verb, key: &Key, request: impl Fn(Arc<dyn Store>) -> F + Send) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (call, fault) = self.record(verb, key.as_str());
        self.halt(fault).await;
        let request = || request(Arc::clone(&self.store));
        let reply = match fault {
            Fault::None | Fault::Halted => request().await,
            Fault::NotApplied | Fault::Throttled | Fault::Refused => Err(failed(&call, fault)),
            Fault::ReplyLost => request().await.and(Err(failed(&call, fault))),
            Fault::AppliedLate { after } => {
                self.send_late(&call, after, request());
                Err(failed(&call, fault))
            }
            Fault::RepeatedLate { after } => {
                let again = request();
                let reply = request().await;
                self.send_late(&call, after, again);
                reply
            }
        };
        self.deliver(call.index).await;
        reply
    }

    fn send_late<T>(&self, call: &Call, after: usize, request: impl Future<Output = Result<T>> + Send + 'static) {
        let request = Box::pin(async { drop(request.await) });
        self.state().late.push(Late { after: call.index.saturating_add(after), request });
    }

    /// What was to arrive after a call up to this one arrives, in the order in which it was first sent.
    async fn deliver(&self, index: usize) {
        let due: Vec<Late> = self.state().late.extract_if(.., |late| late.after <= index).collect();
        for late in due {
            late.request.await;
        }
    }
}

fn failed(call: &Call, fault: Fault) -> Error {
    let Call { index, verb, key } = call;
    let kind = match fault {
        Fault::Throttled => ErrorKind::Throttled,
        Fault::Refused => ErrorKind::Refused,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("{fault:?} as planned: call {index}, {verb:?} {key}"))
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("store", &self.store).field("calls", &self.state().calls).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for Faulty {
    async fn read(&self, key: &Key) -> Result<Option<Versioned>> {
        self.read_like(Verb::Read, key.as_str(), self.store.read(key)).await
    }

    async fn open(&self, key: &Key, span: Span) -> Result<Option<Object>> {
        self.read_like(Verb::Open, key.as_str(), self.store.open(key, span)).await
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>> {
        self.read_like(Verb::Head, key.as_str(), self.store.head(key)).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: Condition) -> Result<Put> {
        let request = |store: Arc<dyn Store>| {
            let (key, bytes, condition) = (key.clone(), bytes.clone(), condition.clone());
            async move { store.put(&key, bytes, condition).await }
        };
        self.write_like(Verb::Put, key, request).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let request = |store: Arc<dyn Store>| {
            let key = key.clone();
            async move { store.delete(&key).await }
        };
        self.write_like(Verb::Delete, key, request).await
    }

    async fn delete_if(&self, key: &Key, version: &Version) -> Result<Deleted> {
        let request = |store: Arc<dyn Store>| {
            let (key, version) = (key.clone(), version.clone());
            async move { store.delete_if(&key, &version).await }
        };
        self.write_like(Verb::DeleteIf, key, request).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Entry>> {
        self.read_like(Verb::List, prefix, self.store.list(prefix, after, limit)).await
    }

    async fn begin(&self, key: &Key) -> Result<Multipart> {
        let request = |store: Arc<dyn Store>| {
            let key = key.clone();
            async move { store.begin(&key).await }
        };
        self.write_like(Verb::Begin, key, request).await
    }

    async fn put_part(&self, upload: &Multipart, number: u32, bytes: Bytes, previous: Option<&Part>) -> Result<Placed> {
        let request = |store: Arc<dyn Store>| {
            let (upload, bytes, previous) = (upload.clone(), bytes.clone(), previous.cloned());
            async move { store.put_part(&upload, number, bytes, previous.as_ref()).await }
        };
        self.write_like(Verb::PutPart, &upload.key, request).await
    }

    async fn sync_parts(&self, upload: &Multipart, parts: &[Part]) -> Result<()> {
        let request = |store: Arc<dyn Store>| {
            let (upload, parts) = (upload.clone(), parts.to_vec());
            async move { store.sync_parts(&upload, &parts).await }
        };
        self.write_like(Verb::SyncParts, &upload.key, request).await
    }

    async fn complete(&self, upload: &Multipart, parts: &[Part]) -> Result<()> {
        let request = |store: Arc<dyn Store>| {
            let (upload, parts) = (upload.clone(), parts.to_vec());
            async move { store.complete(&upload, &parts).await }
        };
        self.write_like(Verb::Complete, &upload.key, request).await
    }

    async fn abort(&self, upload: &Multipart) -> Result<()> {
        let request = |store: Arc<dyn Store>| {
            let upload = upload.clone();
            async move { store.abort(&upload).await }
        };
        self.write_like(Verb::Abort, &upload.key, request).await
    }

    async fn presign(&self, key: &Key, ttl: Duration) -> Result<Option<String>> {
        self.store.presign(key, ttl).await
    }

    fn limits(&self) -> Limits {
        self.store.limits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{contract::contract, memory::MemoryStore};

    contract!((Faulty::new(Arc::new(MemoryStore::default()), |_| Fault::None), ()));

    fn key() -> Key {
        Key::parse("a").unwrap()
    }

    /// A memory store, and the same with this fault at the call with this index.
    fn fixture(index: usize, fault: Fault) -> (Arc<MemoryStore>, Faulty) {
        let store = Arc::new(MemoryStore::default());
        let plan = move |call: &Call| if call.index == index { fault } else { Fault::None };
        (Arc::clone(&store), Faulty::new(store, plan))
    }

    async fn content(store: &dyn Store) -> Option<Bytes> {
        store.read(&key()).await.unwrap().map(|there| there.bytes)
    }

    #[tokio::test]
    async fn a_write_that_is_not_applied_changes_nothing() {
        let (below, store) = fixture(0, Fault::NotApplied);
        let error = store.put(&key(), "1".into(), Condition::Create).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert_eq!(content(&*below).await, None);
        assert_ne!(store.put(&key(), "1".into(), Condition::Create).await.unwrap(), Put::Lost);
    }

    #[tokio::test]
    async fn a_write_whose_reply_is_lost_is_applied() {
        let (below, store) = fixture(0, Fault::ReplyLost);
        let error = store.put(&key(), "1".into(), Condition::Create).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert_eq!(content(&*below).await, Some("1".into()));
    }

    #[tokio::test]
    async fn a_write_repeated_late_arrives_again_after_so_many_further_calls() {
        let (below, store) = fixture(0, Fault::RepeatedLate { after: 2 });
        assert_ne!(store.put(&key(), "1".into(), Condition::Create).await.unwrap(), Put::Lost);
        store.delete(&key()).await.unwrap();
        assert_eq!(content(&*below).await, None);
        store.head(&key()).await.unwrap();
        assert_eq!(content(&*below).await, Some("1".into()), "created again, by the late one");
    }

    #[tokio::test]
    async fn a_write_that_is_applied_late_fails_and_happens_all_the_same() {
        let (below, store) = fixture(0, Fault::AppliedLate { after: 1 });
        let error = store.put(&key(), "1".into(), Condition::Create).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert_eq!(content(&*below).await, None);
        assert_eq!(store.head(&key()).await.unwrap(), None);
        assert_eq!(content(&*below).await, Some("1".into()));
    }

    #[tokio::test]
    async fn a_call_that_halts_is_applied_when_it_is_released() {
        let (below, store) = fixture(0, Fault::Halted);
        let store = Arc::new(store);
        let caller = Arc::clone(&store);
        let stopped = tokio::spawn(async move { caller.put(&key(), "1".into(), Condition::Create).await });
        store.halted().await;
        assert_eq!(content(&*below).await, None);
        store.release();
        assert_ne!(stopped.await.unwrap().unwrap(), Put::Lost);
        assert_eq!(content(&*below).await, Some("1".into()));
    }

    #[tokio::test]
    async fn what_is_still_late_arrives_on_demand() {
        let (below, store) = fixture(0, Fault::RepeatedLate { after: 100 });
        store.put(&key(), "1".into(), Condition::Create).await.unwrap();
        store.delete(&key()).await.unwrap();
        store.deliver_late().await;
        assert_eq!(content(&*below).await, Some("1".into()));
    }

    #[tokio::test]
    async fn a_read_fails_or_takes_no_notice() {
        for (fault, fails) in
            [(Fault::NotApplied, true), (Fault::ReplyLost, true), (Fault::RepeatedLate { after: 0 }, false)]
        {
            let (_, store) = fixture(0, fault);
            assert_eq!(store.head(&key()).await.is_err(), fails, "{fault:?}");
            assert_eq!(store.head(&key()).await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn calls_are_recorded_in_their_order_also_those_that_fail() {
        let (_, store) = fixture(1, Fault::NotApplied);
        let upload = store.begin(&key()).await.unwrap();
        store.list("pre", None, 1).await.unwrap_err();
        store.abort(&upload).await.unwrap();
        let call = |index, verb, key: &str| Call { index, verb, key: key.to_owned() };
        assert_eq!(store.calls(), [call(0, Verb::Begin, "a"), call(1, Verb::List, "pre"), call(2, Verb::Abort, "a")]);
    }
}
