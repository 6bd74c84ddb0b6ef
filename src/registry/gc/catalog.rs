//! A repository without manifests leaves the catalog.

use super::{Collector, Event, Told};
use crate::{
    oci::Repository,
    registry::{
        Result, layout,
        nonce::Nonce,
        register::{State, Written},
    },
};

impl Collector {
    /// Takes the repository's line out of the catalog if no manifest is left. A push writes its reference in flight before
    /// it looks at the line, and lifts it.
    pub(super) async fn collect_catalog(
        &self,
        repository: &Repository,
        tombstones: &mut Vec<(String, Nonce)>,
        told: &mut Told<'_>,
    ) -> Result<()> {
        let register = layout::catalog(repository);
        let mut seen = register.read(self.store()).await?;
        let (State::Live(line) | State::Condemned(line)) = &seen.state else {
            // Perhaps taken by one that stopped before it could note this.
            if let (State::Gone { .. }, Some(nonce)) = (&seen.state, seen.nonce()) {
                tombstones.push((register.key().as_str().to_owned(), nonce));
            }
            return Ok(());
        };
        if matches!(seen.state, State::Live(_)) {
            if self.is_in_use(repository).await? {
                return Ok(());
            }
            if !register.condemn(self.store(), &seen, line).await?.is_done() {
                return Ok(());
            }
            seen = register.read(self.store()).await?;
        }
        if !matches!(seen.state, State::Condemned(_)) {
            return Ok(());
        }
        if self.is_in_use(repository).await? {
            register.lift(self.store(), seen).await?;
        } else if let Written::Done(nonce) = register.bury(self.store(), &seen, false).await? {
            told.tell(Event::RepositoryGone { repository: repository.clone() });
            tombstones.push((register.key().as_str().to_owned(), nonce));
        }
        Ok(())
    }

    /// References in flight first, then what they turn into.
    async fn is_in_use(&self, repository: &Repository) -> Result<bool> {
        let in_flight = self.store().list(&layout::pending_manifests(repository), None, 1).await?;
        Ok(!in_flight.is_empty() || self.has_manifests(repository).await?)
    }
}
