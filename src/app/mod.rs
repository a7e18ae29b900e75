//! The only place that spawns tasks and joins them at shutdown.

mod envoy;
mod keeper;
mod pipeline;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::server::TcpIncoming;

use crate::admin::{self, Metrics, changes::Changes};
use crate::cli::{Actions, Compiled};
use crate::compile::{Compiler, Published};
use crate::fleet::Fleet;
use crate::model::Certificate;
use crate::options::{KubernetesOptions, Listen, Place, RunOptions, ServeOptions, host_port, reached_at};
use crate::ratelimit::counters::Store;
use crate::ratelimit::decisions::Decisions;
use crate::ratelimit::ietf::Ietf;
use crate::ratelimit::quota::{self, Access};
use crate::ratelimit::saved::Keeper;
use crate::ratelimit::serve::Listeners;
use crate::ratelimit::service::{Options, RateLimit};
use crate::settings::{RateLimitService, Settings};
use crate::source::{files, kubernetes};
use crate::state::State;
use crate::status;
use crate::store::Change;
use crate::tls::MutualTls;
use crate::translate;
use crate::values::Severity;
use crate::xds;

/// How long what is under way may take once the end was asked for.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// Batches of changes that a source may be ahead of the compiler.
const BATCHES: usize = 64;

/// What the command line calls.
pub const ACTIONS: Actions = Actions { serve, run, compile };

fn serve(options: ServeOptions) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let mut control_plane = ControlPlane::start(&options).await?;
        control_plane.until(shutdown_signal()).await
    })
}

fn run(options: RunOptions) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let mut control_plane = ControlPlane::start(&options.serve).await?;
        let mut envoy = envoy::start(&options, control_plane.xds)?;
        let ended = async {
            tokio::select! {
                () = shutdown_signal() => Ok(()),
                status = envoy.wait() => Err(anyhow::anyhow!("Envoy ended by itself: {}", status?)),
            }
        };
        let outcome = control_plane.until_result(ended).await;
        envoy.stop().await;
        outcome
    })
}

fn compile(settings: Settings, paths: &[PathBuf]) -> anyhow::Result<Compiled> {
    let loaded = files::load(paths)?;
    let errors = loaded.findings.iter().filter(|finding| finding.severity == Severity::Error);
    let unreadable = errors.map(ToString::to_string).collect();
    let mut compiler = Compiler::new(settings, generate_certificate()?)?;
    let mut changes: Vec<_> = loaded.applied.into_iter().map(Change::Applied).collect();
    changes.push(Change::Findings { place: "files".into(), findings: loaded.findings });
    changes.push(Change::Ready);
    let published = compiler.apply(changes);
    let findings: Vec<_> =
        published.findings.values().flat_map(|findings| findings.iter().cloned()).collect();
    Ok(Compiled { snapshot: published.snapshot.clone(), findings, unreadable })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")
}

/// Ends at SIGINT or SIGTERM.
async fn shutdown_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut signals = match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "cannot wait for signals");
            return std::future::pending().await;
        }
    };
    tokio::select! {
        _ = signals.0.recv() => {}
        _ = signals.1.recv() => {}
    }
    tracing::info!("ending");
}

/// The control plane's tasks.
struct ControlPlane {
    tasks: JoinSet<anyhow::Result<()>>,
    shutdown: watch::Sender<bool>,
    /// Where xDS is listened on.
    xds: SocketAddr,
}

