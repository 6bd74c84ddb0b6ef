//! What the queues hold that is not due yet.

use super::{Collector, Condemned, Event};
use crate::{
    registry::{
        Result,
        layout::{self, Named},
        pages::Pages,
        pending::{self, Dropped, DroppedWhat},
    },
    store::Key,
};

impl Collector {
    /// Tells what rests, and what deleted manifests keep. A round tells the rest.
    pub async fn outlook(&self, observer: &mut (dyn FnMut(&Event) + Send)) -> Result<()> {
        for queue in [layout::CONDEMNED, layout::DROPPED] {
            let mut pages = Pages::new(queue);
            while let Some(keys) = pages.next(self.store()).await? {
                for key in keys.iter().filter(|key| !self.registry.is_due(key)) {
                    self.left.go_on(self.tell_of(key, observer).await, key)?;
                }
            }
        }
        Ok(())
    }

    async fn tell_of(&self, key: &Key, observer: &mut (dyn FnMut(&Event) + Send)) -> Result<()> {
        let until = layout::due(key);
        match layout::parse(key) {
            Some(Named::Condemned(repository)) => {
                let entry: Option<Condemned> = pending::read(self.store(), key).await?;
                for (digest, _, why) in entry.into_iter().flat_map(|entry| entry.holders) {
                    observer(&Event::Resting { repository: repository.clone(), digest, why, until });
                }
            }
            Some(Named::Dropped(repository)) => {
                let entry: Option<Dropped> = pending::read(self.store(), key).await?;
                if let Some(DroppedWhat::Manifest { digest: manifest, .. }) = entry.map(|entry| entry.what) {
                    observer(&Event::Restorable { repository, manifest, until });
                }
            }
            _ => {}
        }
        Ok(())
    }
}
