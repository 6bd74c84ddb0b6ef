//! What holds of any bytes that a store may hand back as a record of a journal.

use bytes::Bytes;

use super::Journal;

/// The longest tail that an input may claim to have in earlier records.
const LONGEST: usize = 1 << 16;

/// A record that was read, and those that may follow it, are written as what reads back as the same.
pub(crate) fn journal(input: &[u8]) {
    let Some((nonce, mut journal)) = Journal::decode(1, &Bytes::copy_from_slice(input)) else { return };
    if journal.tail_before > LONGEST {
        return;
    }
    journal.fill_tail();
    for record in [journal.next_accepted(journal.accepted.clone(), true), journal.next_same(), journal.clone()] {
        let written = record.encode(&nonce).unwrap_or_default();
        let again = Journal::decode(1, &written).and_then(|(nonce, mut again)| {
            again.fill_tail();
            again.encode(&nonce).ok()
        });
        assert_eq!(again, Some(written));
    }
    assert!(journal.ahead.is_some() || journal.received() == journal.accepted.offset);
    for point in [&journal.accepted].into_iter().chain(&journal.ahead) {
        if let Ok(mut hasher) = point.hasher() {
            assert_eq!(hasher.save(), point.hash);
            hasher.update(&point.tail);
        }
    }
}

impl Journal {
    /// Puts before a record's own bytes what it leaves in earlier ones.
    fn fill_tail(&mut self) {
        self.accepted.tail = [&vec![0; self.tail_before], &*self.accepted.tail].concat().into();
    }
}
