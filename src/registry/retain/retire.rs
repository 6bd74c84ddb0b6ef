//! How a manifest that nothing needs goes: condemned, looked for, deleted.

use std::collections::BTreeSet;

use super::{Deleted, KnownManifest, ReadManifest, Report, Retainer, Spared, Verdict};
use crate::{
    oci::{Digest, Repository},
    registry::{
        Result,
        gc::Needed,
        layout,
        nonce::Nonce,
        register::{State, Written},
    },
};

/// How many are condemned before a look goes through the repository for all of them.
const BATCH: usize = 1000;

impl Retainer {
    pub(super) async fn retire(
        &self,
        repository: &Repository,
        mut doomed: Vec<(ReadManifest, Verdict)>,
        report: &mut Report<'_>,
    ) -> Result<()> {
        while !doomed.is_empty() {
            let batch: Vec<_> = doomed.drain(..doomed.len().min(BATCH)).collect();
            let digests: BTreeSet<Digest> = batch.iter().map(|(read, _)| read.known.digest).collect();
            // Only saves condemning.
            let needed = self.collector.needed_children(repository, &digests).await?;
            let mut condemned = Vec::new();
            for (read, verdict) in batch {
                let outcome = match who_needs(&needed, &read.known.digest) {
                    None => self.condemn(repository, &read.known).await?.ok_or(Spared::Changed),
                    Some(spared) => Err(spared),
                };
                match outcome {
                    Ok(nonce) => condemned.push((read, verdict, nonce)),
                    Err(spared) => report.tell(repository, read.thing(), verdict, Some(spared)),
                }
            }
            // From here on, who comes to one of them lifts it, and the last write to it loses. Who came before is found. If we
            // stop, what is condemned is there as ever, and the next walk comes upon it.
            let digests = condemned.iter().map(|(read, ..)| read.known.digest).collect();
            let needed = self.collector.needed_children(repository, &digests).await?;
            for (read, verdict, nonce) in condemned {
                let spared = match who_needs(&needed, &read.known.digest) {
                    None => self.take(repository, &read.known.digest, &verdict, nonce).await?,
                    needed => needed,
                };
                if spared.is_some() {
                    self.registry.lift_manifest(repository, &read.known.digest).await?;
                }
                report.tell(repository, read.thing(), verdict, spared);
            }
        }
        Ok(())
    }

    /// `None`: it has been pushed again, deleted, or written by somebody else meanwhile.
    async fn condemn(&self, repository: &Repository, known: &KnownManifest) -> Result<Option<Nonce>> {
        let register = layout::manifest(repository, &known.digest);
        let seen = register.read(self.store()).await?;
        match &seen.state {
            State::Live(stored) if stored.links.at == known.at => {
                match register.condemn(self.store(), &seen, stored).await? {
                    Written::Done(nonce) => Ok(Some(nonce)),
                    Written::Lost(_) | Written::Unclear(_) => Ok(None),
                }
            }
            // By a walk that stopped, or one that is at work beside this one: whoever comes first takes it.
            State::Condemned(stored) if stored.links.at == known.at => Ok(seen.nonce()),
            State::Live(_) | State::Condemned(_) | State::Quarantined(_) | State::Absent | State::Gone { .. } => {
                Ok(None)
            }
        }
    }

    /// Deletes what was condemned, unless it was lifted since, has a tag, or refers to what is there again.
    async fn take(
        &self,
        repository: &Repository,
        digest: &Digest,
        verdict: &Verdict,
        nonce: Nonce,
    ) -> Result<Option<Spared>> {
        if let Verdict::Deleted { why: Deleted::Orphaned { subject }, .. } = verdict
            && self.is_there(repository, subject).await?
        {
            return Ok(Some(Spared::Needed));
        }
        let seen = layout::manifest(repository, digest).read(self.store()).await?;
        let deleted = seen.nonce() == Some(nonce) && self.registry.delete_condemned(repository, digest, &seen).await?;
        Ok((!deleted).then_some(Spared::Changed))
    }
}

fn who_needs(needed: &Needed, digest: &Digest) -> Option<Spared> {
    if needed.is_named(digest) {
        return Some(Spared::Needed);
    }
    needed.in_flight(digest).map(|_| Spared::InFlight)
}
