//! A repository without manifests leaves the catalog.

use super::{Collector, Event, Told};
use crate::{
    oci::Repository,
    registry::{
        Result, layout,
        nonce::Nonce,
        pending::{Dropped, DroppedWhat},
        register::{State, Written},
    },
};

/// What a line of the catalog is there for.
enum Use {
    None,
    /// A push that may bring the first manifest.
    InFlight,
    Manifests,
}

impl Collector {
    /// Takes the repository's line out of the catalog if no manifest is left. A push writes its reference in flight before
    /// it looks at the line, and lifts it.
    pub(super) async fn collect_catalog(
        &self,
        repository: &Repository,
        tombstones: &mut Vec<(String, Nonce)>,
        told: &mut Told<'_>,
    ) -> Result<()> {
        let collected = self.collect_line(repository, tombstones, told).await;
        if self.left.go_on(collected.map(|()| true), repository)? { Ok(()) } else { self.look_again(repository).await }
    }

    async fn collect_line(
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
            match self.use_of(repository).await? {
                Use::Manifests => return Ok(()),
                Use::InFlight => return self.look_again(repository).await,
                Use::None => {}
            }
            if !register.condemn(self.store(), &seen, line).await?.is_done() {
                return self.look_again(repository).await;
            }
            seen = register.read(self.store()).await?;
        }
        if !matches!(seen.state, State::Condemned(_)) {
            return self.look_again(repository).await;
        }
        match self.use_of(repository).await? {
            Use::Manifests => drop(register.lift(self.store(), seen).await?),
            Use::InFlight => {
                register.lift(self.store(), seen).await?;
                return self.look_again(repository).await;
            }
            Use::None => match register.bury(self.store(), &seen, false).await? {
                Written::Done(nonce) => {
                    told.tell(Event::RepositoryGone { repository: repository.clone() });
                    tombstones.push((register.key().as_str().to_owned(), nonce));
                }
                Written::Lost(_) | Written::Unclear(_) => return self.look_again(repository).await,
            },
        }
        Ok(())
    }

    /// References in flight first, then what they turn into.
    async fn use_of(&self, repository: &Repository) -> Result<Use> {
        let in_flight = !self.store().list(&layout::pending_manifests(repository), None, 1).await?.is_empty();
        if self.has_manifests(repository).await? {
            return Ok(Use::Manifests);
        }
        Ok(if in_flight { Use::InFlight } else { Use::None })
    }

    /// To be looked at again: a push that is refused leaves nothing that leads here, nor does a line that is.
    async fn look_again(&self, repository: &Repository) -> Result<()> {
        let what = DroppedWhat::Catalog {};
        Dropped { at: self.registry.now(), repository: repository.clone(), what }
            .put(self.store(), self.wait())
            .await?;
        Ok(())
    }
}