impl ControlPlane {
    async fn start(options: &ServeOptions) -> anyhow::Result<Self> {
        let tls = options.xds_tls.clone().map(MutualTls::open).transpose();
        let (tls, certificates) = tls.context("cannot use the files of mutual TLS")?.unzip();
        let Bound { xds, admin, health, ratelimit } = Bound::new(options).await?;
        let local = admin.local_addr()?.ip().is_loopback();
        let access = Access::new(options.quota_token_file.clone(), local)?;
        let address = xds.local_addr()?;
        let mut settings = options.settings.clone();
        settings.ratelimit = ratelimit_service(options, ratelimit.as_ref(), address)?;
        let mut compiler = Compiler::new(settings, generate_certificate()?)?;
        // The listeners are made, and debug pages are for whoever asks.
        crate::descriptors::release();
        let state = options.state_dir.as_deref().map(State::open).transpose();
        let state = state.context("cannot use the state folder")?;

        let fleet = Fleet::new();
        let metrics = Metrics::new();
        let changes = Changes::new(fleet.clone(), metrics.clone());
        let (snapshots, snapshots_seen) = watch::channel(None);
        let (published, published_seen) = watch::channel(Arc::new(Published::default()));
        let (limits, limits_seen) = watch::channel(Arc::default());
        let (sender, receiver) = mpsc::channel(BATCHES);
        let mut this = Self { tasks: JoinSet::new(), shutdown: watch::channel(false).0, xds: address };

        if let Some(state) = state {
            resume(&state, &mut compiler, &snapshots);
            this.tasks.spawn(keeper::run(state, snapshots_seen.clone(), this.ended()));
        }
        if let Some(certificates) = certificates {
            this.spawn_until_ended(certificates.run());
        }
        this.spawn_source(options, sender);
        let outlets = pipeline::Outlets {
            snapshots,
            published,
            limits,
            changes: changes.clone(),
            metrics: metrics.clone(),
        };
        let compiled = pipeline::run(compiler, receiver, fleet.rejections(), outlets, this.ended());
        this.tasks.spawn(compiled);
        let service =
            xds::server::service(snapshots_seen.clone(), fleet.clone()).with_settings(translate::sessions());
        let status = admin::csds::service(snapshots_seen.clone(), fleet.clone());
        this.spawn_xds(xds, tls.as_ref(), service, status);
        let ratelimit = ratelimit.map(|calls| {
            this.spawn_ratelimit(options, calls, tls.clone(), limits_seen, published_seen.clone())
        });
        let (ratelimit, service) = ratelimit.transpose()?.unzip();
        let quota = service.map(|service| quota::router(service, access));
        this.spawn_status(options, published_seen.clone());
        let state = admin::State {
            snapshots: snapshots_seen,
            published: published_seen,
            fleet,
            changes,
            ratelimit,
            metrics,
            tls,
        };
        this.spawn_admin(admin, health, state, quota);
        Ok(this)
    }

