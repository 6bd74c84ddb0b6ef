//! What a client knows of what it did.

use std::collections::{BTreeMap, BTreeSet};

/// Something that is in a repository or is not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Thing {
    Blob(String),
    Manifest(String),
    Tag(String),
    Referrer { subject: String, digest: String },
}

/// The digest that is there; `None`: nothing is.
pub(crate) type State = Option<String>;

/// What may be true of each thing. One state: it is known. Several: a request went unanswered.
#[derive(Default)]
pub(crate) struct Ledger(BTreeMap<Thing, BTreeSet<State>>);

impl Ledger {
    /// A request was sent that does this.
    pub(crate) fn sent(&mut self, effects: &[(Thing, State)]) {
        for (thing, state) in effects {
            let states = self.0.entry(thing.clone()).or_insert_with(|| BTreeSet::from([None]));
            states.insert(state.clone());
        }
    }

    /// It was answered that it was done.
    pub(crate) fn acknowledged(&mut self, effects: &[(Thing, State)]) {
        for (thing, state) in effects {
            self.0.insert(thing.clone(), BTreeSet::from([state.clone()]));
        }
    }

    /// After a restart nothing is on its way any more: what is seen is what is.
    pub(crate) fn observed(&mut self, thing: &Thing, seen: State) {
        if let Some(states) = self.0.get_mut(thing) {
            assert!(states.contains(&seen), "{thing:?} is {seen:?}, and must be one of {states:?}");
            *states = BTreeSet::from([seen]);
        } else {
            assert_eq!(seen, None, "{thing:?} is there, and nobody made it");
        }
    }

    /// The digest that a thing is known to have.
    pub(crate) fn known(&self, thing: &Thing) -> State {
        let states = self.0.get(thing)?;
        assert_eq!(states.len(), 1, "{thing:?} is uncertain");
        states.first().cloned().flatten()
    }

    pub(crate) fn things(&self) -> Vec<Thing> {
        self.0.keys().cloned().collect()
    }

    pub(crate) fn known_blobs(&self) -> Vec<String> {
        self.present(|thing| matches!(thing, Thing::Blob(_)))
    }

    pub(crate) fn known_manifests(&self) -> Vec<String> {
        self.present(|thing| matches!(thing, Thing::Manifest(_)))
    }

    pub(crate) fn known_tags(&self) -> Vec<String> {
        let tags = self.things().into_iter().filter(|thing| self.known(thing).is_some());
        tags.filter_map(|thing| if let Thing::Tag(name) = thing { Some(name) } else { None }).collect()
    }

    fn present(&self, which: impl Fn(&Thing) -> bool) -> Vec<String> {
        self.0.keys().filter(|thing| which(thing)).filter_map(|thing| self.known(thing)).collect()
    }

    /// What goes with a manifest: its tags and its place among the referrers.
    pub(crate) fn hanging_on(&self, manifest: &str) -> Vec<Thing> {
        let hangs = |thing: &Thing| match thing {
            Thing::Tag(_) => self.known(thing).as_deref() == Some(manifest),
            Thing::Referrer { digest, .. } => digest == manifest,
            Thing::Blob(_) | Thing::Manifest(_) => false,
        };
        self.0.keys().filter(|thing| hangs(thing)).cloned().collect()
    }
}

/// A tag that all clients move, each whenever it likes.
#[derive(Default)]
pub(crate) struct Moves {
    now: u64,
    moves: Vec<Move>,
}

struct Move {
    to: String,
    sent: u64,
    answered: Option<u64>,
}

impl Moves {
    /// A request was sent; its number.
    pub(crate) fn sent(&mut self, to: &str) -> usize {
        self.now += 1;
        self.moves.push(Move { to: to.to_owned(), sent: self.now, answered: None });
        self.moves.len() - 1
    }

    pub(crate) fn acknowledged(&mut self, number: usize) {
        self.now += 1;
        if let Some(one) = self.moves.get_mut(number) {
            one.answered = Some(self.now);
        }
    }

    /// What is seen must not have been overwritten by a move that began after it was answered and was answered too.
    pub(crate) fn observed(&mut self, seen: State) {
        let last = |one: &&Move| {
            let over = |other: &Move| other.answered.is_some() && one.answered.is_some_and(|at| other.sent > at);
            !self.moves.iter().any(over)
        };
        let possible: Vec<_> = self.moves.iter().filter(last).map(|one| one.to.as_str()).collect();
        match &seen {
            Some(seen) => assert!(possible.contains(&seen.as_str()), "{seen} is none of {possible:?}"),
            None => assert!(self.moves.iter().all(|one| one.answered.is_none()), "the shared tag is gone"),
        }
        let seen = seen.map(|to| Move { to, sent: self.now, answered: Some(self.now) });
        self.moves = seen.into_iter().collect();
    }
}
