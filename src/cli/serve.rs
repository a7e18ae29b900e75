//! `serve`: the control plane.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::bail;
use clap::ArgAction;

use super::{address, counters, mutual_tls, namespaced, settings};
use crate::options::{KubernetesOptions, LimitHeaders, Listen, Place, RedisOptions, ServeOptions, host_port};
use crate::settings::Settings;

#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// Folder of manifests to follow; Kubernetes unless given
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Folder for the last good snapshot, so that a restart serves it while the API server is away, and for the counters of
    /// quotas of a day and more
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    settings: settings::Args,
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    tls: mutual_tls::Args,
    #[command(flatten)]
    services: ServiceArgs,
    #[command(flatten)]
    redis: counters::Args,
    #[command(flatten)]
    kubernetes: KubernetesArgs,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Addresses (port 0 picks one and logs it)")]
struct ListenArgs {
    /// xDS, for Envoys and rate limit services
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:18000")]
    xds_listen: SocketAddr,
    /// Debug endpoint, health and metrics
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:18001")]
    admin_listen: SocketAddr,
    /// Health and metrics alone, for whom the debug endpoint is not; nowhere unless given
    #[arg(long, value_name = "IP:PORT")]
    health_listen: Option<SocketAddr>,
    /// Rate limit service, for Envoys
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:18002")]
    ratelimit_listen: SocketAddr,
    /// Auth service, for Envoys; no effect, since there is none yet
    #[arg(long, value_name = "IP:PORT")]
    authz_listen: Option<SocketAddr>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Services that Envoy calls")]
struct ServiceArgs {
    /// Rate limit service: embedded, off, or where it is
    #[arg(long, value_name = "embedded|HOST:PORT|off", default_value_t = Place::Embedded)]
    ratelimit: Place,
    /// Where Envoys reach the embedded rate limit service: the address that it listens on unless given or, if that is
    /// every address, that of the variable POD_IP, else that of xDS
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    ratelimit_address: Option<(String, u16)>,
    /// Mutual TLS to the rate limit service: the folder, as Envoys see it, into which `bootstrap --write-to` has put their
    /// secrets; plain unless given
    #[arg(long, value_name = "DIR")]
    ratelimit_tls: Option<String>,
    /// How clients are told what limits have left: none; draft-03 (x-ratelimit-* and, on a 429, retry-after, by Envoy; not
    /// where nginx's 503 refuses); ietf (RateLimit, RateLimit-Policy and, on a refusal, Retry-After, by the rate limit
    /// service, for every limit; one elsewhere is told by its own flag); both
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = LimitHeaders::Draft03, hide_possible_values = true)]
    limit_headers: LimitHeaders,
    /// File with who may ask the quota API for what keys have left, and reset or grant it: a line each, TOKEN or NAME
    /// TOKEN. Without it whoever reaches --admin-listen may, if that is on loopback, and else nobody
    #[arg(long, value_name = "FILE")]
    quota_token_file: Option<PathBuf>,
    /// Auth service: embedded or off, which mean the same, since there is none yet; an address is refused
    #[arg(long, value_name = "embedded|off")]
    authz: Option<Place>,
    /// MaxMind database for countries and continents; no effect yet
    #[arg(long, value_name = "FILE")]
    geoip_database: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Kubernetes")]
struct KubernetesArgs {
    /// kubeconfig file; the usual places, then the Pod's service account, unless given
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Namespaces to watch, separated by commas; all unless given
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',')]
    watch_namespace: Vec<String>,
    /// Addresses or host names, separated by commas, that the status of our Ingresses shows
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', value_parser = address)]
    publish_status_address: Vec<String>,
    /// Service whose addresses the status of our Ingresses shows, as they are now
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = namespaced)]
    #[arg(conflicts_with = "publish_status_address")]
    publish_service: Option<(String, String)>,
    /// Whether of several replicas one alone writes status and Events, by a Lease
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    leader_election: bool,
}

impl ServiceArgs {
    /// The folder with Envoys' secrets, where it is of use.
    fn tls(&self, certificate: bool) -> anyhow::Result<Option<String>> {
        let Some(folder) = &self.ratelimit_tls else { return Ok(None) };
        match self.ratelimit {
            Place::Embedded if !certificate => {
                bail!(
                    "--ratelimit-tls needs what to show Envoys: give --xds-tls-cert, --xds-tls-key and --xds-ca"
                )
            }
            Place::Embedded if self.ratelimit_address.is_none() => {
                bail!(
                    "--ratelimit-tls needs --ratelimit-address: a name or an address that the certificate is for"
                )
            }
            Place::Embedded | Place::Remote(_) => Ok(Some(folder.clone())),
            Place::Off => bail!("--ratelimit-tls and --ratelimit=off do not go together"),
        }
    }
}

