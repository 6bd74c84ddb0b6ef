//! A register: a small mutable object, changed by create-if-absent and compare-and-swap only.
//!
//! Its bytes are one letter for the state, a fresh nonce, and for what is there a line feed and the value:
//!
//! ```text
//! l<nonce>\n<value>   live
//! c<nonce>\n<value>   condemned: the collector means to take it; who needs it lifts it, and then the collector loses
//! g<nonce>            gone: a tombstone
//! d<nonce>            gone because a client deleted it
//! q<nonce>\n<content> in quarantine: what it was, byte for byte, is damaged or stands for what is. It counts as absent, to
//!                     whoever reads it and to whoever pushes the same again; to the collector as something that may be needed
//! ```
//!
//! The nonce makes every content new, so that equal values never mean equal versions and a lost reply is settled by
//! reading back. A tombstone is shorter than any live register, so that a list tells them apart by size.

use std::{fmt, marker::PhantomData};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

use super::nonce::Nonce;
use crate::store::{self, Condition, ErrorKind, Key, Put, Store, Version};

/// A register of values of one type, at one key.
pub(crate) struct Register<T> {
    key: Key,
    value: PhantomData<fn() -> T>,
}

/// What a register holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State<T> {
    /// Never written, as far as one can see.
    Absent,
    Gone {
        by_client: bool,
    },
    /// The content that it had.
    Quarantined(Bytes),
    Condemned(T),
    Live(T),
}

/// What was read of a register, and with it the right to write over exactly that.
#[derive(Clone, Debug)]
pub(crate) struct Seen<T> {
    pub(crate) state: State<T>,
    condition: Condition,
    nonce: Option<Nonce>,
}

/// How writing over what was seen ended.
#[derive(Debug)]
pub(crate) enum Written<T> {
    /// It is there, with this nonce.
    Done(Nonce),
    /// Something else was there: this write did not happen and will not. It is what is there now.
    Lost(Seen<T>),
    /// The store failed, and something else is there now: this write may have happened before it, or not.
    Unclear(Seen<T>),
}

/// What a register can hold.
pub(crate) trait Value: Sized + Send + Sync {
    fn encode(&self, into: &mut BytesMut) -> Result<(), serde_json::Error>;
    fn decode(bytes: Bytes) -> Option<Self>;
}

/// A value kept as JSON.
pub(crate) trait JsonValue: Serialize + DeserializeOwned + Send + Sync {}

impl<T: JsonValue> Value for T {
    fn encode(&self, into: &mut BytesMut) -> Result<(), serde_json::Error> {
        serde_json::to_writer(into.writer(), self)
    }

    fn decode(bytes: Bytes) -> Option<Self> {
        serde_json::from_slice(&bytes).ok()
    }
}

/// The size below which a register found in a list is a tombstone. Live ones have at least a line feed and a value of
/// ten bytes more than a tombstone.
pub(crate) const LIVE_AT_LEAST: u64 = 32;

/// How often one write is tried again while the store fails and nobody else has written.
const TRIES: usize = 3;

impl<T: Value> Register<T> {
    pub(crate) fn at(key: Key) -> Self {
        Self { key, value: PhantomData }
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) async fn read(&self, store: &dyn Store) -> store::Result<Seen<T>> {
        let Some(found) = store.read(&self.key).await? else { return Ok(Seen::absent()) };
        self.decode(&found.bytes, found.version)
    }

    /// The same, but what cannot be decoded is as if it were in quarantine already. For mending.
    pub(crate) async fn read_damaged(&self, store: &dyn Store) -> store::Result<Seen<T>> {
        let Some(found) = store.read(&self.key).await? else { return Ok(Seen::absent()) };
        let as_it_is = || Seen {
            state: State::Quarantined(found.bytes.clone()),
            condition: Condition::Replace(found.version.clone()),
            nonce: None,
        };
        Ok(self.decode(&found.bytes, found.version.clone()).unwrap_or_else(|_| as_it_is()))
    }

    /// Writes a live value over exactly what was seen.
    pub(crate) async fn publish(&self, store: &dyn Store, over: &Seen<T>, value: &T) -> store::Result<Written<T>> {
        self.write(store, over, |nonce| encode('l', nonce, value)).await
    }

    /// Marks what was seen as about to be taken: it stays, and who needs it lifts it.
    pub(crate) async fn condemn(&self, store: &dyn Store, over: &Seen<T>, value: &T) -> store::Result<Written<T>> {
        self.write(store, over, |nonce| encode('c', nonce, value)).await
    }

