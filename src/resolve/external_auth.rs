//! `auth-url`: the service that is asked whether to let a request in.

use super::backend::{self, At, Upstream};
use super::draft::Draft;
use crate::features::auth_url::AuthUrl;
use crate::features::backend_protocol::Protocol;
use crate::features::effects::{Effects, ExternalAuth, Guard, Phase, set};

/// Has requests let in by the service. Where it cannot be asked they are answered 500, as if it did not answer.
pub(super) fn apply(draft: &mut Draft<'_>, auth_url: &AuthUrl, effects: &mut Effects) {
    const OTHERWISE: &str = "requests are answered 500";
    let AuthUrl { tls, host, port, question, origin } = auth_url;
    let host = match host {
        Some(host) => host.clone(),
        None if draft.host.is_wildcard() => {
            let message = format!("$host is no host's name on {}; {OTHERWISE}", draft.host);
            draft.findings.error(&origin.object, &*origin.field, "VariableHost", message);
            effects.guards.push(Guard::everything(Phase::Auth, 500, origin.clone()));
            return;
        }
        None => draft.host.to_string(),
    };
    let upstream = Upstream { protocol: tls.then_some(Protocol::Https), ..Upstream::default() };
    let at = At { origin, below: "", otherwise: OTHERWISE };
    match backend::host(draft, at, &host, *port, upstream) {
        Some(backend) => {
            if !host.contains('.') {
                let (namespace, domain) = (&origin.object.namespace, &draft.settings.cluster_domain);
                let message = format!(
                    "{host:?} names no namespace, so it is a host that DNS knows; a Service is \
                     {host}.{namespace}.svc.{domain}"
                );
                draft.findings.warning(&origin.object, &*origin.field, "NoNamespace", message);
            }
            let cluster = draft.backends.get(backend).name.clone();
            let auth = ExternalAuth { cluster, host, question: question.clone(), required: Vec::new() };
            set(&mut effects.external_auth, auth, origin.clone());
        }
        None => effects.guards.push(Guard::everything(Phase::Auth, 500, origin.clone())),
    }
}
