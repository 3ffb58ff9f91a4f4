"""The Helm chart, rendered."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssd_triton.common.files import ROOT

CHART = ROOT / "deploy/helm/ssd-triton"
PROMETHEUS = ROOT / "deploy/prometheus"
DIGEST = f"sha256:{'0123456789abcdef' * 4}"
EVERYTHING = [
    *("engineCache.persistent=true", "podMonitor.enabled=true", "prometheusRule.enabled=true"),
    *("grafanaDashboard.enabled=true", "autoscaling.enabled=true", "runtimeClassName=nvidia"),
    *(
        f"image.digest={DIGEST}",
        "imagePullSecrets[0].name=registry",
        "extraOptions[0]=--log-verbose=1",
        "podAnnotations.a=b",
    ),
    *("engineCache.storageClassName=fast", "nodeSelector.gpu=l4", "podMonitor.labels.release=prometheus"),
    *("serviceAccount.annotations.a=b", "networkPolicy.clients[0].podSelector.matchLabels.app=camera"),
    "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].key=a",
    "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].operator=Exists",
]
CASES: dict[str, list[str]] = {
    "defaults": [],
    "gpu": ["--values", str(CHART / "values-gpu.yaml")],
    "cpu": ["--values", str(CHART / "values-cpu.yaml")],
    "everything": [word for value in EVERYTHING for word in ("--set", value)],
}
Manifest = dict[str, Any]


def run_helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    helm = shutil.which("helm", path=f"{os.environ['PATH']}:{Path(sys.executable).parent}")
    if helm is None:
        pytest.skip("helm is not installed: go install helm.sh/helm/v4/cmd/helm@v4.3.1, or https://helm.sh")
    return subprocess.run([helm, *arguments], capture_output=True, text=True, check=False, timeout=60)


@cache
def render(case: str) -> tuple[Manifest, ...]:
    result = run_helm("template", "ssd", str(CHART), "--namespace", "vision", *CASES[case])
    assert result.returncode == 0, result.stderr
    return tuple(document for document in yaml.safe_load_all(result.stdout) if document)


def the(case: str, kind: str) -> Manifest:
    """The one manifest of a kind."""
    [found] = [manifest for manifest in render(case) if manifest["kind"] == kind]
    return found


def pod(case: str) -> Manifest:
    spec: Manifest = the(case, "Deployment")["spec"]["template"]["spec"]
    return spec


def container(case: str) -> Manifest:
    [found] = pod(case)["containers"]
    assert isinstance(found, dict)
    return found


def expressions() -> Iterator[str]:
    """Every PromQL expression of the rules, the adapter and the dashboard."""
    for group in yaml.safe_load((CHART / "files/rules.yaml").read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for panel in json.loads((CHART / "files/dashboard.json").read_text())["panels"]:
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "1m").replace("$namespace", ".*").replace("$pod", ".*")
    [rule] = yaml.safe_load((PROMETHEUS / "adapter-values.yaml").read_text())["rules"]["custom"]
    series = rule["seriesQuery"].split("{")[0]
    yield (
        rule["metricsQuery"]
        .replace("<<.Series>>", series)
        .replace("<<.LabelMatchers>>", 'namespace="n"')
        .replace("<<.GroupBy>>", "pod")
    )
