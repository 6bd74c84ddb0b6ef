//! A blob is as good as the best of the bytes that its record or a holder names, or named before it was put in quarantine.
//! If some have the digest, record and holders are made to name those; if none do, all of them go into quarantine.

use super::{Mend, Mender, Result, lost, whole};
use crate::{
    oci::{Digest, Repository},
    registry::{
        self,
        blob::{Holder, Record},
        check::bytes::Compared,
        layout::{self, Named},
        pages::Pages,
        register::Seen,
    },
};

/// Everything that speaks of a blob.
struct Blob {
    record: Seen<Record>,
    holders: Vec<(Repository, Seen<Holder>)>,
}

impl Mender {
    pub(super) async fn mend_blob(&self, digest: &Digest) -> Result {
        let blob = self.read_blob(digest).await?;
        match self.best_of(digest, &blob).await? {
            Some(best) => self.restore(digest, blob, &best).await,
            None => self.put_blob_away(digest, blob).await,
        }
    }

    /// Makes a repository hold what one of its manifests names, and some record knows.
    pub(super) async fn hold_again(&self, repository: &Repository, digest: &Digest) -> Result {
        let over = layout::holder(digest, repository).read(self.store()).await?;
        if over.present().is_some() || over.is_by_client() {
            return Ok(Vec::new());
        }
        self.hold(repository, digest, &over).await
    }

    async fn read_blob(&self, digest: &Digest) -> registry::Result<Blob> {
        let mut holders = Vec::new();
        let mut pages = Pages::new(&layout::holders(digest));
        while let Some(keys) = pages.next(self.store()).await? {
            for key in keys {
                let Some(Named::Holder(_, repository)) = layout::parse(&key) else { continue };
                let seen = layout::holder(digest, &repository).read_damaged(self.store()).await?;
                if seen.present().is_some() || seen.is_quarantined() {
                    holders.push((repository, seen));
                }
            }
        }
        Ok(Blob { record: layout::record(digest).read_damaged(self.store()).await?, holders })
    }

    /// What the record should be: the first that is said of it and is true.
    async fn best_of(&self, digest: &Digest, blob: &Blob) -> registry::Result<Option<Record>> {
        let mut said: Vec<Record> = Vec::new();
        let held = blob.holders.iter().filter_map(|(_, seen)| seen.told()).map(|holder| holder.record());
        for record in blob.record.told().into_iter().chain(held) {
            if !said.contains(&record) {
                said.push(record);
            }
        }
        for record in said {
            let Ok(data) = record.data() else { continue };
            if layout::parse(&data) != Some(Named::Data) {
                continue;
            }
            match self.reader.compare(&data, record.size, digest).await? {
                Compared::Right => return Ok(Some(record)),
                Compared::Other(size, actual) if actual == *digest => return Ok(Some(Record::new(size, &data))),
                Compared::Other(..) | Compared::Absent | Compared::Unreadable => {}
            }
        }
        Ok(None)
    }

    async fn restore(&self, digest: &Digest, blob: Blob, best: &Record) -> Result {
        let register = layout::record(digest);
        let mut mends = Vec::new();
        if blob.record.present() != Some(best) {
            // To hash took its time, and is not allowed for what is about to be published.
            if !register.read_damaged(self.store()).await?.is_same(&blob.record) {
                return Ok(Vec::new());
            }
            if blob.record.told().is_some_and(|told| told.data().ok() != best.data().ok()) {
                self.registry.leave_damaged(digest, &blob.record).await?;
            }
            let written = register.publish(self.store(), &blob.record, best).await?;
            if !written.is_done() {
                return Ok(Vec::new());
            }
            // If we stop here the holders are found, and say another place than the record.
            mends.extend(whole(&register, &written, format!("names {}, which has the digest", best.data()?)));
        }
        for (repository, seen) in &blob.holders {
            if !seen.present().is_some_and(|holder| holder.agrees_with(best)) {
                mends.extend(self.hold(repository, digest, seen).await?);
            }
        }
        Ok(mends)
    }

    /// Publishes a holder over what was seen, as a mount does.
    async fn hold(&self, repository: &Repository, digest: &Digest, over: &Seen<Holder>) -> Result {
        let (own, register) = (layout::holder(digest, repository), layout::record(digest));
        if !own.read_damaged(self.store()).await?.is_same(over) {
            return Ok(Vec::new());
        }
        let deadline = self.registry.deadline();
        self.registry.announce(repository, digest, None).await?;
        let record = register.lift(self.store(), register.read(self.store()).await?).await?;
        // It protects what may come of this, and what was brought back is looked at when it expires.
        let Some(record) = record else { return Ok(Vec::new()) };
        deadline.check()?;
        let written = own.publish(self.store(), over, &record.holder()).await?;
        Ok(whole(&own, &written, "holds the blob that is recorded".to_owned()))
    }

    /// The record first: whoever pushes the blob from then on brings its bytes.
    async fn put_blob_away(&self, digest: &Digest, blob: Blob) -> Result {
        let mut mends: Vec<Mend> = Vec::new();
        let Blob { record, holders } = blob;
        let register = layout::record(digest);
        if record.present().is_some() || (record.is_quarantined() && !record.is_put_away()) {
            let kept = record.told().and_then(|told| told.data().ok());
            let kept = kept.map_or(String::new(), |data| format!(" with what is at {data}"));
            let written = register.quarantine(self.store(), &record).await?;
            if !written.is_done() {
                return Ok(Vec::new());
            }
            mends.extend(lost(
                &register,
                &written,
                format!("put in quarantine{kept}: push the blob again, or delete it"),
            ));
        }
        // If we stop here the holders have no record, and are found.
        for (repository, seen) in holders.iter().filter(|(_, seen)| !seen.is_put_away()) {
            let own = layout::holder(digest, repository);
            let written = own.quarantine(self.store(), seen).await?;
            mends.extend(lost(&own, &written, "put in quarantine: push the blob again, or delete it".to_owned()));
        }
        Ok(mends)
    }
}