    /// What is there as it was seen, made live again if it is condemned; `None` where nothing is. Only after a reference in
    /// flight has been written: then who condemns it later sees that, and who condemned it before loses here.
    pub(crate) async fn lift(&self, store: &dyn Store, mut seen: Seen<T>) -> store::Result<Option<T>> {
        loop {
            match seen.state {
                State::Live(value) => return Ok(Some(value)),
                State::Absent | State::Gone { .. } | State::Quarantined(_) => return Ok(None),
                State::Condemned(ref value) => match self.publish(store, &seen, value).await? {
                    Written::Done(_) => return Ok(seen.into_present()),
                    Written::Lost(now) | Written::Unclear(now) => seen = now,
                },
            }
        }
    }

    /// Writes something new that says the same over exactly what was seen: whoever read it before loses. `false`: it has
    /// changed already.
    pub(crate) async fn refresh(&self, store: &dyn Store, seen: &Seen<T>) -> store::Result<bool> {
        let written = match &seen.state {
            State::Live(value) => self.publish(store, seen, value).await?,
            State::Condemned(_) => return Ok(true),
            State::Quarantined(_) => self.quarantine(store, seen).await?,
            State::Absent => self.bury(store, seen, false).await?,
            State::Gone { by_client } => self.bury(store, seen, *by_client).await?,
        };
        Ok(written.is_done())
    }

    /// Writes a tombstone over exactly what was seen.
    pub(crate) async fn bury(&self, store: &dyn Store, over: &Seen<T>, by_client: bool) -> store::Result<Written<T>> {
        let state = if by_client { 'd' } else { 'g' };
        self.write(store, over, |nonce| Ok(Bytes::from(format!("{state}{nonce}")))).await
    }

    /// Puts what was seen out of the way, and keeps it. What is too short to ever have been live goes.
    pub(crate) async fn quarantine(&self, store: &dyn Store, over: &Seen<T>) -> store::Result<Written<T>> {
        let content = match (&over.state, over.nonce) {
            (State::Live(value) | State::Condemned(value), Some(nonce)) => encode('l', nonce, value),
            (State::Quarantined(content), _) => Ok(content.clone()),
            _ => Ok(Bytes::new()),
        };
        let content = content.map_err(|error| self.corrupt("cannot be written").with_source(error))?;
        if (content.len() as u64) < LIVE_AT_LEAST {
            return self.bury(store, over, false).await;
        }
        let quarantined = |nonce: Nonce| [format!("q{nonce}\n").as_bytes(), &content].concat();
        self.write(store, over, |nonce| Ok(Bytes::from(quarantined(nonce)))).await
    }

    /// One conditional write. A failed one is settled by reading back: our nonce tells our content from any other.
    async fn write(
        &self,
        store: &dyn Store,
        over: &Seen<T>,
        content: impl Fn(Nonce) -> Result<Bytes, serde_json::Error>,
    ) -> store::Result<Written<T>> {
        let mut condition = over.condition.clone();
        let mut mine = Vec::new();
        let mut failure = None;
        for _ in 0..TRIES {
            let nonce = Nonce::fresh();
            mine.push(nonce);
            let bytes = content(nonce).map_err(|error| self.corrupt("cannot be written").with_source(error))?;
            let failed = match store.put(&self.key, bytes, condition.clone()).await {
                Ok(Put::Stored(_)) => return Ok(Written::Done(nonce)),
                Ok(Put::Lost) => None,
                Err(error) if error.kind.is_transient() => Some(error),
                Err(error) => return Err(error),
            };
            let now = self.read(store).await?;
            match (now.nonce.filter(|nonce| mine.contains(nonce)), failed) {
                // A request that was sent twice lost against itself.
                (Some(nonce), None) => return Ok(Written::Done(nonce)),
                // Ours is there but was never confirmed, so it may not be durable: write it once more, over itself.
                // If we stop here the write has happened or not, which is what the error then says.
                (Some(_), Some(error)) => failure = Some(error),
                (None, None) if failure.is_none() => return Ok(Written::Lost(now)),
                // It has not happened. Should it happen late, then only while nobody else has written.
                (None, Some(error)) if now.condition == condition => failure = Some(error),
                (None, _) => return Ok(Written::Unclear(now)),
            }
            condition = now.condition;
        }
        Err(failure.unwrap_or_else(|| self.corrupt("changes faster than it can be read")))
    }

    fn decode(&self, bytes: &Bytes, version: Version) -> store::Result<Seen<T>> {
        let (nonce, state) = State::decode(bytes).map_err(|why| self.corrupt(why))?;
        Ok(Seen { state, condition: Condition::Replace(version), nonce: Some(nonce) })
    }

