//! One number of hosts from one source, in one layout or in several of which one at a time runs.

use std::sync::Mutex;

use super::backends;
use super::churn;
use super::record::{Layout, Record, Series, Source};
use super::run::{Running, lock};
use super::workload::{Kind, Picks, Workload};

/// Turns that layouts take under churn, so that what else the machine has to do meets all of them.
const TURNS: usize = 6;

/// What to measure.
pub(crate) struct Plan {
    pub(crate) source: Source,
    pub(crate) layouts: Vec<Layout>,
    pub(crate) hosts: usize,
    pub(crate) services: usize,
    pub(crate) edits: usize,
    pub(crate) starts: usize,
    pub(crate) cold_only: bool,
}

impl Plan {
    /// How many edits are made with polling, and without.
    fn edits(&self, layout: Layout, kind: Kind) -> [usize; 2] {
        let polled = match (layout, kind) {
            // One RouteConfiguration takes seconds an edit once it is large.
            (Layout::OneTable, Kind::Ingress) => self.edits.min((300_000 / self.hosts).max(10)),
            _ => self.edits,
        };
        [polled, if polled < self.edits { polled.div_ceil(3) } else { polled }]
    }
}

/// A layout's processes, and what was measured of them.
struct Side {
    running: Running,
    record: Record,
}

/// The records of all layouts.
pub(crate) fn measure(plan: &Plan) -> anyhow::Result<Vec<Record>> {
    let backends = backends::start()?;
    // It ends after the processes: a folder that goes is a great many edits.
    let workload = Mutex::new(Workload::new(plan.source, plan.hosts, plan.services, &backends)?);
    let mut sides = Vec::new();
    for layout in &plan.layouts {
        let mut side = Side::start(*layout, plan, &workload)?;
        if !plan.cold_only {
            side.calm(plan, &workload)?;
        }
        side.running.pause()?;
        sides.push(side);
    }
    if plan.source == Source::Kubernetes && !plan.cold_only {
        // It goes on from turn to turn, so that its edits fall into all of them alike.
        churn::during(&workload, || {
            let mut turns = 0..TURNS;
            turns.try_for_each(|_| sides.iter_mut().try_for_each(|side| side.churned(plan, &workload)))
        })?;
    }
    sides.into_iter().map(Side::end).collect()
}

impl Side {
    fn start(layout: Layout, plan: &Plan, workload: &Mutex<Workload>) -> anyhow::Result<Self> {
        let workload = lock(workload);
        let mut starts = Vec::new();
        let mut running = Running::start(layout, &workload)?;
        starts.push(running.wait(&workload)?);
        while starts.len() < plan.starts {
            drop(running);
            running = Running::start(layout, &workload)?;
            starts.push(running.wait(&workload)?);
        }
        let every_host = running.request_every_host(&workload)?;
        let record = Record {
            source: plan.source,
            layout,
            hosts: plan.hosts,
            services: plan.services,
            at: jiff::Timestamp::now().to_string(),
            starts,
            every_host,
            memory_loaded: running.memory()?,
            route: None,
            endpoint: None,
            route_churned: None,
            endpoint_churned: None,
            memory: running.memory()?,
            lost: 0,
        };
        Ok(Self { running, record })
    }

    /// Edits while nothing else changes.
    fn calm(&mut self, plan: &Plan, workload: &Mutex<Workload>) -> anyhow::Result<()> {
        let Self { running, record } = self;
        let layout = record.layout;
        let mut series =
            |kind| running.series(workload, kind, plan.edits(layout, kind), &mut record.lost).map(Some);
        if edits_routes(layout) {
            record.route = series(Kind::Ingress)?;
        }
        record.endpoint = series(Kind::EndpointSlice)?;
        Ok(())
    }

    /// One turn of edits while others are edited.
    fn churned(&mut self, plan: &Plan, workload: &Mutex<Workload>) -> anyhow::Result<()> {
        let Self { running, record } = self;
        let lost = &mut record.lost;
        running.resume()?;
        running.catch_up(workload, lost)?;
        let mut polled = |kind| {
            let [edits, _] = plan.edits(record.layout, kind);
            running.polled(workload, kind, edits.div_ceil(TURNS), Picks::Still, lost)
        };
        if edits_routes(record.layout) {
            more(&mut record.route_churned, polled(Kind::Ingress)?);
        }
        more(&mut record.endpoint_churned, polled(Kind::EndpointSlice)?);
        running.pause()
    }

    fn end(self) -> anyhow::Result<Record> {
        Ok(Record { memory: self.running.memory()?, ..self.record })
    }
}

/// A pusher has made before what it pushes, which nobody can for routes.
fn edits_routes(layout: Layout) -> bool {
    layout != Layout::Pusher
}

fn more(series: &mut Option<Series>, served: Vec<f64>) {
    let before = series.take().map(|series| series.served).unwrap_or_default();
    *series = Some(Series::of([before, served].concat()));
}
