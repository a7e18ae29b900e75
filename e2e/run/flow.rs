//! A stream of requests while something changes: how "no request lost" is tested.

use super::world::World;
use crate::case::step::{During, Expect, Request};
use crate::client::{Answer, Client, Plan, SharedJar};
use crate::expect::{Judged, check_each, check_together, describe};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

/// How many failing requests are shown.
const SHOWN: usize = 3;

pub(super) struct Flow {
    /// The step it belongs to.
    pub(super) step: usize,
    request: Request,
    expect: Expect,
    rate: f64,
    stop: watch::Sender<bool>,
    sender: JoinHandle<Sent>,
}

struct Sent {
    /// Each answer, and when its request began.
    answers: Vec<(Duration, Answer)>,
    elapsed: Duration,
}

impl Flow {
    /// Waits until the expectation holds, then sends until [`Flow::end`].
    pub(super) async fn start(
        world: &World,
        step: usize,
        during: &During,
        settle: Duration,
    ) -> Result<Flow, String> {
        let plan = Arc::new(world.plan(&during.request).map_err(|error| format!("{error:#}"))?);
        let started = Instant::now();
        loop {
            let answer = Client::new(plan.clone(), SharedJar::default()).send().await;
            let judged = Judged::new(&answer, &world.records);
            match check_each(&during.expect, &judged, &world.context(&during.request)) {
                Ok(()) => break,
                Err(problem) if started.elapsed() >= settle => {
                    return Err(format!("{problem}\n{}", describe(&judged)));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        let (stop, stopped) = watch::channel(false);
        Ok(Flow {
            step,
            request: during.request.clone(),
            expect: during.expect.clone(),
            rate: during.rate,
            stop,
            sender: tokio::spawn(send(plan, during.rate, stopped)),
        })
    }

    /// Stops sending, waits for what is in flight, and checks every answer.
    pub(super) async fn end(self, world: &World) -> Result<(), String> {
        self.stop.send_replace(true);
        let sent = self.sender.await.map_err(|error| error.to_string())?;
        let (count, seconds) = (sent.answers.len(), sent.elapsed.as_secs_f64());
        // Those whose time had come: of a stream that ends at once, none had.
        let due = (self.rate * seconds).floor();
        if (count as f64) < due / 2.0 {
            return Err(format!("sent {count} requests in {seconds:.1} s, fewer than half of {due}"));
        }
        let context = world.context(&self.request);
        let mut problems = Vec::new();
        for (begun, answer) in &sent.answers {
            let judged = Judged::new(answer, &world.records);
            if let Err(problem) = check_each(&self.expect, &judged, &context) {
                let shown = if problems.len() < SHOWN { describe(&judged) } else { String::new() };
                problems.push(format!("after {begun:.3?}: {problem}\n{shown}"));
            }
        }
        if !problems.is_empty() {
            let failed = problems.len();
            problems.truncate(SHOWN);
            return Err(format!("{failed} of {count} requests failed\n  {}", problems.join("\n  ")));
        }
        let answers: Vec<Answer> = sent.answers.into_iter().map(|(_, answer)| answer).collect();
        let checked = check_together(&self.expect, &answers, &world.records).await;
        answers.iter().for_each(|answer| world.records.forget(&answer.id));
        checked
    }
}

/// Begins a request at every tick, each on a connection of its own, however long the others take. The first one is sent
/// however soon it is told to stop.
async fn send(plan: Arc<Plan>, rate: f64, mut stopped: watch::Receiver<bool>) -> Sent {
    let started = Instant::now();
    let jar = SharedJar::default();
    // Far more than a correct Envoy keeps waiting; it bounds what a stuck one can pile up.
    let in_flight = Arc::new(Semaphore::new((rate * 4.0) as usize + 16));
    let period = Duration::from_secs_f64(1.0 / rate);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    let mut requests = JoinSet::new();
    let mut answers = Vec::new();
    loop {
        let Ok(permit) = in_flight.clone().acquire_owned().await else { break };
        let (begun, mut client) = (started.elapsed(), Client::new(plan.clone(), jar.clone()));
        requests.spawn(async move {
            let answer = client.send().await;
            drop(permit);
            (begun, answer)
        });
        while let Some(Ok(done)) = requests.try_join_next() {
            answers.push(done);
        }
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopped.wait_for(|stopped| *stopped) => break,
        }
    }
    let elapsed = started.elapsed();
    answers.extend(requests.join_all().await);
    answers.sort_by_key(|(begun, _)| *begun);
    Sent { answers, elapsed }
}
