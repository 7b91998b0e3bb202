"""The manifests for Kubernetes: each overlay builds, is valid to the letter, and keeps what a worker needs."""

import ipaddress
import json
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from app.settings import load_settings
from app.webhooks.guard import DENIED_NETWORKS
from deploy.files import K8S, PARTITIONS, REPLICATION, ROOT
from tests.support.deploy_tools import (
    BUILT,
    INSTALL,
    KUBERNETES_VERSIONS,
    PINS,
    ended,
    go_tool,
    lacking,
    python_tool,
    said,
)

OVERLAYS: Final = ("dev", "production", "strimzi", "keda", "monitoring")
OWN_SCHEMAS: Final = PINS / "schemas"
OWN_KINDS: Final = {json.loads(file.read_text())["properties"]["kind"]["const"] for file in OWN_SCHEMAS.glob("*.json")}
NEWEST: Final = KUBERNETES_VERSIONS[-1]
SCHEMAS: Final = """
import json, pathlib, sys, kubernetes_validate
version, folder = sys.argv[1], pathlib.Path(sys.argv[2])
source = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{version}-local-strict"
for file in source.glob("*.json"):
    schema = json.loads(file.read_text().replace('"/api/_definitions.json', '"_definitions.json'))
    schema.pop("$id", None)
    (folder / file.name).write_text(json.dumps(schema))
"""
# The digest of the image is known to those who build it; the base of the Dockerfile is an argument, which has a tag.
NOT_OURS_TO_SAY: Final = "CKV_K8S_43,CKV_DOCKER_7"

pytestmark = pytest.mark.foreign


@cache
def built(overlay: str) -> str:
    """What Kubernetes would be given."""
    if (kustomize := shutil.which("kustomize")) is not None:
        command = [kustomize, "build"]
    elif (kubectl := shutil.which("kubectl")) is not None:
        command = [kubectl, "kustomize"]
    else:
        lacking("kubectl", f"neither kustomize nor kubectl is on the PATH; install it by: {INSTALL['kubectl']}")
    done = ended(*command, str(K8S / overlay))
    assert done.returncode == 0, said(done)
    return done.stdout


def documents(overlay: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(built(overlay)) if document]


def one(overlay: str, kind: str, name: str = "vault-stream") -> dict[str, Any]:
    """The only document of that kind and name."""
    (found,) = (each for each in documents(overlay) if each["kind"] == kind and each["metadata"]["name"] == name)
    return found


def worker(overlay: str) -> dict[str, Any]:
    """The pod that a worker runs in."""
    spec: dict[str, Any] = one(overlay, "StatefulSet")["spec"]["template"]["spec"]
    return spec


def kubernetes_validate(folder: Path, text: str, version: str) -> tuple[bool, str]:
    """Its verdict on the kinds of Kubernetes itself; one that it does not know is no error to it, and is one here."""
    known = [each for each in yaml.safe_load_all(text) if each and each["kind"] not in OWN_KINDS]
    (folder / "built.yaml").write_text(yaml.safe_dump_all(known))
    done = ended(python_tool("manifests", "kubernetes-validate"), "-k", version, "--strict", str(folder / "built.yaml"))
    passed = len(re.findall(r"passed for resource", said(done)))
    return done.returncode == 0 and passed == len(known), said(done)


@cache
def schemas() -> Path:
    """The schemas of kubernetes-validate as kubeconform reads them; it has none of its own without a network."""
    folder = BUILT / f"schemas-{NEWEST}"
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        python = str(Path(python_tool("manifests", "kubernetes-validate")).parent / "python")
        done = ended(python, "-c", SCHEMAS, f"{NEWEST}.0", str(folder))
        assert done.returncode == 0, said(done)
        (folder / "complete").touch()
    return folder


