//! Everything that a case runs against: control plane, Envoy, echo servers, objects.

use crate::backends::{self, Replicas};
use crate::case::step::{Action, Component, Request};
use crate::case::values::{ServiceName, Span};
use crate::case::{BackingService, Case, Mode};
use crate::certs::{Authority, Identity, identity_of};
use crate::client::{Client, Edge, Plan, Reply, SharedJar};
use crate::cluster::Cluster;
use crate::echo::Records;
use crate::manifest::{Object, objects};
use crate::process::{Program, output};
use crate::settings::Settings;
use anyhow::{Context as _, Result, bail};
use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::process::Command;

/// How long the control plane and Envoy may take to come up before the first step begins to count.
const START_PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct World {
    pub(super) mode: Mode,
    pub(super) folder: PathBuf,
    pub(super) chancery: PathBuf,
    pub(super) ports: Ports,
    pub(super) edge: Edge,
    pub(super) cluster: Cluster,
    /// Secrets that the case began with; a client may hold one that the cluster has lost.
    secrets: Vec<Object>,
    pub(super) records: Arc<Records>,
    pub(super) authority: Authority,
    pub(super) backends: Vec<Replicas>,
    control_plane: Program,
    envoy: Program,
    ratelimit: Option<Program>,
    redis: Option<Program>,
}

/// The ports of a case on 127.0.0.1; below the ephemeral ones, and its own, so that they stay over restarts.
#[derive(Clone, Copy)]
pub(super) struct Ports {
    first: u16,
}

impl Ports {
    fn of(number: u32) -> Ports {
        Ports { first: 10_000 + (number % 2_200) as u16 * 10 }
    }

    fn address(self, offset: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.first + offset))
    }

    fn xds(self) -> SocketAddr {
        self.address(0)
    }

    pub(super) fn admin(self) -> SocketAddr {
        self.address(1)
    }

    fn ratelimit(self) -> SocketAddr {
        self.address(2)
    }

    fn authz(self) -> SocketAddr {
        self.address(3)
    }

    fn envoy_admin(self) -> SocketAddr {
        self.address(4)
    }

    fn redis(self) -> SocketAddr {
        self.address(5)
    }
}