    fn corrupt(&self, why: &str) -> store::Error {
        store::Error::new(ErrorKind::Corrupt, format!("register {} {why}", self.key))
    }
}

fn encode<T: Value>(state: char, nonce: Nonce, value: &T) -> Result<Bytes, serde_json::Error> {
    let mut bytes = BytesMut::new();
    bytes.put_slice(format!("{state}{nonce}\n").as_bytes());
    value.encode(&mut bytes).map(|()| bytes.freeze())
}

impl<T: Value> State<T> {
    /// Reads the bytes of a register, or says what is wrong with them.
    pub(crate) fn decode(bytes: &Bytes) -> Result<(Nonce, Self), &'static str> {
        let (state, rest) = bytes.split_first().ok_or("is empty")?;
        let nonce = rest.get(..Nonce::LENGTH).and_then(Nonce::parse).ok_or("has no nonce")?;
        let value = || {
            let start = 1 + Nonce::LENGTH;
            let value = (bytes.get(start) == Some(&b'\n')).then(|| bytes.slice(start + 1..)).and_then(T::decode);
            value.ok_or("has no readable value")
        };
        let gone = |by_client| {
            let bare = rest.len() == Nonce::LENGTH;
            bare.then_some(Self::Gone { by_client }).ok_or("is gone and has a value")
        };
        let state = match state {
            b'l' => Self::Live(value()?),
            b'c' => Self::Condemned(value()?),
            b'g' => gone(false)?,
            b'd' => gone(true)?,
            b'q' => {
                let content = rest.get(Nonce::LENGTH..).and_then(|rest| rest.strip_prefix(b"\n"));
                let is_whole = |content: &&[u8]| content.len() as u64 >= LIVE_AT_LEAST;
                let content = content.filter(is_whole).ok_or("is in quarantine and has no content")?;
                Self::Quarantined(bytes.slice_ref(content))
            }
            _ => return Err("is in no known state"),
        };
        Ok((nonce, state))
    }
}

impl<T> State<T> {
    pub(crate) fn into_present(self) -> Option<T> {
        match self {
            Self::Live(value) | Self::Condemned(value) => Some(value),
            Self::Absent | Self::Gone { .. } | Self::Quarantined(_) => None,
        }
    }
}

impl<T> Written<T> {
    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

impl<T> Seen<T> {
    /// Not looked at, but expected to be absent: if it is not, writing over it loses.
    pub(crate) fn absent() -> Self {
        Self { state: State::Absent, condition: Condition::Create, nonce: None }
    }

    /// The value, where there is one: live, or condemned and not yet gone.
    pub(crate) fn present(&self) -> Option<&T> {
        match &self.state {
            State::Live(value) | State::Condemned(value) => Some(value),
            State::Absent | State::Gone { .. } | State::Quarantined(_) => None,
        }
    }

    fn into_present(self) -> Option<T> {
        self.state.into_present()
    }

    pub(crate) fn live(&self) -> Option<&T> {
        match &self.state {
            State::Live(value) => Some(value),
            State::Absent | State::Gone { .. } | State::Quarantined(_) | State::Condemned(_) => None,
        }
    }

    /// The nonce of what is there, if anything ever was.
    pub(crate) fn nonce(&self) -> Option<Nonce> {
        self.nonce
    }

    pub(crate) fn is_quarantined(&self) -> bool {
        matches!(self.state, State::Quarantined(_))
    }

    /// Whether it is gone because a client deleted it.
    pub(crate) fn is_by_client(&self) -> bool {
        matches!(self.state, State::Gone { by_client: true })
    }

    /// Whether this is the content that had that version.
    pub(crate) fn is_at(&self, version: Option<&Version>) -> bool {
        matches!(&self.condition, Condition::Replace(of) if Some(of) == version)
    }

    /// Whether this and the other are one content of one register.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.condition == other.condition
    }
}

impl<T: Value + Clone> Seen<T> {
    /// The value, where there is one, or was before it was put in quarantine and can still be read.
    pub(crate) fn told(&self) -> Option<T> {
        match &self.state {
            State::Live(value) | State::Condemned(value) => Some(value.clone()),
            State::Absent | State::Gone { .. } => None,
            State::Quarantined(content) => match State::decode(content).ok()?.1 {
                State::Live(value) | State::Condemned(value) => Some(value),
                State::Absent | State::Gone { .. } | State::Quarantined(_) => None,
            },
        }
    }
}

impl<T> fmt::Debug for Register<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Register({})", self.key)
    }
}
