//! The steps of a case, one after the other.

use super::flow::Flow;
use super::world::{World, fetch};
use super::{command, scale};
use crate::case::step::{Action, Component, Expect, Request, Scheme, Step};
use crate::case::{Case, Mode};
use crate::client::{Answer, Plan, send_all};
use crate::expect::{Context, Judged, check, check_each, check_json};
use crate::manifest::{ObjectRef, objects};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two tries of a step.
const RETRY: Duration = Duration::from_millis(100);

/// For how long a stream of requests goes on after the next expecting step has held.
const FLOW_TAIL: Duration = Duration::from_millis(500);

/// A failing step and what is to be said about it.
pub(super) type StepFailure = (usize, String);

pub(super) struct Runner<'a> {
    case: &'a Case,
    world: &'a mut World,
    /// Whether something changed since the last expecting step, so that the next one is tried again.
    has_changed: bool,
    has_held: bool,
    /// The stream of requests of the last changing step.
    flow: Option<Flow>,
}

impl<'a> Runner<'a> {
    pub(super) fn new(case: &'a Case, world: &'a mut World) -> Runner<'a> {
        // The first manifests are a change.
        Runner { case, world, has_changed: true, has_held: false, flow: None }
    }

    /// Whether an expecting step has held.
    pub(super) fn has_held(&self) -> bool {
        self.has_held
    }

    pub(super) async fn run(&mut self) -> Result<(), StepFailure> {
        let case = self.case;
        for (index, step) in case.steps.iter().enumerate() {
            self.step(index, step).await?;
        }
        if self.flow.is_some() {
            tokio::time::sleep(FLOW_TAIL).await;
            self.end_flow().await?;
        }
        let last = case.steps.len() - 1;
        self.world.check_alive().map_err(|error| (last, format!("after the last step: {error:#}")))
    }

    async fn step(&mut self, index: usize, step: &Step) -> Result<(), StepFailure> {
        let fail = |problem: String| (index, told(index, step, &problem));
        if step.action.is_change() {
            self.end_flow().await?;
            if let Some(during) = &step.during {
                let flow = Flow::start(self.world, index, during, step.settle).await;
                self.flow =
                    Some(flow.map_err(|problem| fail(format!("during, before the change: {problem}")))?);
            }
            self.change(&step.action).await.map_err(|error| fail(format!("{error:#}")))?;
            self.has_changed = true;
            return Ok(());
        }
        match (&step.action, &step.expect) {
            (Action::Wait(span), _) => tokio::time::sleep(*span).await,
            // A folder keeps no status; the step is for another mode.
            (Action::Status(_), _) if self.world.mode == Mode::Files => {}
            (action, None) => drop(self.attempt(action, &Expect::default()).await),
            (action, Some(expect)) => {
                self.expecting(action, expect, step.settle)
                    .await
                    .map_err(|problem| fail(self.with_ends(problem)))?;
                self.has_held = true;
                if self.flow.is_some() {
                    tokio::time::sleep(FLOW_TAIL).await;
                    self.end_flow().await?;
                }
            }
        }
        Ok(())
    }

    /// One try, or after a change as many as `settle` allows.
    async fn expecting(&mut self, action: &Action, expect: &Expect, settle: Duration) -> Result<(), String> {
        let started = Instant::now();
        let mut tries = 0;
        loop {
            tries += 1;
            match self.attempt(action, expect).await {
                Ok(()) => {
                    self.has_changed = false;
                    return Ok(());
                }
                Err(problem) if self.has_changed && started.elapsed() >= settle => {
                    return Err(format!(
                        "{problem}\n  (the last of {tries} tries in {:.1?})",
                        started.elapsed()
                    ));
                }
                Err(problem) if !self.has_changed => return Err(problem),
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    async fn attempt(&mut self, action: &Action, expect: &Expect) -> Result<(), String> {
        match action {
            Action::Request(request) => self.request(request, expect).await,
            Action::Admin(path) => self.admin(path, expect).await,
            Action::Command(args) => command::run(self.world, args, expect).await,
            Action::Status(reference) => self.status(reference, expect).await,
            other => Err(format!("`{}` cannot be tried", other.key())),
        }
    }

    async fn request(&mut self, request: &Request, expect: &Expect) -> Result<(), String> {
        let plan = self.world.plan(request).map_err(|error| format!("{error:#}"))?;
        let answers =
            send_all(&Arc::new(plan), request.count, request.concurrency, expect.error.is_some()).await;
        let checked = check(expect, &answers, &self.world.context(request)).await;
        answers.iter().for_each(|answer| self.world.records.forget(&answer.id));
        checked
    }

    async fn admin(&mut self, path: &str, expect: &Expect) -> Result<(), String> {
        let started = Instant::now();
        let reply = fetch(self.world.ports.admin(), path).await.map_err(|error| format!("{error:#}"))?;
        let document = serde_json::from_slice(&reply.body);
        let answer = Answer {
            id: format!("GET {path}"),
            outcome: Ok(reply),
            duration: started.elapsed(),
            handshake: None,
        };
        let context = Context {
            records: &self.world.records,
            authority: &self.world.authority,
            is_https: false,
            is_websocket: false,
        };
        check_each(expect, &Judged { answer: &answer, by: None }, &context)?;
        match &expect.json {
            Some(expected) => {
                check_json(expected, &document.map_err(|error| format!("json: the answer is none: {error}"))?)
            }
            None => Ok(()),
        }
    }

    async fn status(&mut self, reference: &ObjectRef, expect: &Expect) -> Result<(), String> {
        let object = self.world.cluster.read(reference).await.map_err(|error| format!("{error:#}"))?;
        let object = object.ok_or_else(|| format!("{reference} does not exist"))?;
        expect.json.as_ref().map_or(Ok(()), |expected| check_json(expected, &object))
    }

    async fn change(&mut self, action: &Action) -> anyhow::Result<()> {
        match action {
            Action::Apply(text) => {
                let applied = objects(text);
                anyhow::ensure!(!applied.is_empty(), "there is no object to apply");
                self.world.cluster.apply(&applied).await
            }
            Action::Delete(reference) => self.world.cluster.delete(reference).await,
            Action::Scale(counts) => scale::scale(self.world, counts).await,
            Action::Restart(component) => {
                self.stop(*component).await?;
                self.start(*component).await
            }
            Action::Stop(component) => self.stop(*component).await,
            Action::Start(component) => self.start(*component).await,
            other => anyhow::bail!("`{}` changes nothing", other.key()),
        }
    }

    async fn stop(&mut self, component: Component) -> anyhow::Result<()> {
        match self.world.program(component)? {
            Some(program) => program.stop().await,
            None => Ok(()),
        }
    }

    async fn start(&mut self, component: Component) -> anyhow::Result<()> {
        self.world.program(component)?.map_or(Ok(()), |program| program.start())?;
        match component {
            // Further steps apply to it.
            Component::KubeApiserver => self.world.cluster.ready().await,
            _ => Ok(()),
        }
    }

    /// Ends the stream of requests, if there is one, and judges it.
    async fn end_flow(&mut self) -> Result<(), StepFailure> {
        let Some(flow) = self.flow.take() else { return Ok(()) };
        let index = flow.step;
        let judged = flow.end(self.world).await;
        judged.map_err(|problem| (index, told(index, &self.case.steps[index], &format!("during: {problem}"))))
    }

    /// Adds what explains a failure best: that a program is gone.
    fn with_ends(&mut self, problem: String) -> String {
        match self.world.check_alive() {
            Ok(()) => problem,
            Err(end) => format!("{problem}\n  {end:#}"),
        }
    }
}

impl World {
    pub(super) fn plan(&self, request: &Request) -> anyhow::Result<Plan> {
        let identity = request.client_cert.as_ref().map(|name| self.identity(name)).transpose()?;
        Plan::new(request, &self.edge, identity)
    }

    pub(super) fn context(&self, request: &Request) -> Context<'_> {
        Context {
            records: &self.records,
            authority: &self.authority,
            is_https: request.scheme == Scheme::Https,
            is_websocket: request.websocket,
        }
    }
}

fn told(index: usize, step: &Step, problem: &str) -> String {
    let about = step.about.as_ref().map_or(String::new(), |about| format!(", {about}"));
    format!("step {} ({}){about}\n  {problem}", index + 1, step.action.key())
}
