//! What is left of a disk when the power goes.

use std::rc::Rc;

use super::{Content, Disk, Names, Node, ROOT};
use crate::tree::Tree;

/// What survives of all that no sync covers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Survivors {
    /// Nothing.
    None,
    /// All names and modes, but no bytes: what a file system does that writes its journal and not the data.
    Names,
    /// Everything, as after `kill -9`.
    All,
    /// Of each name and mode and of the end of each file, whatever falls.
    Some(u64),
}

impl Disk {
    /// What is left when the power goes now.
    pub(crate) fn survivors(&self, which: Survivors) -> Tree {
        let mut coins = Coins(match which {
            Survivors::Some(seed) => seed,
            _ => 0,
        });
        self.survivor(ROOT, which, &mut coins)
    }

    fn survivor(&self, node: usize, which: Survivors, coins: &mut Coins) -> Tree {
        let Node { now, durable, .. } = &self.nodes[node];
        let mode = match which {
            Survivors::None => durable.mode,
            Survivors::Names | Survivors::All => now.mode,
            Survivors::Some(_) => {
                if coins.flip() {
                    now.mode
                } else {
                    durable.mode
                }
            }
        };
        match (&now.content, &durable.content) {
            (Content::File(now), Content::File(durable)) => {
                let bytes = match which {
                    Survivors::None | Survivors::Names => Rc::clone(durable),
                    Survivors::All => Rc::clone(now),
                    Survivors::Some(_) if now.len() > durable.len() => {
                        Rc::new(now[..durable.len() + coins.below(now.len() - durable.len() + 1)].to_vec())
                    }
                    Survivors::Some(_) => {
                        if coins.flip() {
                            Rc::clone(now)
                        } else {
                            Rc::clone(durable)
                        }
                    }
                };
                Tree::File { mode, bytes }
            }
            (Content::Folder(now), Content::Folder(durable)) => {
                let names = match which {
                    Survivors::None => durable.clone(),
                    Survivors::Names | Survivors::All => now.clone(),
                    Survivors::Some(_) => {
                        let mut names = Names::new();
                        for name in now.keys().chain(durable.keys()) {
                            let node = if coins.flip() { now.get(name) } else { durable.get(name) };
                            node.map(|node| names.insert(name.clone(), *node));
                        }
                        names
                    }
                };
                let below = names.into_iter().map(|(name, node)| (name, self.survivor(node, which, coins)));
                Tree::Folder { mode, below: below.collect() }
            }
            _ => unreachable!("a file stays a file"),
        }
    }
}

/// splitmix64
struct Coins(u64);

impl Coins {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn flip(&mut self) -> bool {
        self.next() & 1 == 0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}