def kubeconform(_folder: Path, text: str) -> tuple[bool, str]:
    """Its verdict, which an unknown kind fails. Never with -ignore-missing-schemas."""
    places = (f"{schemas()}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json", f"{OWN_SCHEMAS}/{{{{.ResourceKind}}}}.json")
    options = [option for place in places for option in ("-schema-location", place)]
    done = ended(go_tool("kubeconform"), "-strict", "-summary", *options, "-", input_=text)
    return done.returncode == 0, said(done)


# -- valid


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_valid(tmp_path: Path, overlay: str) -> None:
    text = built(f"overlays/{overlay}")

    for version in KUBERNETES_VERSIONS if overlay == "production" else (NEWEST,):
        holds, answer = kubernetes_validate(tmp_path, text, version)
        assert holds, answer
    holds, answer = kubeconform(tmp_path, text)
    assert holds, answer


FAULTS: Final[list[tuple[str, str, str]]] = [
    ("dev", "  replicas: 1", "  replica: 1"),
    ("dev", "readinessProbe:", "readinesProbe:"),
    ("dev", "containerPort: 8088", 'containerPort: "8088"'),
    ("dev", "maxUnavailable: 1", "maxUnavailabl: 1"),
    ("dev", "automountServiceAccountToken: false", "automountServiceAccountTokn: false"),
    ("dev", "policyTypes:", "policyType:"),
    ("dev", "kind: PodDisruptionBudget", "kind: PodDisruptionBugdet"),
    ("dev", "apiVersion: apps/v1", "apiVersion: apps/v9"),
]


@pytest.mark.parametrize(("overlay", "right", "wrong"), FAULTS)
@pytest.mark.parametrize("check", ["kubernetes-validate", "kubeconform"])
def test_a_slip_in_a_manifest_is_seen(tmp_path: Path, check: str, overlay: str, right: str, wrong: str) -> None:
    text = built(f"overlays/{overlay}")
    assert right in text
    broken = text.replace(right, wrong, 1)

    judge: Callable[[], tuple[bool, str]] = (
        (lambda: kubeconform(tmp_path, broken))
        if check == "kubeconform"
        else (lambda: kubernetes_validate(tmp_path, broken, NEWEST))
    )

    assert not judge()[0]


@pytest.mark.parametrize(
    ("overlay", "right", "wrong"),
    [
        ("strimzi", "partitions: 12", 'partitions: "12"'),
        ("strimzi", "patternType: prefix", "patternType: prefixed"),
        ("strimzi", "- Read\n", "- Reads\n"),
        ("keda", "maxReplicaCount:", "maxReplicas:"),
        ("keda", "stabilizationWindowSeconds: 1800", "stabilizationWindowSeconds: 18000"),
        ("monitoring", "podMetricsEndpoints:", "endpoints:"),
        ("monitoring", "for: 3m", "for: 3 minutes"),
        ("monitoring", "kind: PodMonitor", "kind: PodMonitors"),
    ],
)
def test_a_slip_in_an_object_of_an_operator_is_seen(tmp_path: Path, overlay: str, right: str, wrong: str) -> None:
    text = built(f"overlays/{overlay}")
    assert right in text

    assert not kubeconform(tmp_path, text.replace(right, wrong, 1))[0]


