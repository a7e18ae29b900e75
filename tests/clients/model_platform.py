"""A platform that gives each model deployment a Service and an Ingress of its own, in its user's namespace and below one host.

    model_platform.py HTTP_PORT PUBLISHED_ADDRESS MODEL=ADDRESS:PORT...

Deploys, redeploys, shifts traffic and takes down, and waits after each step until Envoy's answers follow.
"""

import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException

HOST = "localhost"
MANAGED = {"app.kubernetes.io/managed-by": "model-platform"}
CANARY = "nginx.ingress.kubernetes.io/canary"

# Far more than anything needs: nothing waits for it to pass.
PATIENCE = 120


@dataclass(frozen=True)
class Deployment:
    """A model that a user has deployed."""

    number: int
    user: int
    model: str

    @property
    def name(self):
        return f"deployment-{self.number}"

    @property
    def namespace(self):
        return f"user-{self.user}"

    @property
    def path(self):
        return f"/api/v1/predict/{self.number}"


def made(create, replace, body):
    """Creates an object, or replaces the one that is there, as a program does that may be run again."""
    try:
        return create(body)
    except ApiException as error:
        if error.status != 409:
            raise
        return replace(body)


class Platform:
    """What the platform keeps in Kubernetes."""

    def __init__(self, endpoints):
        config.load_kube_config()
        self.core = client.CoreV1Api()
        self.networking = client.NetworkingV1Api()
        self.discovery = client.DiscoveryV1Api()
        self.endpoints = endpoints

    def deploy(self, deployment):
        self.create_namespace(deployment.namespace)
        self.create_service(deployment.namespace, deployment.model)
        return self.create_ingress(deployment, deployment.name)

    def create_namespace(self, name):
        try:
            self.core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name)))
        except ApiException as error:
            if error.status != 409:
                raise

    def create_service(self, namespace, model):
        """A Service, and the EndpointSlice that a controller would make of it."""
        address, port = self.endpoints[model]
        service = client.V1Service(
            metadata=client.V1ObjectMeta(name=model, labels=MANAGED),
            spec=client.V1ServiceSpec(
                selector={"model": model},
                ports=[client.V1ServicePort(name="http", port=80, target_port=port)],
            ),
        )
        self.core.create_namespaced_service(namespace, service)
        slice_of_it = client.V1EndpointSlice(
            metadata=client.V1ObjectMeta(name=f"{model}-1", labels={"kubernetes.io/service-name": model}),
            address_type="IPv4",
            ports=[client.DiscoveryV1EndpointPort(name="http", port=port, protocol="TCP")],
            endpoints=[
                client.V1Endpoint(addresses=[address], conditions=client.V1EndpointConditions(ready=True)),
            ],
        )
        self.discovery.create_namespaced_endpoint_slice(namespace, slice_of_it)

    def create_ingress(self, deployment, name, annotations=None):
        backend = client.V1IngressBackend(
            service=client.V1IngressServiceBackend(
                name=deployment.model, port=client.V1ServiceBackendPort(number=80)
            )
        )
        path = client.V1HTTPIngressPath(path=deployment.path, path_type="Prefix", backend=backend)
        ingress = client.V1Ingress(
            api_version="networking.k8s.io/v1",
            kind="Ingress",
            metadata=client.V1ObjectMeta(
                name=name, namespace=deployment.namespace, labels=MANAGED, annotations=annotations
            ),
            spec=client.V1IngressSpec(
                ingress_class_name="nginx",
                rules=[client.V1IngressRule(host=HOST, http=client.V1HTTPIngressRuleValue(paths=[path]))],
            ),
        )
        return made(
            lambda body: self.networking.create_namespaced_ingress(deployment.namespace, body),
            lambda body: self.networking.replace_namespaced_ingress(name, deployment.namespace, body),
            ingress,
        )

    def start_canary(self, deployment):
        self.create_service(deployment.namespace, deployment.model)
        self.create_ingress(deployment, f"{deployment.name}-canary", {CANARY: "true", f"{CANARY}-weight": "0"})

    def shift(self, deployment, weight):
        patch = {"metadata": {"annotations": {f"{CANARY}-weight": weight and str(weight)}}}
        self.networking.patch_namespaced_ingress(f"{deployment.name}-canary", deployment.namespace, patch)

    def delete(self, deployment):
        namespace, selector = deployment.namespace, f"metadata.name={deployment.name}"
        self.networking.delete_namespaced_ingress(deployment.name, namespace)
        self.core.delete_namespaced_service(deployment.model, namespace)
        left = self.networking.list_namespaced_ingress(namespace, field_selector=selector)
        assert not left.items, left

    def address(self, deployment):
        """Where the Ingress is reached, once its status says so."""
        events = watch.Watch().stream(
            self.networking.list_namespaced_ingress,
            deployment.namespace,
            field_selector=f"metadata.name={deployment.name}",
            timeout_seconds=PATIENCE,
        )
        for event in events:
            reached = event["object"].status.load_balancer
            if reached and reached.ingress:
                return reached.ingress[0].ip
        raise AssertionError(f"{deployment.name} gets no address")


class Client:
    """A user of the models."""

    def __init__(self, port):
        self.base = f"http://{HOST}:{port}"

    def answer(self, deployment):
        try:
            with urllib.request.urlopen(f"{self.base}{deployment.path}/infer", timeout=10) as response:
                return response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code

    def until(self, deployment, *wanted):
        """Waits until fifty answers in a row are all of these and no other."""
        end = time.monotonic() + PATIENCE
        while (seen := {self.answer(deployment) for _ in range(50)}) != set(wanted):
            assert time.monotonic() < end, f"{deployment.name}: wanted {wanted}, seen {seen}"
            time.sleep(0.05)
        print(f"{deployment.name}: {', '.join(map(str, wanted))}")


def main():
    port, published, *models = sys.argv[1:]
    endpoints = {}
    for model in models:
        name, place = model.split("=")
        address, number = place.split(":")
        endpoints[name] = (address, int(number))
    platform, user = Platform(endpoints), Client(port)

    one, two = Deployment(1, 1, "sentiment"), Deployment(2, 1, "translate")
    three = Deployment(3, 2, "summarize")
    for deployment in one, two, three:
        platform.deploy(deployment)
        user.until(deployment, deployment.model)
        assert platform.address(deployment) == published

    again = Deployment(2, 1, "translate-next")
    platform.deploy(again)
    user.until(again, "translate-next")
    ours = platform.networking.list_ingress_for_all_namespaces(
        label_selector="app.kubernetes.io/managed-by=model-platform"
    )
    assert len(ours.items) == 3, ours

    canary = Deployment(1, 1, "sentiment-next")
    platform.start_canary(canary)
    platform.shift(canary, 50)
    user.until(one, "sentiment", "sentiment-next")
    platform.shift(canary, 100)
    user.until(one, "sentiment-next")
    platform.shift(canary, None)
    user.until(one, "sentiment")
    platform.networking.delete_namespaced_ingress("deployment-1-canary", one.namespace)

    left = [one, again, three]
    while left:
        gone = left.pop(0)
        platform.delete(gone)
        user.until(gone, 404)
        for deployment in left:
            assert user.answer(deployment) == deployment.model
    for namespace in one.namespace, three.namespace:
        platform.core.delete_namespace(namespace)


if __name__ == "__main__":
    main()
