//! One replica is stopped before a call, another does its work to the end, and then the first goes on. What everybody was
//! answered and what is seen must be as if each request had been one step, in some order.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use marina_distribution::store::{
    Limits,
    faulty::{Call, Fault},
};

use crate::{
    operation::{Op, Outcome, Session},
    single::{between, none, same},
    world::{View, World, lasting, session_line},
};

/// A request that is stopped, and one that another replica answers meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Race<'a> {
    pub(crate) before: &'a [Op],
    pub(crate) stopped: &'a Op,
    pub(crate) meanwhile: &'a Op,
    pub(crate) limits: Limits,
}

/// What is stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    /// One call; what the request does beside it goes on.
    Call,
    /// All of the replica.
    Process,
}

/// What everybody was answered, and what is seen in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct End {
    stopped: Outcome,
    meanwhile: Outcome,
    view: View,
}

/// What may come of a race.
pub(crate) struct Right {
    pub(crate) calls: usize,
    /// When the stopped request comes first, and when it comes last.
    ends: [End; 2],
    /// What is seen when it never came.
    without: View,
}

impl Race<'_> {
    pub(crate) async fn right(&self) -> Right {
        let (world, client) = World::after(self.limits, self.before).await;
        world.heal();
        client.run(self.stopped).await;
        client.settle().await;
        let calls = world.calls().len();
        let ends = [self.in_order(true).await, self.in_order(false).await];
        let (world, _) = World::after(self.limits, self.before).await;
        let other = world.client().await;
        other.run(self.meanwhile).await;
        other.settle().await;
        Right { calls, ends, without: world.view().await }
    }

    async fn in_order(&self, stopped_first: bool) -> End {
        let (world, client) = World::after(self.limits, self.before).await;
        let other = world.client().await;
        let (stopped, meanwhile);
        if stopped_first {
            stopped = client.run(self.stopped).await;
            meanwhile = other.run(self.meanwhile).await;
        } else {
            meanwhile = other.run(self.meanwhile).await;
            stopped = client.run(self.stopped).await;
        }
        client.settle().await;
        other.settle().await;
        End { stopped, meanwhile, view: world.view().await }
    }

    /// Runs it, stopped before the call with this index. `false`: there was nothing beside that call to go on.
    pub(crate) async fn run(&self, right: &Right, stop: Stop, at: usize) -> Result<bool, String> {
        let (world, client) = World::after(self.limits, self.before).await;
        let other = world.client().await;
        let stopping = Arc::new(AtomicBool::new(true));
        let still = Arc::clone(&stopping);
        world.plan(move |index| {
            let hit = match stop {
                Stop::Call => index == at,
                Stop::Process => index >= at,
            };
            if hit && still.load(Ordering::Relaxed) { Fault::Halted } else { Fault::None }
        });
        let (caller, op) = (client.clone(), self.stopped.clone());
        let task = tokio::spawn(async move { caller.run(&op).await });
        world.faulty.halted().await;
        // Whatever else it does beside that call, it does now.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        stopping.store(false, Ordering::Relaxed);
        let calls_before = world.calls().len();
        if matches!(stop, Stop::Call) && calls_before == at + 1 {
            task.abort();
            return Ok(false);
        }
        let meanwhile = other.run(self.meanwhile).await;
        let calls_meanwhile = world.calls().len();
        world.faulty.release();
        let stopped = task.await.unwrap();
        client.settle().await;
        other.settle().await;
        let end = End { stopped, meanwhile, view: world.view().await };
        self.judge(&world, right, &end).await.map_err(|what| {
            let line = |(index, call): (usize, &Call)| {
                let who = if (calls_before..calls_meanwhile).contains(&index) { "meanwhile" } else { "stopped" };
                format!("  {index} {who} {:?} {}", call.verb, call.key)
            };
            let calls: Vec<_> = world.calls().iter().enumerate().map(line).collect();
            let calls = calls.join("\n");
            let End { stopped, meanwhile, .. } = end;
            format!("{self:?}\n{stop:?} {at}: {stopped:?}, meanwhile {meanwhile:?}\n{calls}\n{what}")
        })?;
        Ok(true)
    }

    async fn judge(&self, world: &World, right: &Right, end: &End) -> Result<(), String> {
        none(&world.findings().await)?;
        let gave_up = end.stopped == Outcome::Unavailable || self.declines(end) || self.ended_meanwhile(end);
        let agreeing: Vec<_> = right
            .ends
            .iter()
            .filter(|right| gave_up || right.stopped == end.stopped)
            .filter(|right| self.meanwhile_agrees(right, end))
            .collect();
        if agreeing.is_empty() && !self.is_excused() {
            return Err("no order gives these answers".to_owned());
        }
        if matches!(end.stopped, Outcome::Done(_)) && !agreeing.is_empty() && !gave_up && !self.is_conditional() {
            let views: Vec<_> = agreeing.iter().map(|end| end.view.clone()).collect();
            same(&end.view, &views, "in the end")?;
        } else {
            // What was not acknowledged may have been done in part.
            let views: Vec<_> = right.ends.iter().map(|end| &end.view).chain([&right.without]).collect();
            between(&end.view, &views, "in the end")?;
        }
        none(&world.leftovers().await)?;
        same(&lasting(world.view().await), &[lasting(end.view.clone())], "after all that expires has")
    }

    /// The other was answered what it is in that order. Only a delete may find a manifest of which the push is not over yet.
    fn meanwhile_agrees(&self, right: &End, end: &End) -> bool {
        let unknown = Outcome::Refused("ManifestUnknown".to_owned());
        let early = matches!(self.meanwhile, Op::DeleteManifest(_)) && self.stopped.is_push();
        right.meanwhile == end.meanwhile || (early && right.meanwhile == unknown)
    }

    /// A mount may always be declined; the client uploads instead.
    fn declines(&self, end: &End) -> bool {
        matches!(self.stopped, Op::Mount(..)) && end.stopped == Outcome::Done("false".to_owned())
    }

    /// The session was ended under it.
    fn ended_meanwhile(&self, end: &End) -> bool {
        let unknown = Outcome::Refused("UploadUnknown".to_owned());
        self.stopped.is_of_session()
            && end.stopped == unknown
            && end.view.get(&session_line(Session::Big)) == Some(&unknown)
    }

    /// A condition is compared with its tag alone. It may be met by what a delete of the manifest, which is not over yet, has
    /// done to the tag; and a put that loses its tag to it calls itself overwritten, though then the condition had failed.
    fn is_conditional(&self) -> bool {
        matches!(self.meanwhile, Op::PushIf(..))
    }

    /// Two requests of one session are one client's mistake: then one of them may be told that it was done although the
    /// other one decided. Of two deletes both may be told so.
    fn is_excused(&self) -> bool {
        let both = |is: fn(&Op) -> bool| is(self.stopped) && is(self.meanwhile);
        both(Op::is_of_session) || both(|op| matches!(op, Op::DeleteManifest(_))) || self.is_conditional()
    }
}
