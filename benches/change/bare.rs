//! A control plane that is no more than a compiler, an xDS server and its counters: what layouts and pushers stand on.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use chancery::admin::{self, Metrics, changes::Changes};
use chancery::compile::{Compiler, Published};
use chancery::fleet::Fleet;
use chancery::model::Certificate;
use chancery::settings::Settings;
use chancery::store::Change;
use chancery::{translate, xds};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tonic::transport::server::TcpIncoming;

/// Where it listens, and where Envoy does.
pub(crate) struct Listen {
    pub(crate) xds: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) http_port: u16,
}

/// Serves until killed: `source` sends changes, `push` makes snapshots of them.
pub(crate) fn serve<S, P>(
    listen: &Listen,
    source: impl FnOnce(mpsc::Sender<Vec<Change>>) -> S,
    push: impl FnOnce(Compiler, mpsc::Receiver<Vec<Change>>, xds::snapshot::Sender) -> P,
) -> anyhow::Result<()>
where
    S: Future<Output = anyhow::Result<()>> + Send + 'static,
    P: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let settings = Settings {
        http_port: listen.http_port,
        envoy_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        ..Settings::default()
    };
    let nobody = Certificate { chain: Vec::new(), private_key: Vec::new() };
    let compiler = Compiler::new(settings, nobody)?;
    let (snapshots, snapshots_seen) = watch::channel(None);
    let (sender, receiver) = mpsc::channel(64);
    let (source, push) = (source(sender), push(compiler, receiver, snapshots));
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let mut tasks = JoinSet::new();
        tasks.spawn(source);
        tasks.spawn(push);
        serve_all(tasks, snapshots_seen, listen).await
    })
}

async fn serve_all(
    mut tasks: JoinSet<anyhow::Result<()>>,
    snapshots: xds::snapshot::Receiver,
    listen: &Listen,
) -> anyhow::Result<()> {
    let incoming = TcpIncoming::from(TcpListener::bind(listen.xds).await?).with_nodelay(Some(true));
    let admin = TcpListener::bind(listen.admin).await?;
    let fleet = Fleet::new();
    let metrics = Metrics::new();
    let (_published, published) = watch::channel(Arc::new(Published::default()));
    let state = admin::State {
        snapshots: snapshots.clone(),
        published,
        fleet: fleet.clone(),
        changes: Changes::new(fleet.clone(), metrics.clone()),
        ratelimit: None,
        metrics,
        tls: None,
    };
    tasks.spawn(async move { Ok(admin::serve(admin, state, None, std::future::pending()).await?) });
    let service = xds::server::service(snapshots, fleet).with_settings(translate::sessions());
    tasks.spawn(async move {
        Ok(xds::server::builder().add_service(service).serve_with_incoming(incoming).await?)
    });
    tasks.join_next().await.context("nothing runs")??
}
