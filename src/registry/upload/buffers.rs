//! Buffers of the size of a part go round.
//!
//! An allocator keeps what it was given back, with holes that fit nothing as large, and in as many places as there are
//! threads. Of buffers of megabytes that come and go this is as much memory again as they need.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

/// Smaller ones are not worth it.
const WORTH_IT: usize = 1 << 20;

/// Those that nobody uses now. All have one capacity.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// An empty one with room for this many bytes, which were granted. Spare ones of another size are dropped: they are
    /// in nobody's grant.
    pub(crate) fn take(&self, capacity: usize) -> Vec<u8> {
        let mut spare = self.spare();
        spare.retain(|buffer| buffer.capacity() == capacity);
        spare.pop().unwrap_or_else(|| Vec::with_capacity(capacity))
    }

    /// Its bytes. It comes back when the last who reads them is done.
    pub(crate) fn lend(&self, buffer: Vec<u8>) -> Bytes {
        if buffer.capacity() < WORTH_IT {
            return buffer.into();
        }
        Bytes::from_owner(Lent { buffer, home: self.clone() })
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        // No code panics while it holds the lock, so a poisoned one is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Lent {
    buffer: Vec<u8>,
    home: Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut buffer = mem::take(&mut self.buffer);
        buffer.clear();
        self.home.spare().push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty_when_the_last_reader_is_done() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take(WORTH_IT);
        buffer.extend_from_slice(b"abc");
        let place = buffer.as_ptr();
        let bytes = buffers.lend(buffer);
        let slice = bytes.slice(1..);
        drop(bytes);
        let other = buffers.take(WORTH_IT);
        assert_ne!(other.as_ptr(), place, "it is still read");
        assert_eq!(slice, "bc");
        drop(slice);
        let again = buffers.take(WORTH_IT);
        assert_eq!((again.as_ptr(), again.as_slice()), (place, &b""[..]));
    }

    #[test]
    fn spare_buffers_do_not_stay_beside_those_of_another_size() {
        let buffers = Buffers::default();
        drop(buffers.lend(buffers.take(WORTH_IT)));
        assert_eq!(buffers.spare().len(), 1);
        buffers.take(WORTH_IT / 2);
        assert_eq!(buffers.spare().len(), 0);
    }
}