    /// Ends when the end is asked for.
    fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut shutdown = self.shutdown.subscribe();
        async move {
            // The sender is gone only when everything is.
            let _ = shutdown.wait_for(|ended| *ended).await;
        }
    }

    /// For what has nothing to finish.
    fn spawn_until_ended(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let ended = self.ended();
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => Ok(()),
                () = ended => Ok(()),
            }
        });
    }

    fn spawn_admin(
        &mut self,
        admin: TcpListener,
        health: Option<TcpListener>,
        state: admin::State,
        quota: Option<quota::Pages>,
    ) {
        if let Some(health) = health {
            let (state, ended) = (state.clone(), self.ended());
            self.tasks.spawn(async move { Ok(admin::serve_machines(health, state, ended).await?) });
        }
        let ended = self.ended();
        self.tasks.spawn(async move { Ok(admin::serve(admin, state, quota, ended).await?) });
    }

    fn spawn_source(&mut self, options: &ServeOptions, sender: mpsc::Sender<Vec<Change>>) {
        let ended = self.ended();
        let config_map = options.settings.config_map.clone();
        let source = source(options.manifests.clone(), options.kubernetes.clone(), config_map, sender);
        self.tasks.spawn(async move {
            tokio::select! {
                result = source => result,
                () = ended => Ok(()),
            }
        });
    }

    /// With a client of its own: whatever holds up its writes holds up no watch.
    fn spawn_status(&mut self, options: &ServeOptions, published: watch::Receiver<Arc<Published>>) {
        if options.manifests.is_some() {
            return;
        }
        let options = options.kubernetes.clone();
        let ended = self.ended();
        self.tasks.spawn(async move {
            let client = kubernetes::connect(options.kubeconfig.as_deref()).await?;
            status::run(client, options, published, ended).await;
            Ok(())
        });
    }

    fn spawn_xds(
        &mut self,
        listener: TcpListener,
        tls: Option<&MutualTls>,
        service: xds::server::DiscoveryService,
        status: admin::csds::Service,
    ) {
        let router = xds::server::builder().add_service(service).add_service(status);
        let serving = match tls {
            Some(tls) => router.serve_with_incoming(tls.incoming(TcpListenerStream::new(listener))).boxed(),
            None => {
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                router.serve_with_incoming(incoming).boxed()
            }
        };
        let ended = self.ended();
        self.tasks.spawn(async move {
            // Streams never end by themselves, so there is nothing to drain: Envoy keeps what it has.
            tokio::select! {
                result = serving => Ok(result?),
                () = ended => Ok(()),
            }
        });
    }

    /// The counters: in a Redis, which keeps them, or here, where they go on with those of an earlier process if there is a
    /// folder for them.
    fn counters(&mut self, options: &ServeOptions) -> anyhow::Result<Arc<Store>> {
        let here = options.redis.is_none();
        let keeper = options.state_dir.as_deref().filter(|_| here).map(Keeper::open).transpose();
        let keeper = keeper.context("cannot use the state folder")?;
        let memory = keeper.as_ref().map_or_else(Arc::default, Keeper::memory);
        if let Some(keeper) = keeper {
            let ended = self.ended();
            self.tasks.spawn(async move {
                keeper.run(ended).await;
                Ok(())
            });
        }
        Ok(Arc::new(Store::open(options.redis.clone(), memory).context("cannot use --redis-url")?))
    }

    /// Starts once limits are known: until then Envoy's failure mode decides, not an empty set of limits.
    fn spawn_ratelimit(
        &mut self,
        options: &ServeOptions,
        calls: TcpListener,
        tls: Option<MutualTls>,
        limits: watch::Receiver<Arc<crate::model::limit::LimitSet>>,
        mut published: watch::Receiver<Arc<Published>>,
    ) -> anyhow::Result<(admin::RateLimit, RateLimit<Store>)> {
        let tls = tls.filter(|_| options.ratelimit_tls.is_some());
        let listeners = Listeners { calls: calls.into(), tls, health: None, http: None, quota: None };
        let told = Options { ietf: Ietf::of(options.limit_headers), ..Options::default() };
        let counters = self.counters(options)?;
        let decisions = Arc::new(Decisions::default());
        let state = admin::RateLimit { decisions: decisions.clone(), counters: counters.clone() };
        let no_rules = watch::channel(Arc::default()).1;
        let service = RateLimit::new(limits, counters.clone(), decisions).with_rules(no_rules, told);
        let (served, ended) = (service.clone(), self.ended());
        self.tasks.spawn(async move {
            let serving = async {
                if published.wait_for(|published| published.ready).await.is_ok() {
                    counters.ready().await;
                    crate::ratelimit::serve::serve(listeners, served, ended).await?;
                    counters.close().await;
                }
                Ok(())
            };
            tokio::select! {
                served = serving => served,
                () = counters.run() => Ok(()),
            }
        });
        Ok((state, service))
    }

    /// Runs until the future ends or a task fails, then ends everything.
    async fn until(&mut self, end: impl Future<Output = ()>) -> anyhow::Result<()> {
        self.until_result(async {
            end.await;
            Ok(())
        })
        .await
    }

    async fn until_result(&mut self, end: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
        let outcome = tokio::select! {
            outcome = end => outcome,
            outcome = self.failed() => outcome,
        };
        self.shutdown.send_replace(true);
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_WITHIN, drained).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        outcome
    }

    /// Ends with the first task that fails; one that ends well while the rest goes on is no failure.
    async fn failed(&mut self) -> anyhow::Result<()> {
        while let Some(task) = self.tasks.join_next().await {
            task.context("a task panicked")??;
        }
        Ok(())
    }
}

