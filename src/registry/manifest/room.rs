//! The memory that pushes of manifests take, beside that of uploads: nobody who waits for the one holds the other, and a
//! slow client's manifest keeps no layer waiting, nor a large one those of usual size.

use crate::registry::{
    Registry,
    upload::{Budget, Grant},
};

/// Manifests up to this size are read as they come, and sent from memory. They are nearly all that there are, and take
/// about what a connection buffers. Larger ones wait for room first, and are streamed.
pub const SMALL_MANIFEST: usize = 64 << 10;
/// What all larger ones may take that arrive: eight of the largest, or more of others.
const ARRIVING: usize = 32 << 20;

/// What all small ones together may take that have arrived and are parsed and published, and what all larger ones may:
/// one of those takes as long as the store does to answer for each of the ten thousand that it may name.
const PUBLISHING_SMALL: usize = 32 << 20;
const PUBLISHING_LARGE: usize = 64 << 20;

/// How many bytes a push takes for each byte of its manifest, if it is made to take many: eight of 4 MiB whose annotations
/// are as small as can be took 504 MiB. So there is room for one of these at a time, and for five hundred usual ones.
const EXPANSION: u64 = 16;

pub(crate) struct Rooms {
    arriving: Budget,
    publishing_small: Budget,
    publishing_large: Budget,
}

impl Default for Rooms {
    fn default() -> Self {
        Self {
            arriving: Budget::new(ARRIVING),
            publishing_small: Budget::new(PUBLISHING_SMALL),
            publishing_large: Budget::new(PUBLISHING_LARGE),
        }
    }
}

impl Registry {
    /// Waits for memory for the body of a manifest that is not small.
    pub async fn room_for_manifest(&self, length: usize) -> Grant {
        self.rooms.arriving.grant(length as u64).await
    }

    /// Waits for memory in which a manifest of this size is parsed and published.
    pub(super) async fn room_to_publish(&self, length: usize) -> Grant {
        let Rooms { publishing_small, publishing_large, .. } = &self.rooms;
        let room = if length <= SMALL_MANIFEST { publishing_small } else { publishing_large };
        room.grant(EXPANSION * length as u64).await
    }
}
