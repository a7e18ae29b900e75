//! networking.k8s.io/v1

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressClass,
    IngressClassParametersReference, IngressClassSpec, IngressRule, IngressServiceBackend, IngressSpec,
    IngressTLS, ServiceBackendPort,
};
use k8s_pb::api::networking::v1 as pb;

use super::metadata::metadata;
use super::{decoded, exact, list, nonempty, texts, typed_local_object_reference};
use crate::source::read::ReadError;
use crate::store::Object;

/// Reads an Ingress, without its status.
pub(in crate::source) fn ingress(message: &[u8]) -> Result<Object, ReadError> {
    let it: pb::Ingress = decoded(message)?;
    let spec = it.spec.map(ingress_spec);
    Ok(Object::Ingress(Box::new(Ingress { metadata: metadata(it.metadata)?, spec, status: None })))
}

fn ingress_spec(it: pb::IngressSpec) -> IngressSpec {
    IngressSpec {
        default_backend: it.default_backend.map(backend),
        ingress_class_name: it.ingress_class_name,
        rules: list(it.rules, rule),
        tls: list(it.tls, tls),
    }
}

fn tls(it: pb::IngressTls) -> IngressTLS {
    IngressTLS { hosts: texts(it.hosts), secret_name: nonempty(it.secret_name) }
}

fn rule(it: pb::IngressRule) -> IngressRule {
    let http = it.ingress_rule_value.and_then(|value| value.http);
    let paths = |it: pb::HttpIngressRuleValue| HTTPIngressRuleValue { paths: exact(it.paths, path) };
    IngressRule { host: nonempty(it.host), http: http.map(paths) }
}

fn path(it: pb::HttpIngressPath) -> HTTPIngressPath {
    HTTPIngressPath {
        backend: it.backend.map(backend).unwrap_or_default(),
        path: nonempty(it.path),
        path_type: it.path_type.unwrap_or_default(),
    }
}

fn backend(it: pb::IngressBackend) -> IngressBackend {
    IngressBackend {
        resource: it.resource.map(typed_local_object_reference),
        service: it.service.map(service),
    }
}

fn service(it: pb::IngressServiceBackend) -> IngressServiceBackend {
    let port = |it: pb::ServiceBackendPort| ServiceBackendPort {
        name: nonempty(it.name),
        number: nonempty(it.number),
    };
    IngressServiceBackend { name: it.name.unwrap_or_default(), port: it.port.map(port) }
}

/// Reads an IngressClass.
pub(in crate::source) fn ingress_class(message: &[u8]) -> Result<Object, ReadError> {
    let it: pb::IngressClass = decoded(message)?;
    let spec = it.spec.map(|it| IngressClassSpec {
        controller: nonempty(it.controller),
        parameters: it.parameters.map(parameters),
    });
    Ok(Object::IngressClass(Box::new(IngressClass { metadata: metadata(it.metadata)?, spec })))
}

fn parameters(it: pb::IngressClassParametersReference) -> IngressClassParametersReference {
    IngressClassParametersReference {
        api_group: it.a_pi_group,
        kind: it.kind.unwrap_or_default(),
        name: it.name.unwrap_or_default(),
        namespace: it.namespace,
        scope: it.scope,
    }
}
