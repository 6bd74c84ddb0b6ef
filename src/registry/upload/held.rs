//! What has been taken in and is in no part yet.

use std::{io, mem, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    budget::{Budget, Grant},
    spool::Spool,
};
use crate::registry::{Error, Result};

/// How long a client may take to fill the memory of a part while others wait for some. Those that are slower go by way of
/// a file, which costs little: it has the size of a part, and is read back at once when it is full.
const PATIENCE: Duration = Duration::from_secs(1);
/// There is as much in files already as may be.
const NO_ROOM: io::ErrorKind = io::ErrorKind::QuotaExceeded;

/// Bytes in memory, granted or on their way to be; or else in a file, so that a slow client holds no memory.
#[derive(Debug)]
pub(super) struct Held {
    /// What the session had already, with its own grant. Moves to one of the others before anything is added to it.
    found: Bytes,
    buffer: Vec<u8>,
    grant: Option<Grant>,
    since: Instant,
    /// The most that it ever holds.
    part: usize,
    spool: Option<Spool>,
    is_slow: bool,
    /// It is to go to a file where others need the memory.
    spools: bool,
    /// There is no room in files, or none can be written.
    no_file: bool,
}

impl Held {
    /// For up to a `part`. `spools`: whether it is to go to a file where others need the memory.
    pub(super) fn new(found: Bytes, part: u64, spools: bool) -> Self {
        let (part, since) = (usize::try_from(part).unwrap_or(usize::MAX), Instant::now());
        Self {
            found,
            buffer: Vec::new(),
            grant: None,
            since,
            part,
            spool: None,
            is_slow: false,
            spools,
            no_file: false,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.spool.as_ref().map_or(self.found.len() + self.buffer.len(), Spool::len) as u64
    }

    pub(super) fn is_granted(&self) -> bool {
        self.grant.is_some()
    }

    pub(super) fn is_spooled(&self) -> bool {
        self.spool.is_some()
    }

    /// How many more bytes were granted than are held.
    pub(super) fn room(&self) -> u64 {
        self.grant.as_ref().map_or(0, Grant::bytes).saturating_sub(self.buffer.len() as u64)
    }

    /// Waits for memory, for this many bytes in all; or has what is held go to a file, if it would wait with that, or if
    /// its client is known to be slow.
    pub(super) async fn start(&mut self, bytes: u64, budget: &Budget) -> Result<()> {
        let mut grant = budget.try_grant(bytes);
        if grant.is_none() && self.spools && (self.is_slow || !self.found.is_empty()) {
            if !self.no_file && self.let_go(budget).await {
                return Ok(());
            }
            if !self.found.is_empty() {
                // It would wait with a part in its hands that is in nobody's grant. The session stays as it is.
                return Err(Error::Busy);
            }
        }
        if grant.is_none() {
            // It waits with nothing in its hands that others wait for.
            self.found = Bytes::copy_from_slice(&self.found);
            grant = Some(budget.grant(bytes).await);
        }
        self.grant = grant;
        self.since = Instant::now();
        self.reserve(budget);
        self.buffer.extend_from_slice(&mem::take(&mut self.found));
        Ok(())
    }

    /// Grows if that is possible at once.
    pub(super) fn grow(&mut self, bytes: u64, budget: &Budget) -> bool {
        let grown = self.grant.as_mut().is_some_and(|grant| grant.grow(bytes));
        if grown {
            self.reserve(budget);
        }
        grown
    }

    fn reserve(&mut self, budget: &Budget) {
        let room = usize::try_from(self.room()).unwrap_or_default();
        if self.buffer.capacity() == 0 {
            self.buffer = budget.buffers().take(room);
        } else {
            self.buffer.reserve_exact(room);
        }
    }

    pub(super) async fn extend(&mut self, bytes: Bytes, budget: &Budget) -> Result<()> {
        if let Some(spool) = &mut self.spool {
            let appended = match budget.try_file(bytes.len()) {
                Some(room) => spool.append(bytes.clone(), room).await,
                None => Err(NO_ROOM.into()),
            };
            match appended {
                Ok(()) => return Ok(()),
                Err(error) => self.no_file(&error),
            }
            self.recall(self.part, budget).await?;
        }
        self.buffer.extend_from_slice(&bytes);
        Ok(())
    }

    /// Returns when others have waited for memory, and this client for longer than is right.
    pub(super) async fn is_in_the_way(&self, budget: &Budget) {
        tokio::time::sleep_until(self.since + PATIENCE).await;
        budget.wanted().await;
    }

    pub(super) fn may_let_go(&self) -> bool {
        self.spools && !self.no_file && (self.grant.is_some() || !self.found.is_empty())
    }

    /// Has what is held go to a file, and gives its memory back. `false`: that cannot be.
    pub(super) async fn let_go(&mut self, budget: &Budget) -> bool {
        let bytes = self.in_memory(budget);
        let spooled = match budget.try_file(bytes.len()) {
            Some(room) => Spool::of(bytes.clone(), room).await,
            None => Err(NO_ROOM.into()),
        };
        match spooled {
            Ok(spool) => {
                self.spool = Some(spool);
                drop(bytes);
                self.grant = None;
                self.is_slow = true;
                true
            }
            Err(error) => {
                self.no_file(&error);
                if self.grant.is_some() {
                    self.reserve(budget);
                    self.buffer.extend_from_slice(&bytes);
                } else {
                    self.found = bytes;
                }
                false
            }
        }
    }

    fn no_file(&mut self, error: &io::Error) {
        tracing::warn!(%error, "a slow upload keeps its memory: there is no room for a temporary file");
        self.no_file = true;
    }

    /// Has all of it in memory, and room for this many bytes if that is more.
    async fn recall(&mut self, bytes: usize, budget: &Budget) -> Result<()> {
        let Some(spool) = self.spool.take() else { return Ok(()) };
        let bytes = bytes.max(spool.len());
        // It waits with nothing in its hands.
        self.grant = Some(budget.grant(bytes as u64).await);
        self.since = Instant::now();
        let buffer = budget.buffers().take(bytes);
        self.buffer = spool.read(buffer).await.map_err(|error| {
            tracing::warn!(%error, "a temporary file cannot be read");
            Error::Busy
        })?;
        Ok(())
    }

    /// All of it. What was granted for it is given back when the last who has it is done.
    pub(super) async fn take(&mut self, budget: &Budget) -> Result<Bytes> {
        self.recall(0, budget).await?;
        let bytes = self.in_memory(budget);
        Ok(match self.grant.take() {
            Some(grant) => grant.hold(bytes),
            None => bytes,
        })
    }

    /// All of it, in no more memory than it needs, to be remembered for longer than this lives. What was granted for the
    /// buffer stays until this is dropped.
    pub(super) async fn take_to_keep(&mut self, budget: &Budget) -> Result<Bytes> {
        self.recall(0, budget).await?;
        self.buffer.extend_from_slice(&mem::take(&mut self.found));
        self.buffer.shrink_to_fit();
        Ok(mem::take(&mut self.buffer).into())
    }

    fn in_memory(&mut self, budget: &Budget) -> Bytes {
        let found = mem::take(&mut self.found);
        if found.is_empty() { budget.buffers().lend(mem::take(&mut self.buffer)) } else { found }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: Bytes = Bytes::from_static(b"found ");

    /// In a file, of which no more can be written.
    async fn in_a_full_file(budget: &Budget) -> Held {
        let mut held = Held::new(BYTES, 20, true);
        assert!(held.let_go(budget).await);
        assert!(held.is_spooled());
        held.spool = held.spool.take().map(Spool::full);
        held
    }

    #[tokio::test]
    async fn what_was_found_is_held_wherever_it_goes() {
        let budget = Budget::new(20);
        let held = || Held::new(BYTES, 20, true);
        assert_eq!(held().take(&budget).await.unwrap(), BYTES);
        assert_eq!(held().take_to_keep(&budget).await.unwrap(), BYTES);
        let (mut in_memory, mut in_a_file) = (held(), held());
        assert!(in_a_file.let_go(&budget).await);
        in_memory.start(20, &budget).await.unwrap();
        for mut held in [in_memory, in_a_file] {
            held.extend(Bytes::from_static(b"and more"), &budget).await.unwrap();
            assert_eq!((held.len(), held.take_to_keep(&budget).await.unwrap()), (14, Bytes::from("found and more")));
        }
    }

    #[tokio::test]
    async fn what_there_is_no_room_for_in_files_stays_in_memory() {
        let budget = Budget::new(20);
        let others = budget.try_file(usize::MAX).unwrap();
        let mut held = Held::new(BYTES, 20, true);
        assert!(!held.let_go(&budget).await);
        assert_eq!((held.is_spooled(), held.may_let_go()), (false, false));
        assert_eq!(held.take(&budget).await.unwrap(), BYTES);
        // Nor does it wait in memory that is nobody's: while others have all there is, it is put off.
        let memory = budget.grant(20).await;
        let refused = Held::new(BYTES, 20, true).start(20, &budget).await;
        assert!(matches!(refused, Err(Error::Busy)), "{refused:?}");
        drop((others, memory));
        assert!(Held::new(BYTES, 20, true).let_go(&budget).await);
    }

    #[tokio::test]
    async fn what_a_file_takes_no_more_of_comes_back_to_memory_with_room_for_the_rest_of_the_part() {
        let budget = Budget::new(20);
        let mut held = in_a_full_file(&budget).await;
        held.extend(Bytes::from_static(b"and more"), &budget).await.unwrap();
        assert_eq!((held.is_spooled(), held.may_let_go(), held.room()), (false, false, 6));
        assert_eq!(held.take(&budget).await.unwrap(), "found and more");
    }
}
