//! What holds of the collector in every state: nothing is left behind that nothing leads to, what can be put back has what
//! it needs, who was told that a blob is there finds it, and a repository with manifests is listed.

use crate::{
    explore::Scenario,
    process::{Announced, Drops, Op, Outcome, Rules},
    world::{D, GHOST, Is, Key, MANIFESTS, State, TRIES, Value, get, names_blob, of_attempt, pending},
};

pub(crate) fn always(scenario: &Scenario, rules: &Rules, state: &State, replied: &[Option<Outcome>]) -> Option<String> {
    let ops = scenario.processes.iter().map(|process| process.op).collect();
    let at = At { ops, rules, state };
    // Unless a client deletes it.
    let is_deleted = scenario.processes.iter().any(|process| matches!(process.op, Op::DeleteBlob { .. }));
    for (process, replied) in scenario.processes.iter().zip(replied) {
        if matches!(process.op, Op::AskAndPush(_)) && *replied == Some(Outcome::Refused) && !is_deleted {
            return Some("gap: told that the blob is there, and then that it is not".to_owned());
        }
    }
    at.cannot_be_put_back()
        .or_else(|| if scenario.catalog { at.is_not_listed() } else { None })
        .or_else(|| if scenario.led { at.is_left_behind(scenario.catalog, replied) } else { None })
}

struct At<'a> {
    ops: Vec<Op>,
    rules: &'a Rules,
    state: &'a State,
}

const REPOS_AND_BLOBS: [(u8, u8); 4] = [(0, 0), (0, 1), (1, 0), (1, 1)];

