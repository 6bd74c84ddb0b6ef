//! Each request of each scene, on the replica that knows the session and on one that does not, on both kinds of stores:
//! each of its calls fails in each way, or all do from one call on.

use marina_distribution::store::{
    Limits,
    faulty::{Call, Fault},
};

use crate::{
    operation::{Client, Outcome},
    scenes::Scene,
    world::{View, World, lasting},
};

/// What a scene comes to when nothing goes wrong.
pub(crate) struct Right {
    /// The calls that the request makes.
    pub(crate) calls: Vec<Call>,
    before: View,
    /// The answer to the request, and to the same request sent again.
    alone: Outcome,
    again: Outcome,
    after: [View; 2],
    /// After what follows, if the request was sent once, and if twice.
    end: [View; 2],
}

/// A fault to be tried.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// This goes wrong with the call of this index.
    Call(usize, Fault),
    /// The process dies before the call with this index.
    Death(usize),
}

impl Trouble {
    fn fault(&self, index: usize) -> Fault {
        match self {
            Self::Call(at, fault) if index == *at => *fault,
            Self::Death(at) if index >= *at => Fault::NotApplied,
            _ => Fault::None,
        }
    }
}

/// A scene on one kind of store, its request asked of the replica that did what came before or of another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) limits: Limits,
    pub(crate) warm: bool,
}

impl Stage<'_> {
    async fn set(&self) -> (World, Client) {
        let (world, client) = World::after(self.limits, &self.scene.before).await;
        let client = if self.warm { client } else { world.client().await };
        (world, client)
    }

    pub(crate) async fn right(&self) -> Right {
        let (world, client) = self.set().await;
        let before = world.view().await;
        world.heal();
        let alone = client.run(&self.scene.op).await;
        client.settle().await;
        let calls = world.calls();
        let after_one = world.view().await;
        self.follow(&client).await;
        let end_one = world.view().await;
        let (world, client) = self.set().await;
        assert_eq!(client.run(&self.scene.op).await, alone, "{self:?}: the same every time");
        let again = client.run(&self.scene.op).await;
        client.settle().await;
        let after_two = world.view().await;
        self.follow(&client).await;
        let end_two = world.view().await;
        Right { calls, before, alone, again, after: [after_one, after_two], end: [end_one, end_two] }
    }

    async fn follow(&self, client: &Client) {
        for op in &self.scene.then {
            client.run(op).await;
        }
        client.settle().await;
    }

    /// The request in trouble, the client's second try, and what follows, without trouble.
    pub(crate) async fn trial(&self, right: &Right, trouble: &Trouble) -> Result<(), String> {
        let (world, mut client) = self.set().await;
        let planned = trouble.clone();
        world.plan(move |index| planned.fault(index));
        let outcome = client.run(&self.scene.op).await;
        client.settle().await;
        let line = |call: &Call| format!("  {} {:?} {}", call.index, call.verb, call.key);
        let calls: Vec<_> = world.calls().iter().map(line).collect();
        let calls = calls.join("\n");
        let report = |what: String| format!("{self:?}\n{trouble:?}: {outcome:?}\n{calls}\n{what}");
        world.heal();
        if matches!(trouble, Trouble::Death(_)) {
            client = world.client().await;
        }
        self.judge(&world, &client, right, &outcome).await.map_err(report)
    }

    async fn judge(&self, world: &World, client: &Client, right: &Right, outcome: &Outcome) -> Result<(), String> {
        let op = &self.scene.op;
        let seen = world.view().await;
        if *outcome == right.alone {
            if !op.is_torn() {
                same(&seen, &right.after[..1], "after the answer")?;
            }
        } else if *outcome == Outcome::Unavailable {
            between(&seen, &[&right.before, &right.after[0]], "after the failure")?;
            let again = client.run(op).await;
            client.settle().await;
            if again != right.alone && again != right.again {
                return Err(format!("sent again: {again:?}, and not {:?} or {:?}", right.alone, right.again));
            }
            same(&world.view().await, &right.after, "after the second try")?;
        } else {
            return Err(format!("a wrong answer, and not {:?}", right.alone));
        }
        none(&world.findings().await)?;
        self.follow(client).await;
        let end = world.view().await;
        same(&end, &right.end, "in the end")?;
        world.faulty.deliver_late().await;
        same(&world.view().await, &[end.clone()], "after late deliveries")?;
        none(&world.leftovers().await)?;
        same(&lasting(world.view().await), &[lasting(end)], "after all that expires has")
    }
}

/// One of these is what is seen.
pub(crate) fn same(seen: &View, expected: &[View], when: &str) -> Result<(), String> {
    if expected.contains(seen) {
        return Ok(());
    }
    let differs = expected.iter().map(|expected| {
        let lines = seen.iter().filter(|(question, answer)| expected.get(*question) != Some(answer));
        lines.map(|(question, answer)| format!("{question}: {answer:?}, not {:?}", expected.get(question))).collect()
    });
    Err(format!("{when}: {:#?}", differs.collect::<Vec<Vec<_>>>()))
}

/// Each answer is one that some of these give.
pub(crate) fn between(seen: &View, views: &[&View], when: &str) -> Result<(), String> {
    for (question, answer) in seen {
        // A list may be anything between.
        let is_list = ["Tags", "Referrers", "Catalog"].iter().any(|list| question.starts_with(list));
        if !is_list && !views.iter().any(|view| view.get(question) == Some(answer)) {
            let possible: Vec<_> = views.iter().map(|view| view.get(question)).collect();
            return Err(format!("{when}: {question}: {answer:?}, not any of {possible:?}"));
        }
    }
    Ok(())
}

pub(crate) fn none(findings: &[String]) -> Result<(), String> {
    if findings.is_empty() { Ok(()) } else { Err(format!("found: {findings:#?}")) }
}