async fn source(
    manifests: Option<PathBuf>,
    options: KubernetesOptions,
    config_map: (String, String),
    sender: mpsc::Sender<Vec<Change>>,
) -> anyhow::Result<()> {
    if let Some(folder) = manifests {
        return Ok(files::follow(folder, sender).await?);
    }
    let client = kubernetes::connect(options.kubeconfig.as_deref()).await?;
    kubernetes::follow(client, options.watch_namespaces, config_map, sender).await;
    Ok(())
}

/// Serves what an earlier process left.
fn resume(state: &State, compiler: &mut Compiler, snapshots: &xds::snapshot::Sender) {
    if !state.snapshot().is_empty() {
        tracing::info!("serving the last good snapshot until the sources have been read");
        compiler.resume(state.snapshot().clone());
        snapshots.send_replace(Some(state.snapshot().clone()));
    }
}

/// What is listened on.
struct Bound {
    xds: TcpListener,
    admin: TcpListener,
    health: Option<TcpListener>,
    ratelimit: Option<TcpListener>,
}

impl Bound {
    async fn new(options: &ServeOptions) -> anyhow::Result<Self> {
        let Listen { xds, admin, health, ratelimit } = options.listen;
        Ok(Self {
            xds: listen("xds", xds).await?,
            admin: listen("admin", admin).await?,
            health: match health {
                Some(address) => Some(listen("health", address).await?),
                None => None,
            },
            ratelimit: match options.ratelimit {
                Place::Embedded => Some(listen("ratelimit", ratelimit).await?),
                Place::Remote(_) | Place::Off => None,
            },
        })
    }
}

async fn listen(name: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} for {name}"))?;
    tracing::info!(service = name, address = %listener.local_addr()?, "listening");
    Ok(listener)
}

/// How Envoys reach the rate limit service.
fn ratelimit_service(
    options: &ServeOptions,
    listener: Option<&TcpListener>,
    xds: SocketAddr,
) -> anyhow::Result<Option<RateLimitService>> {
    let secrets = options.ratelimit_tls.clone();
    let address = ratelimit_address(options, listener, xds)?;
    Ok(address.map(|(host, port)| RateLimitService { host, port, secrets }))
}

fn ratelimit_address(
    options: &ServeOptions,
    listener: Option<&TcpListener>,
    xds: SocketAddr,
) -> anyhow::Result<Option<(String, u16)>> {
    let listener = match (&options.ratelimit, listener) {
        (Place::Remote(address), _) => return host_port(address).map(Some).map_err(anyhow::Error::msg),
        (Place::Embedded, Some(listener)) => listener.local_addr()?,
        _ => return Ok(None),
    };
    if let Some(address) = &options.ratelimit_address {
        return Ok(Some(address.clone()));
    }
    let pod = std::env::var("POD_IP").ok().and_then(|ip| ip.parse().ok());
    let address = reached_at(listener, pod, xds.ip());
    if address.ip().is_loopback() && !xds.ip().is_loopback() {
        tracing::warn!(
            "Envoys are told that the rate limit service is at {address}, where none but those of this machine reach \
             it: give --ratelimit-listen and --ratelimit-address"
        );
    }
    Ok(Some((address.ip().to_string(), address.port())))
}

/// What is served for names without a certificate, where none is configured: self-signed, made anew at each start.
fn generate_certificate() -> anyhow::Result<Certificate> {
    let mut parameters = rcgen::CertificateParams::new(vec!["chancery.invalid".to_owned()])?;
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "Chancery default certificate");
    let key = rcgen::KeyPair::generate()?;
    let certificate = parameters.self_signed(&key)?;
    Ok(Certificate { chain: certificate.pem().into_bytes(), private_key: key.serialize_pem().into_bytes() })
}
