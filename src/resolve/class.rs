//! Which Ingresses are ours.
//!
//! As in ingress-nginx: `ingressClassName` names an IngressClass whose controller is ours; else the old annotation
//! names our class; else the cluster's default class is ours, or Ingresses without a class are watched. Class `nginx`
//! is ours even without an IngressClass object, so that existing manifests work; with a foreign controller it is not.

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use super::draft::Draft;
use crate::settings::Settings;
use crate::store::View;
use crate::values::{Findings, ObjectKey};

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const DEFAULT_CLASS_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

/// Whether we serve this Ingress, for the draft of one of its hosts.
pub(crate) fn is_ours(draft: &mut Draft<'_>, key: &ObjectKey, ingress: &Ingress) -> bool {
    claims(draft.view, draft.settings, key, ingress, &mut draft.findings)
}

/// Whether we serve this Ingress. If nobody does, a finding says why.
pub(crate) fn claims(
    view: &View<'_>,
    settings: &Settings,
    key: &ObjectKey,
    ingress: &Ingress,
    findings: &mut Findings,
) -> bool {
    let spec_class = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref());
    let annotations = ingress.metadata.annotations.as_ref();
    if let Some(name) = spec_class {
        return match view.ingress_class(name) {
            Some(class) => controller_is_ours(settings, class),
            None if name == settings.ingress_class => true,
            None => {
                let message = format!("no IngressClass is named {name:?}, so this Ingress is not served");
                findings.warning(key, "spec.ingressClassName", "IngressClassNotFound", message);
                false
            }
        };
    }
    if let Some(name) = annotations.and_then(|annotations| annotations.get(CLASS_ANNOTATION)) {
        return *name == settings.ingress_class;
    }
    if settings.watch_ingress_without_class {
        return true;
    }
    let default = view.ingress_classes().find(|class| {
        let annotations = class.metadata.annotations.as_ref();
        annotations
            .and_then(|annotations| annotations.get(DEFAULT_CLASS_ANNOTATION))
            .is_some_and(|on| on == "true")
    });
    match default {
        Some(class) => controller_is_ours(settings, class),
        None => {
            let message = format!(
                "names no class and there is no default IngressClass, so this Ingress is not served; set it to {:?}, \
                 or start Chancery with --watch-ingress-without-class",
                settings.ingress_class
            );
            findings.warning(key, "spec.ingressClassName", "NoIngressClass", message);
            false
        }
    }
}

fn controller_is_ours(settings: &Settings, class: &IngressClass) -> bool {
    let controller = class.spec.as_ref().and_then(|spec| spec.controller.as_deref()).unwrap_or_default();
    settings.controllers.iter().any(|ours| ours == controller)
}
