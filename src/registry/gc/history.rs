//! The history of tags, as far as nothing can be put back by it any more.

use super::{Collected, Collector};
use crate::{
    registry::{
        Result,
        layout::{self, Named},
        nonce::milliseconds_of,
        pages::Pages,
    },
    store::Key,
};

impl Collector {
    /// Removes the days that are over for good. The oldest are listed first, so that a round looks at nothing that it does
    /// not remove, but for one page.
    pub(super) async fn collect_history(&self, done: &mut Collected) -> Result<()> {
        let oldest_day = layout::day(self.registry.history_begins());
        let is_over = |key: &Key| match layout::parse(key) {
            Some(Named::History(.., id)) => layout::day(milliseconds_of(id)) < oldest_day,
            _ => false,
        };
        let mut pages = Pages::new(layout::HISTORY);
        while let Some(keys) = pages.next(self.store()).await? {
            let over: Vec<_> = keys.iter().filter(|key| is_over(key)).cloned().collect();
            self.consume(&over).await?;
            done.history += over.len() as u64;
            if over.len() < keys.len() {
                break;
            }
        }
        Ok(())
    }
}
