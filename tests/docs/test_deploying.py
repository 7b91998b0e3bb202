"""What docs/deploying.md shows is there, and what can be run without a cluster is run."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.files import K8S, ROOT
from tests.support.deploy_tools import require

DOCUMENT = (ROOT / "docs" / "deploying.md").read_text()
CREATE = re.findall(r"^kubectl create secret (?:.*\\\n)*.*$", DOCUMENT, re.MULTILINE)


def test_every_file_that_it_names_is_there() -> None:
    named = set(re.findall(r"`((?:k8s|tests|deploy)/[\w./-]+)`", DOCUMENT))

    assert len(named) >= 8
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.foreign
@pytest.mark.parametrize("command", CREATE, ids=range(len(CREATE)))
def test_the_secrets_can_be_made_as_it_says(tmp_path: Path, command: str) -> None:
    require("kubectl")
    require("openssl")
    (tmp_path / "ca.crt").write_text("a certificate")
    (tmp_path / "password").write_text("a-password")
    environment = os.environ | {"KAFKA_CA": "ca.crt", "KAFKA_PASSWORD": "a-password"}

    done = subprocess.run(
        ["bash", "-c", f"{command} --dry-run=client -o yaml"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["metadata"]["namespace"] == "vault-stream"


@pytest.mark.foreign
def test_the_overlay_of_ones_own_builds(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```yaml\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    relative = os.path.relpath(K8S / "overlays", tmp_path)
    (tmp_path / "kustomization.yaml").write_text(
        example.replace("../../components", f"{relative}/../components").replace(
            "../production", f"{relative}/production"
        )
    )

    done = subprocess.run(
        [require("kubectl"), "kustomize", "--load-restrictor=LoadRestrictionsNone", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    kinds = {document["kind"] for document in built}
    assert {"StatefulSet", "KafkaUser", "ScaledObject", "PodMonitor", "PrometheusRule"} <= kinds
    (worker,) = (document for document in built if document["kind"] == "StatefulSet")
    assert worker["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example/vault-stream:0.1.0"
    spaces = {(document["kind"], document["metadata"].get("namespace")) for document in built}
    assert {space for kind, space in spaces if kind in {"KafkaTopic", "KafkaUser"}} == {"kafka"}
    assert {
        space for kind, space in spaces if kind in {"PodMonitor", "PrometheusRule", "ConfigMap", "ScaledObject"}
    } == {"vault-stream"}