impl World {
    /// Starts everything, and waits until it is up.
    pub(super) async fn start(case: &Case, mode: Mode, folder: &Path, settings: &Settings) -> Result<World> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        if !settings.envoy.is_file() {
            bail!("there is no Envoy at {} (set E2E_ENVOY, or install one)", settings.envoy.display());
        }
        // What a former run left.
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let cluster = Cluster::open(mode, folder, settings).await?;
        let (ports, records, authority) =
            (Ports::of(number), Arc::new(Records::default()), Authority::new()?);
        let (backends, mut made) = backends::start(case, &authority, &records).await?;
        for (name, cert) in &case.certs {
            made.push(Object::generated(authority.secret(name, cert)?));
        }
        let mut redis = redis(case, ports, folder, settings)?;
        if let Some(redis) = &mut redis {
            redis.start()?;
            accepts(ports.redis(), redis).await?;
        }
        let edge = edge(case, number)?;
        bootstrap(settings, ports, number, folder).await?;
        let mut world = World {
            mode,
            folder: folder.to_owned(),
            chancery: settings.chancery.clone(),
            ports,
            control_plane: control_plane(case, &cluster, ports, &edge, folder, settings)?,
            ratelimit: match names_ratelimit(case) {
                true => Some(ratelimit(case, ports, folder, settings)?),
                false => None,
            },
            envoy: envoy(settings, folder),
            redis,
            edge,
            cluster,
            secrets: Vec::new(),
            records,
            authority,
            backends,
        };
        match world.bring_up(case, made).await {
            Ok(()) => Ok(world),
            Err(error) => {
                world.stop().await;
                Err(error)
            }
        }
    }

    /// Manifests are applied while the control plane starts.
    async fn bring_up(&mut self, case: &Case, made: Vec<Object>) -> Result<()> {
        self.control_plane.start()?;
        if let Some(ratelimit) = &mut self.ratelimit {
            ratelimit.start()?;
        }
        let first: Vec<Object> =
            made.into_iter().chain(case.manifests.iter().flat_map(|text| objects(text))).collect();
        self.cluster.apply(&first).await?;
        self.secrets = first.into_iter().filter(|object| object.kind == "Secret").collect();
        self.envoy.start()?;
        let started = Instant::now();
        loop {
            self.check_alive()?;
            let (admin, envoy) = (self.ports.admin(), self.ports.envoy_admin());
            if fetch(admin, "/readyz").await.is_ok_and(|reply| reply.status == 200)
                && fetch(envoy, "/ready").await.is_ok_and(|reply| reply.status == 200)
            {
                return Ok(());
            }
            // Whatever is not ready now shows in the first step.
            if started.elapsed() > START_PATIENCE {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Fails if something that should run has ended by itself.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        let programs = [
            Some(&mut self.control_plane),
            Some(&mut self.envoy),
            self.ratelimit.as_mut(),
            self.redis.as_mut(),
        ];
        let ended = programs.into_iter().flatten().find_map(Program::unexpected_end);
        match ended.or_else(|| self.cluster.unexpected_end()) {
            Some(problem) => bail!("{problem}"),
            None => Ok(()),
        }
    }

    /// The program behind a component; none where this mode has no such component.
    pub(super) fn program(&mut self, component: Component) -> Result<Option<&mut Program>> {
        match component {
            Component::ControlPlane => Ok(Some(&mut self.control_plane)),
            Component::Envoy => Ok(Some(&mut self.envoy)),
            Component::Ratelimit => Ok(self.ratelimit.as_mut()),
            Component::Redis => match &mut self.redis {
                Some(redis) => Ok(Some(redis)),
                None => bail!("the case has no Redis; `services: [redis]` starts one"),
            },
            Component::KubeApiserver => Ok(self.cluster.api_server()),
        }
    }

    /// The key and certificate in a Secret that exists now.
    pub(super) fn identity(&self, name: &ServiceName) -> Result<Identity> {
        let is_meant = |object: &&Object| {
            object.kind == "Secret"
                && object.namespace.as_ref() == Some(&name.namespace)
                && object.name == name.name
        };
        let mut known = self.cluster.objects().chain(&self.secrets);
        let secret = known.find(is_meant).with_context(|| format!("there is no Secret {name}"))?;
        identity_of(&secret.value).with_context(|| format!("Secret {name}"))
    }

    /// Writes down what Envoy and the control plane hold.
    pub(super) async fn dump(&self) {
        let (envoy, admin) = (self.ports.envoy_admin(), self.ports.admin());
        let pages = [
            (envoy, "/config_dump?include_eds", "envoy-config-dump.json"),
            (envoy, "/clusters", "envoy-clusters.txt"),
            (envoy, "/stats?usedonly", "envoy-stats.txt"),
            (admin, "/debug/config_dump", "control-plane-config-dump.json"),
            (admin, "/debug/nodes", "control-plane-nodes.json"),
            (admin, "/debug/findings", "control-plane-findings.json"),
        ];
        for (address, path, file) in pages {
            if let Ok(reply) = fetch(address, path).await {
                let _ = fs::write(self.folder.join(file), reply.body);
            }
        }
    }

    /// Ends everything; what cannot be taken away of a cluster is told, and the cluster is not used again.
    pub(super) async fn stop(mut self) {
        let others = [self.ratelimit.as_mut(), self.redis.as_mut()].into_iter().flatten();
        for program in [&mut self.envoy, &mut self.control_plane].into_iter().chain(others) {
            // It is killed again when it is dropped.
            let _ = program.stop().await;
        }
        if let Err(error) = self.cluster.close().await {
            eprintln!("e2e: an API server is given up: {error:#}");
        }
    }
}

/// GET over plain HTTP.
pub(super) async fn fetch(address: SocketAddr, path: &str) -> Result<Reply> {
    let request =
        Request { path: path.to_owned(), timeout: Span(Duration::from_secs(10)), ..Request::default() };
    let edge = Edge {
        ip: Ipv4Addr::LOCALHOST,
        http_port: address.port(),
        https_port: address.port(),
        gateway_ports: Default::default(),
    };
    let mut client = Client::new(Arc::new(Plan::new(&request, &edge, None)?), SharedJar::default());
    client.send().await.outcome.map_err(|failure| anyhow::anyhow!("GET {address}{path}: {failure}"))
}

/// Waits until a program listens.
async fn accepts(address: SocketAddr, program: &mut Program) -> Result<()> {
    let started = Instant::now();
    while tokio::net::TcpStream::connect(address).await.is_err() {
        if let Some(problem) = program.unexpected_end() {
            bail!("{problem}");
        }
        if started.elapsed() > START_PATIENCE {
            bail!("{} does not listen on {address}:\n{}", program.name, program.log_tail());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn edge(case: &Case, number: u32) -> Result<Edge> {
    let port = |flag: &str, default| match given(&case.args, flag) {
        Some(value) => value.parse().with_context(|| format!("args: {flag} {value}")),
        None => Ok(default),
    };
    let applied = case.steps.iter().filter_map(|step| match &step.action {
        Action::Apply(text) => Some(text),
        _ => None,
    });
    let gateways = case.manifests.iter().chain(applied).flat_map(|text| objects(text));
    Ok(Edge {
        ip: Ipv4Addr::new(127, 100, (number / 250 % 250) as u8, (number % 250) as u8 + 1),
        http_port: port("--http-port", 80)?,
        https_port: port("--https-port", 443)?,
        gateway_ports: gateways.flat_map(|object| object.gateway_ports()).collect(),
    })
}

/// The value that a case's own arguments give a flag.
fn given<'a>(args: &'a [String], flag: &str) -> Option<&'a str> {
    args.iter().enumerate().find_map(|(index, arg)| match arg.strip_prefix(flag)? {
        "" => Some(args.get(index + 1).map_or("", String::as_str)),
        rest => rest.strip_prefix('='),
    })
}

fn names_ratelimit(case: &Case) -> bool {
    let names = |action: &Action| {
        matches!(
            action,
            Action::Restart(Component::Ratelimit)
                | Action::Stop(Component::Ratelimit)
                | Action::Start(Component::Ratelimit)
        )
    };
    case.steps.iter().any(|step| names(&step.action))
}

/// The case's arguments, with the places filled in that only the runner knows.
fn case_args(case: &Case, ports: Ports, folder: &Path) -> Result<Vec<String>> {
    let geoip = folder.join("geoip.mmdb");
    if !case.geoip.is_empty() {
        fs::write(&geoip, crate::geoip::database(&case.geoip)).context("cannot write the GeoIP database")?;
    }
    let fill = |arg: &String| {
        arg.replace("{geoip}", &geoip.to_string_lossy())
            .replace("{redis}", &format!("redis://{}", ports.redis()))
    };
    Ok(case.args.iter().map(fill).collect())
}

fn control_plane(
    case: &Case,
    cluster: &Cluster,
    ports: Ports,
    edge: &Edge,
    folder: &Path,
    settings: &Settings,
) -> Result<Program> {
    let mut flags = cluster.flags();
    flags.extend([
        ("--xds-listen", ports.xds().to_string().into()),
        ("--admin-listen", ports.admin().to_string().into()),
        ("--authz-listen", ports.authz().to_string().into()),
        ("--envoy-address", edge.ip.to_string().into()),
        ("--http-port", edge.http_port.to_string().into()),
        ("--https-port", edge.https_port.to_string().into()),
        ("--state-dir", folder.join("state").into()),
    ]);
    let ratelimit = if names_ratelimit(case) { "--ratelimit" } else { "--ratelimit-listen" };
    flags.push((ratelimit, ports.ratelimit().to_string().into()));
    // A case's own word on a flag counts, and a flag cannot be given twice.
    flags.retain(|(flag, _)| given(&case.args, flag).is_none());
    let mut args: Vec<OsString> = vec!["serve".into()];
    args.extend(flags.into_iter().flat_map(|(flag, value)| [flag.into(), value]));
    args.extend(case_args(case, ports, folder)?.into_iter().map(OsString::from));
    Ok(Program::new("control-plane", &settings.chancery, args, folder))
}

/// It counts where the case has the control plane count.
fn ratelimit(case: &Case, ports: Ports, folder: &Path, settings: &Settings) -> Result<Program> {
    let mut args: Vec<OsString> = vec!["ratelimit".into()];
    args.extend(["--ratelimit-listen".into(), ports.ratelimit().to_string().into()]);
    args.extend(["--xds".into(), ports.xds().to_string().into()]);
    args.extend(["--state-dir".into(), folder.join("ratelimit-state").into()]);
    let of_redis = case_args(case, ports, folder)?.into_iter().filter(|arg| arg.starts_with("--redis-"));
    args.extend(of_redis.map(OsString::from));
    Ok(Program::new("ratelimit", &settings.chancery, args, folder))
}

fn redis(case: &Case, ports: Ports, folder: &Path, settings: &Settings) -> Result<Option<Program>> {
    if !case.services.contains(&BackingService::Redis) {
        return Ok(None);
    }
    let Some(path) = &settings.redis else {
        bail!("there is no redis-server: scripts/install-redis brings one")
    };
    let port = ports.redis().port().to_string();
    let args = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    let args = args.into_iter().map(OsString::from).collect();
    Ok(Some(Program::new("redis", path, args, folder)))
}

/// Has the product make Envoy's bootstrap.
async fn bootstrap(settings: &Settings, ports: Ports, number: u32, folder: &Path) -> Result<()> {
    let mut command = Command::new(&settings.chancery);
    command.arg("bootstrap");
    command.args(["--xds-address", &ports.xds().to_string()]);
    command.args(["--admin-address", &ports.envoy_admin().to_string()]);
    command.args(["--node-id", &format!("e2e-{number}")]);
    let made = output(command).await?;
    if !made.status.success() || made.stdout.is_empty() {
        bail!(
            "`chancery bootstrap` made none ({}): {}",
            made.status,
            String::from_utf8_lossy(&made.stderr).trim()
        );
    }
    fs::write(folder.join("bootstrap.json"), made.stdout).context("cannot write the bootstrap")
}

/// One worker, and nothing shared with the Envoys of other cases.
fn envoy(settings: &Settings, folder: &Path) -> Program {
    let args = ["-c", "bootstrap.json", "--disable-hot-restart", "--concurrency", "1", "--log-level", "info"];
    Program::new("envoy", &settings.envoy, args.into_iter().map(OsString::from).collect(), folder)
}