def test_checkov_finds_nothing(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(built("overlays/production"))
    bad.write_text(good.read_text().replace("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"))
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text((ROOT / "Dockerfile").read_text().replace("USER 10001:10001", "USER root"))
    options = ("--quiet", "--compact", "--skip-download", "--skip-check", NOT_OURS_TO_SAY)

    clean = ended(python_tool("checkov", "checkov"), "-f", str(good), "-f", str(ROOT / "Dockerfile"), *options)
    planted = ended(python_tool("checkov", "checkov"), "-f", str(bad), "-f", str(dockerfile), *options)

    assert clean.returncode == 0, said(clean)
    assert planted.returncode == 1
    assert {"CKV_K8S_22", "CKV_DOCKER_8"} <= set(re.findall(r"CKV_\w+", planted.stdout))


# -- what a worker needs, in each overlay; kustomize says nothing of a patch that met nothing


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_worker_keeps_its_volume_its_name_and_its_neighbours(overlay: str) -> None:
    stateful = one(f"overlays/{overlay}", "StatefulSet")["spec"]
    headless = one(f"overlays/{overlay}", "Service")["spec"]
    mounts = {
        mount["name"]: mount["mountPath"] for mount in worker(f"overlays/{overlay}")["containers"][0]["volumeMounts"]
    }

    assert [claim["metadata"]["name"] for claim in stateful["volumeClaimTemplates"]] == ["data"]
    assert (mounts["data"], mounts["tmp"]) == ("/data", "/tmp")  # noqa: S108  # of the container
    assert stateful["podManagementPolicy"] == "Parallel"
    assert stateful["serviceName"] == "vault-stream"
    assert (headless["clusterIP"], headless["publishNotReadyAddresses"]) == ("None", True)
    labels = stateful["template"]["metadata"]["labels"]
    assert stateful["selector"]["matchLabels"].items() <= labels.items()
    assert headless["selector"].items() <= labels.items()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_worker_may_nothing_that_it_does_not_need(overlay: str) -> None:
    pod = worker(f"overlays/{overlay}")
    container = pod["containers"][0]

    assert pod["automountServiceAccountToken"] is False
    assert one(f"overlays/{overlay}", "ServiceAccount")["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert one(f"overlays/{overlay}", "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_worker_is_asked_for_its_loop_and_its_readiness_and_is_given_time_to_drain(overlay: str) -> None:
    from app.main import STOP_S  # noqa: PLC0415  # Faust is imported by those who need it

    pod = worker(f"overlays/{overlay}")
    container = pod["containers"][0]
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}

    assert paths == {"startup": "/health/live", "liveness": "/health/live", "readiness": "/health/ready"}
    assert pod["terminationGracePeriodSeconds"] > STOP_S
    assert "preStop" not in container.get("lifecycle", {})


def settings_of(overlay: str, folder: Path) -> dict[str, str]:
    """The environment of the first worker, its secrets in a folder."""
    config = {each["metadata"]["name"]: each for each in documents(overlay) if each["kind"] == "ConfigMap"}
    container = worker(overlay)["containers"][0]
    environment: dict[str, str] = {}
    for source in container["envFrom"]:
        environment |= config[source["configMapRef"]["name"]]["data"]
    for variable in container["env"]:
        environment[variable["name"]] = variable.get("value", "vault-stream-0").replace("$(POD_NAME)", "vault-stream-0")
    (folder / "API__ADMIN_TOKEN").write_text("a-token")
    (folder / "WEBHOOKS__ENCRYPTION_KEYS").write_text('["k1:ZGV2ZWxvcG1lbnQtb25seS1rZXktbm90LXNlY3JldCE="]')
    if "VAULT_STREAM_KAFKA__SASL_USERNAME" in environment:
        (folder / "KAFKA__SASL_PASSWORD").write_text("a-password")
        (folder / ".ca.crt").write_text("a certificate")
        environment["VAULT_STREAM_KAFKA__SSL_CA"] = str(folder / ".ca.crt")
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert environment["VAULT_STREAM_SECRETS_DIR"] in mounts
    return environment | {"VAULT_STREAM_SECRETS_DIR": str(folder)}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_worker_takes_the_settings_of_the_manifests(tmp_path: Path, overlay: str) -> None:
    settings = load_settings(settings_of(f"overlays/{overlay}", tmp_path), dotenv=tmp_path / "none")

    assert settings.public_url == "http://vault-stream-0.vault-stream:8088"
    assert settings.instance_id == "vault-stream-0"
    assert settings.webhooks.origin == "vault-stream"
    assert str(settings.data_dir) == "/data"
    assert settings.partitions == PARTITIONS
    assert settings.replication == (1 if overlay == "dev" else REPLICATION)
    assert settings.kafka.security_protocol == ("PLAINTEXT" if overlay == "dev" else "SASL_SSL")


def test_the_dev_overlay_brings_the_secrets_that_the_worker_mounts(tmp_path: Path) -> None:
    (volume,) = (each for each in worker("overlays/dev")["volumes"] if each["name"] == "secrets")
    secret = one("overlays/dev", "Secret", volume["secret"]["secretName"])
    environment = settings_of("overlays/dev", tmp_path)
    for name, text in secret.get("stringData", {}).items():
        (tmp_path / name).write_text(text)

    assert secret["data"].keys() == {"API__ADMIN_TOKEN", "WEBHOOKS__ENCRYPTION_KEYS"}
    assert load_settings(environment, dotenv=tmp_path / "none").api.admin_token is not None


def test_the_overlay_for_strimzi_brings_the_password_and_the_way_to_the_brokers() -> None:
    pod = worker("overlays/strimzi")
    (volume,) = (each for each in pod["volumes"] if each["name"] == "secrets")
    egress = one("overlays/strimzi", "NetworkPolicy")["spec"]["egress"]
    ports = [port["port"] for rule in egress for port in rule.get("ports", [])]

    assert "secret" not in volume
    assert {source["secret"]["name"] for source in volume["projected"]["sources"]} == {
        "vault-stream",
        "vault-stream-kafka",
    }
    assert 9093 in ports
    topics = {
        each["metadata"]["name"]: each["spec"] for each in documents("overlays/strimzi") if each["kind"] == "KafkaTopic"
    }
    assert topics["vault-stream-deliveries-changelog"]["config"]["cleanup.policy"] == "compact"
    assert topics["vault.webhook.deliveries"] == topics["vault.webhook.deliveries"] | {"partitions": 12, "replicas": 3}


def test_the_overlay_for_keda_leaves_the_number_of_workers_to_keda() -> None:
    scaled = one("overlays/keda", "ScaledObject")["spec"]

    assert "replicas" not in one("overlays/keda", "StatefulSet")["spec"]
    assert 1 <= scaled["minReplicaCount"] < scaled["maxReplicaCount"] == PARTITIONS
    assert scaled["scaleTargetRef"]["name"] == "vault-stream"


def test_the_overlay_for_monitoring_finds_the_workers_and_brings_rules_and_dashboard() -> None:
    monitor = one("overlays/monitoring", "PodMonitor")["spec"]
    labels = one("overlays/monitoring", "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"] for port in worker("overlays/monitoring")["containers"][0]["ports"]}
    dashboard = one("overlays/monitoring", "ConfigMap", "vault-stream-dashboard")

    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    assert {endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]} <= ports
    assert one("overlays/monitoring", "PrometheusRule")["spec"]["groups"]
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["vault-stream.json"])["title"] == "vault-stream"


def reachable(egress: list[dict[str, Any]]) -> list[tuple[Any, list[Any]]]:
    """The blocks of addresses that a policy opens, each with its exceptions."""
    blocks = [to["ipBlock"] for rule in egress for to in rule["to"] if "ipBlock" in to]
    return [
        (ipaddress.ip_network(block["cidr"]), [ipaddress.ip_network(each) for each in block.get("except", [])])
        for block in blocks
    ]


def opened(blocks: list[tuple[Any, list[Any]]]) -> set[str]:
    """The networks that the worker denies and a policy opens."""
    return {
        str(denied)
        for denied in DENIED_NETWORKS
        for block, exceptions in blocks
        if denied.version == block.version
        and denied.overlaps(block)
        and not any(denied.subnet_of(exception) for exception in exceptions)
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_the_worker_denies_to_webhooks_the_network_policy_denies_too(overlay: str) -> None:
    policy = one(f"overlays/{overlay}", "NetworkPolicy")["spec"]
    blocks = reachable(policy["egress"])
    without = [(block, [each for each in exceptions if str(each) != "169.254.0.0/16"]) for block, exceptions in blocks]

    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert len(blocks) == 2
    assert opened(blocks) == set()
    assert opened(without) == {"169.254.0.0/16"}