impl At<'_> {
    fn is_there(&self, key: Key) -> bool {
        get(self.state, key) != Value::ABSENT
    }

    fn is_present(&self, key: Key) -> bool {
        get(self.state, key).is_present()
    }

    /// What the references in flight announce, and what the dropped entries say.
    fn announced(&self) -> impl Iterator<Item = Announced> {
        (0..).zip(&self.rules.announced).filter_map(|(process, announced)| {
            (0..TRIES).any(|tries| self.is_there(pending(process, tries))).then_some(*announced)
        })
    }

    fn drops(&self) -> impl Iterator<Item = Drops> {
        (0..).zip(&self.rules.drops).filter_map(|(process, drops)| {
            (0..TRIES).any(|tries| self.is_there(Key::Dropped(process * TRIES + tries))).then_some(*drops)
        })
    }

    fn collectors(&self, repo: u8) -> impl Iterator<Item = u8> {
        (0..).zip(&self.rules.repos).filter_map(move |(process, of)| (*of == repo).then_some(process))
    }

    fn manifests(&self, repo: u8) -> impl Iterator<Item = u8> {
        let all = if repo == 0 { 0..MANIFESTS } else { D..D + 1 };
        all.filter(move |manifest| self.is_present(Key::Manifest { repo, manifest: *manifest }))
    }

    /// An entry leads to the holder, or a reference in flight.
    fn is_led_to(&self, repo: u8, blob: u8) -> bool {
        let flies = |announced| match announced {
            Announced::Nothing => false,
            Announced::Blob { repo: of, blob: it, .. } => (of, it) == (repo, blob),
            Announced::Manifest { repo: of, manifest } => of == repo && names_blob(manifest, blob),
        };
        let drops = |drops| match drops {
            Drops::Nothing => false,
            Drops::Blob { repo: of, blob: it } => (of, it) == (repo, blob),
            Drops::Push { repo: of, manifest } => of == repo && names_blob(manifest, blob),
            Drops::Manifest(manifest) => repo == 0 && names_blob(manifest, blob),
        };
        let by_collector = |of: u8| {
            let nonces = get(self.state, Key::Condemned(of)).0;
            get(self.state, Key::Again(of)).body() >> blob & 1 == 1 || nonces >> (16 * blob) & 0xffff != 0
        };
        self.announced().any(flies) || self.drops().any(drops) || self.collectors(repo).any(by_collector)
    }

    fn is_left_behind(&self, catalog: bool, replied: &[Option<Outcome>]) -> Option<String> {
        for (repo, blob) in REPOS_AND_BLOBS {
            let is_named = || self.manifests(repo).any(|manifest| names_blob(manifest, blob));
            if self.is_present(Key::Holder { repo, blob }) && !is_named() && !self.is_led_to(repo, blob) {
                return Some(format!("left: nothing leads to holder {repo}/{blob}"));
            }
        }
        let in_bytes = |data: u8| (0..=GHOST).any(|of| get(self.state, Key::Bytes(of)).body() == data + 1);
        for blob in 0..2 {
            let record = get(self.state, Key::Record(blob));
            let is_unheld = |of: u8| get(self.state, Key::Unheld(of)).body() >> blob & 1 == 1;
            let is_held = || (0..2).any(|repo| self.is_present(Key::Holder { repo, blob }));
            // A client may have deleted it from under a manifest, whose end leads to it.
            let leads = |repo: u8| {
                self.is_led_to(repo, blob) || self.manifests(repo).any(|manifest| names_blob(manifest, blob))
            };
            let is_led_to = || (0..2).any(leads) || (0..=GHOST).any(is_unheld);
            if record.is_present() && !is_held() && !is_led_to() && !in_bytes(record.body()) {
                return Some(format!("left: nothing leads to record {blob}"));
            }
        }
        for data in (0..28).filter(|data| self.is_there(Key::Data(*data))) {
            let named =
                |blob: u8| get(self.state, Key::Record(blob)).body() == data && self.is_present(Key::Record(blob));
            if !(0..2).any(named) && !in_bytes(data) && !self.is_brought(data, replied) {
                return Some(format!("left: nothing leads to data {data}"));
            }
        }
        let line_is_led_to = || {
            let pushes = |announced| matches!(announced, Announced::Manifest { repo: 0, .. });
            let drops = |drops| matches!(drops, Drops::Manifest(_) | Drops::Push { repo: 0, .. });
            let waits = |of: u8| self.is_there(Key::AgainLine(of));
            self.announced().any(pushes) || self.drops().any(drops) || self.collectors(0).any(waits)
        };
        if catalog && self.is_present(Key::Catalog(0)) && self.manifests(0).next().is_none() && !line_is_led_to() {
            return Some("left: nothing leads to the line of a repository without manifests".to_owned());
        }
        None
    }

    /// Bytes that are on their way: of a session, or of an attempt that is announced. Whoever stalls until his reference has
    /// expired, and what it named has been looked at once more, may put them after that: those only a walk finds.
    fn is_brought(&self, data: u8, replied: &[Option<Outcome>]) -> bool {
        if data < 2 {
            return self.is_there(Key::Journal(data));
        }
        let expires = |process: u8, tries: u8| self.ops.contains(&Op::Expire { process, tries });
        (0..).zip(replied).any(|(process, replied)| {
            (0..TRIES)
                .filter(|tries| of_attempt(process, *tries) == Key::Data(data))
                .any(|tries| replied.is_none() || expires(process, tries) || self.is_there(pending(process, tries)))
        }) || of_attempt(GHOST, 0) == Key::Data(data) && self.is_there(pending(GHOST, 0))
    }

    /// Deleted, with an entry that says how to put it back, and without what it needs.
    fn cannot_be_put_back(&self) -> Option<String> {
        for manifest in 0..MANIFESTS {
            let gone = get(self.state, Key::Manifest { repo: 0, manifest });
            if gone.is() != Is::Deleted {
                continue;
            }
            // Its nonce says who deleted it, at which try.
            let entry = (gone.nonce() >> 13) as u8 * TRIES + (gone.nonce() >> 11 & 3) as u8;
            let says_so = self.rules.drops[usize::from(entry / TRIES)] == Drops::Manifest(manifest);
            if !says_so || get(self.state, Key::Dropped(entry)).body() == 0 {
                continue;
            }
            let is_kept = |blob: &u8| {
                let holder = get(self.state, Key::Holder { repo: 0, blob: *blob });
                holder.is_present() || holder.is() == Is::Deleted
            };
            if let Some(blob) = (0..2).find(|blob| names_blob(manifest, *blob) && !is_kept(blob)) {
                return Some(format!("undo: manifest {manifest} can be put back, blob {blob} is gone"));
            }
        }
        None
    }

    /// Its pushes are over, it is there, and the catalog does not say so.
    fn is_not_listed(&self) -> Option<String> {
        let pushes = |announced| matches!(announced, Announced::Manifest { repo: 0, .. });
        let is_settled = self.manifests(0).next().is_some() && !self.announced().any(pushes);
        (is_settled && !self.is_present(Key::Catalog(0))).then(|| "catalog: a manifest in no repository".to_owned())
    }
}
