//! Which certificate a host has, and whether a Secret holds one.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::Ingress;

use super::draft::{Draft, Tls};
use crate::model::SecretRef;
use crate::store::View;
use crate::values::certificate::Checked;
use crate::values::{Findings, HostName, Kind, ObjectKey, Origin, Setting};

/// What an Ingress's `tls` section gives the host, as ingress-nginx finds it: the Secret of the entry that lists the
/// host, else the first Secret whose certificate covers it. A host of an Ingress with a `tls` section always has TLS;
/// where the Secret is missing, broken or for other names, the default certificate serves.
pub(crate) fn of_ingress(draft: &mut Draft<'_>, key: &ObjectKey, ingress: &Ingress) -> Option<Tls> {
    let entries = ingress.spec.as_ref()?.tls.as_deref().filter(|entries| !entries.is_empty())?;
    let lists_host = |hosts: &Option<Vec<String>>| {
        hosts.iter().flatten().any(|host| HostName::parse(host).is_ok_and(|host| host == *draft.host))
    };
    if let Some(index) = entries.iter().position(|entry| lists_host(&entry.hosts)) {
        let origin = Origin::new(key, format!("spec.tls[{index}].secretName"));
        let Some(name) = entries[index].secret_name.as_deref().filter(|name| !name.is_empty()) else {
            return Some(Tls { origin, secret: None });
        };
        let secret = SecretRef { namespace: key.namespace.clone(), name: name.into() };
        let usable = usable(draft, &secret);
        if let Err(problem) = &usable {
            let message = format!(
                "Secret {}/{name} {problem}; the default certificate is served for {}",
                key.namespace, draft.host
            );
            match draft.view.certificate(&key.namespace, name) {
                // It may still come, as cert-manager's do.
                None => draft.findings.warning(key, &*origin.field, "SecretNotFound", message),
                Some(_) => draft.findings.error(key, &*origin.field, "InvalidCertificate", message),
            }
        }
        let secret = usable.ok().map(|found| (Setting { value: secret, origin: origin.clone() }, found));
        return Some(Tls { origin, secret });
    }
    let covering = entries.iter().enumerate().find_map(|(index, entry)| {
        let name = entry.secret_name.as_deref().filter(|name| !name.is_empty())?;
        let secret = SecretRef { namespace: key.namespace.clone(), name: name.into() };
        let found = usable(draft, &secret).ok()?;
        let origin = Origin::new(key, format!("spec.tls[{index}].secretName"));
        Some(Tls { origin: origin.clone(), secret: Some((Setting { value: secret, origin }, found)) })
    });
    Some(covering.unwrap_or_else(|| Tls { origin: Origin::new(key, "spec.tls"), secret: None }))
}

/// The Secret's certificate, if it can be served for the draft's host.
fn usable(draft: &Draft<'_>, secret: &SecretRef) -> Result<Arc<Checked>, String> {
    let certificate = certificate(draft.view, secret)?;
    if draft.host.is_any() || certificate.covers(draft.host) {
        Ok(certificate)
    } else {
        Err(format!("holds a certificate that is not for {}", draft.host))
    }
}

/// The certificate in a Secret of type `kubernetes.io/tls`.
///
/// # Errors
/// What is wrong with it, to be put behind the Secret's name.
fn certificate(view: &View<'_>, secret: &SecretRef) -> Result<Arc<Checked>, String> {
    view.certificate(&secret.namespace, &secret.name)
        .cloned()
        .unwrap_or_else(|| Err("does not exist".to_owned()))
}

/// The certificate for names that have none of their own.
pub fn default_certificate(view: &View<'_>, secret: &SecretRef) -> (Option<Arc<Checked>>, Findings) {
    let mut findings = Findings::default();
    let certificate = certificate(view, secret).map_err(|problem| {
        let key = ObjectKey::new(Kind::Secret, secret.namespace.clone(), secret.name.clone());
        let message = format!("{problem}; a generated certificate is served by default instead");
        findings.error(&key, "data", "InvalidCertificate", message);
    });
    (certificate.ok(), findings)
}