impl Args {
    /// The flags that were given and have no effect, and what is done in their stead.
    pub(super) fn without_effect(&self) -> Vec<(&'static str, &'static str)> {
        let authz = self.services.authz == Some(Place::Embedded);
        let folder = self.manifests.is_some();
        let status = "a folder of manifests has no status";
        let flags = [
            ("--geoip-database", self.services.geoip_database.is_some(), "nothing asks for places"),
            (
                "--redis-url",
                self.redis.is_given() && self.services.ratelimit != Place::Embedded,
                "the rate limit service is elsewhere, and counts where it was told to",
            ),
            (
                "--quota-token-file",
                self.services.quota_token_file.is_some() && self.services.ratelimit != Place::Embedded,
                "the quota API is that of the rate limit service, which is not in this process",
            ),
            ("--authz", authz, "there is no auth service"),
            ("--authz-listen", self.listen.authz_listen.is_some(), "there is no auth service"),
            (
                "--tls-session-resumption",
                self.settings.resumes_tls(),
                "every connection has a full handshake",
            ),
            (
                "--publish-status-address",
                folder && !self.kubernetes.publish_status_address.is_empty(),
                status,
            ),
            ("--publish-service", folder && self.kubernetes.publish_service.is_some(), status),
        ];
        flags.into_iter().filter(|(_, given, _)| *given).map(|(flag, _, instead)| (flag, instead)).collect()
    }

    /// Refuses what whoever asks for it relies on for protection, and what is not there yet.
    fn refuse(&self) -> anyhow::Result<()> {
        if let Some(Place::Remote(address)) = &self.services.authz {
            bail!(
                "--authz={address} has no effect yet: no request would be sent there to be let in; leave it out"
            );
        }
        Ok(())
    }

    /// What is asked for; says what has no effect.
    pub(super) fn options(self) -> anyhow::Result<ServeOptions> {
        self.refuse()?;
        for (flag, instead) in self.without_effect() {
            tracing::warn!("{flag} has no effect: {instead}");
        }
        if self.services.ratelimit_address.is_some() && self.services.ratelimit != Place::Embedded {
            bail!(
                "--ratelimit-address says where the embedded service is reached, and --ratelimit that it is not embedded"
            );
        }
        let redis = self.redis.options()?.filter(|_| self.services.ratelimit == Place::Embedded);
        let xds_tls = self.tls.files()?;
        let ratelimit_tls = self.services.tls(xds_tls.is_some())?;
        let (xds, ratelimit) = (self.listen.xds_listen, self.listen.ratelimit_listen);
        let flags = "--xds-tls-cert, --xds-tls-key and --xds-ca";
        self.tls.may_listen(xds, xds_tls.is_some(), "xDS, where private keys are sent,", flags)?;
        if self.services.ratelimit == Place::Embedded {
            let flags = "--xds-tls-cert, --xds-tls-key, --xds-ca and --ratelimit-tls";
            self.tls.may_listen(ratelimit, ratelimit_tls.is_some(), "the rate limit service", flags)?;
        }
        Ok(ServeOptions {
            settings: Settings {
                envoy_limit_headers: self.services.limit_headers.of_envoy(),
                limits_fail_closed: redis.as_ref().is_some_and(RedisOptions::fails_closed),
                ..self.settings.settings()
            },
            manifests: self.manifests,
            kubernetes: KubernetesOptions {
                kubeconfig: self.kubernetes.kubeconfig,
                watch_namespaces: self.kubernetes.watch_namespace,
                publish_status_addresses: self.kubernetes.publish_status_address,
                publish_service: self.kubernetes.publish_service,
                leader_election: self.kubernetes.leader_election,
            },
            listen: Listen {
                xds,
                admin: self.listen.admin_listen,
                health: self.listen.health_listen,
                ratelimit,
            },
            xds_tls,
            ratelimit: self.services.ratelimit,
            ratelimit_address: self.services.ratelimit_address,
            ratelimit_tls,
            redis,
            limit_headers: self.services.limit_headers,
            quota_token_file: self.services.quota_token_file,
            state_dir: self.state_dir,
        })
    }
}
