"""The Helm chart, rendered by Helm and compared with Kubernetes' schemas, with the entry point and with each other."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from ssd_triton.commands.parser import parse_verb
from ssd_triton.common.files import ROOT
from ssd_triton.serving.repository.repository import ModelRepository
from tests.serving.helm import (
    CASES,
    CHART,
    DIGEST,
    PROMETHEUS,
    Manifest,
    container,
    expressions,
    pod,
    render,
    run_helm,
    the,
)
from tests.serving.image import ALIVE, arguments_of

KSERVE = ROOT / "deploy/kserve/inferenceservice.yaml"
KUBERNETES = ("1.30", "1.37")
"""The oldest release that the chart takes, and the newest whose schemas are there."""


@pytest.mark.parametrize("case", CASES)
def test_helm_finds_nothing_to_complain_of(case: str) -> None:
    result = run_helm("lint", "--strict", str(CHART), *CASES[case])
    assert result.returncode == 0, result.stdout


def test_unknown_and_wrong_values_are_refused() -> None:
    for value, reason in (
        ("replicas=3", "'replicas' not allowed"),
        ("drain.preStopSeconds=soon", "want integer"),
        ("image.digest=sha256:abc", "does not match pattern"),
        ("networkPolicy.clients=null", "missing property 'clients'"),
        ("networkPolicy.clients={}", "want object"),
        ("temporary=much", "does not match pattern"),
    ):
        result = run_helm("template", "ssd", str(CHART), "--set", value)
        assert result.returncode != 0
        assert reason in result.stderr


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("case", CASES)
def test_manifests_have_the_schema_of_kubernetes(case: str, version: str) -> None:
    kinds = set()
    for manifest in render(case):
        if not manifest["apiVersion"].startswith("monitoring.coreos.com"):
            kubernetes_validate.validate(manifest, version, strict=True)
            kinds.add(manifest["kind"])
    assert {"Deployment", "Service", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy"} <= kinds
    if case == "everything":
        assert {"HorizontalPodAutoscaler", "PersistentVolumeClaim", "ConfigMap"} <= kinds


def test_the_schemas_would_refuse_a_wrong_manifest() -> None:
    wrong = copy.deepcopy(the("gpu", "Deployment"))
    wrong["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["grpc"]["port"] = "grpc"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES[-1], strict=True)


def test_resources_of_the_prometheus_operator_have_its_schema() -> None:
    models = pytest.importorskip(
        "cloudcoil.models.prometheus_operator.v1",
        reason="needs its schemas: pip install cloudcoil-models-prometheus-operator==0.80.1.0",
    )
    for kind in ("PodMonitor", "PrometheusRule"):
        manifest = the("everything", kind)
        parsed = getattr(models, kind).model_validate(manifest)
        # Unknown keys are dropped, not refused: nothing may be missing from what is written again.
        assert json.loads(parsed.model_dump_json(by_alias=True, exclude_unset=True)) == manifest


def test_the_inference_service_s_pod_has_the_schema_of_kubernetes() -> None:
    """KServe's own part is small; the rest of its predictor are fields of a pod."""
    service = yaml.safe_load(KSERVE.read_text())
    predictor = dict(service["spec"]["predictor"])
    own = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "timeout"}
    assert own <= set(predictor)
    spec = {key: value for key, value in predictor.items() if key not in own}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
    kubernetes_validate.validate(manifest, KUBERNETES[-1], strict=True)
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"


# --- manifests and entry point ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_the_entry_point_takes_the_arguments(case: str) -> None:
    _, args, config = parse_verb("container", container(case)["args"])
    assert config.container.variant in {"auto", *ModelRepository(config.model_repository).variants}
    assert config.server.shutdown_timeout_s == 30
    assert config.container.builder_timeout_s == 1800
    assert "--grpc-max-connection-age=300000" in args.triton_options


def test_the_inference_service_s_arguments_are_known_too() -> None:
    [serving] = yaml.safe_load(KSERVE.read_text())["spec"]["predictor"]["containers"]
    assert parse_verb("container", serving["args"])[2].container.variant == "tensorrt_fp16"


@pytest.mark.parametrize("case", CASES)
def test_times_fit_together(case: str) -> None:
    deployment, serving = the(case, "Deployment")["spec"], container(case)
    _, _, config = parse_verb("container", serving["args"])
    probe = serving["startupProbe"]
    startup_s = probe["periodSeconds"] * probe["failureThreshold"]
    if config.container.variant != "onnx_int8":
        assert startup_s > config.container.builder_timeout_s
    assert deployment["progressDeadlineSeconds"] > startup_s
    pre_stop_s = serving["lifecycle"]["preStop"]["sleep"]["seconds"]
    readiness = serving["readinessProbe"]
    assert pre_stop_s >= readiness["periodSeconds"] * readiness["failureThreshold"]
    assert pod(case)["terminationGracePeriodSeconds"] > pre_stop_s + config.server.shutdown_timeout_s


@pytest.mark.parametrize("case", CASES)
def test_selectors_find_the_pods(case: str) -> None:
    labels = the(case, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    selectors = [the(case, "Deployment")["spec"]["selector"]["matchLabels"]]
    selectors += [service["spec"]["selector"] for service in render(case) if service["kind"] == "Service"]
    selectors += [the(case, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]]
    selectors += [the(case, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]]
    if case != "defaults":
        selectors += [the(case, "PodMonitor")["spec"]["selector"]["matchLabels"]]
        assert the(case, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == "ssd"
        assert "replicas" not in the(case, "Deployment")["spec"]
    assert all(selector.items() <= labels for selector in selectors)


@pytest.mark.parametrize("case", CASES)
def test_ports_exist(case: str) -> None:
    names = {port["name"]: port["containerPort"] for port in container(case)["ports"]}
    assert names == {"http": 8000, "grpc": 8001, "metrics": 8002}
    services = [service for service in render(case) if service["kind"] == "Service"]
    used = {port["targetPort"] for service in services for port in service["spec"]["ports"]}
    rules = the(case, "NetworkPolicy")["spec"]["ingress"]
    used |= {port["port"] for rule in rules for port in rule["ports"]}
    assert used == set(names)
    assert [s["spec"].get("clusterIP") for s in services if s["metadata"]["name"] == "ssd-grpc"] == ["None"]


@pytest.mark.parametrize("case", CASES)
def test_pods_are_confined(case: str) -> None:
    """As Kubernetes' restricted pod security standard asks, and with a root file system that nobody writes to."""
    assert pod(case)["securityContext"]["runAsNonRoot"] is True
    assert pod(case)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod(case)["automountServiceAccountToken"] is False
    assert container(case)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    written = {mount["mountPath"]: mount["name"] for mount in container(case)["volumeMounts"]}
    assert {"/var/cache/ssd-triton", "/run/ssd-triton", "/tmp", "/dev/shm"} == set(written)
    assert set(written.values()) == {volume["name"] for volume in pod(case)["volumes"]}


def the_inference_service() -> Manifest:
    """KServe's predictor."""
    predictor: Manifest = yaml.safe_load(KSERVE.read_text())["spec"]["predictor"]
    return predictor


@pytest.mark.parametrize("case", [*CASES, "kserve"])
def test_scratch_space_is_limited(case: str) -> None:
    """A pod that fills its node's disk would take others with it."""
    volumes = (the_inference_service() if case == "kserve" else pod(case))["volumes"]
    scratch = {volume["name"]: volume["emptyDir"] for volume in volumes if "emptyDir" in volume}
    assert {"runtime", "tmp", "shared-memory"} <= set(scratch)
    assert all(directory.get("sizeLimit") for directory in scratch.values())


@pytest.mark.parametrize("case", [*CASES, "kserve"])
def test_liveness_is_a_detection(case: str) -> None:
    """The image has the script where the probe looks for it, and the probe waits for as long as the script may take."""
    serving = the_inference_service()["containers"][0] if case == "kserve" else container(case)
    probe = serving["livenessProbe"]
    shell, script = probe["exec"]["command"]
    assert (shell, script) == ("sh", f"{arguments_of('WORKDIR')[-1]}/{ALIVE.relative_to(ROOT)}")
    limits_s = dict(re.findall(r"--(max-time|retry-max-time) (\d+)", ALIVE.read_text()))
    assert probe["timeoutSeconds"] > int(limits_s["max-time"]) + int(limits_s["retry-max-time"])
    # A server that is busy for half a minute is not restarted.
    assert probe["periodSeconds"] * (probe["failureThreshold"] - 1) >= 30


@pytest.mark.parametrize("case", [*CASES, "kserve"])
def test_one_model_is_exposed(case: str) -> None:
    serving = the_inference_service()["containers"][0] if case == "kserve" else container(case)
    assert "--expose" in serving["args"]
    assert parse_verb("container", serving["args"])[2].server.expose


def test_an_image_is_named_by_its_digest_if_there_is_one() -> None:
    assert container("everything")["image"] == f"ssd-triton@{DIGEST}"
    assert container("defaults")["image"] == "ssd-triton:0.2.0"


def test_only_labelled_pods_and_prometheus_are_let_in() -> None:
    clients, monitoring = the("defaults", "NetworkPolicy")["spec"]["ingress"]
    assert clients["from"] == [{"podSelector": {"matchLabels": {"ssd-triton-client": "true"}}}]
    assert [port["port"] for port in clients["ports"]] == ["http", "grpc"]
    [namespace] = monitoring["from"]
    assert namespace["namespaceSelector"]["matchLabels"]
    assert [port["port"] for port in monitoring["ports"]] == ["metrics"]
    chosen, _ = the("everything", "NetworkPolicy")["spec"]["ingress"]
    assert chosen["from"][0]["podSelector"]["matchLabels"]["app"] == "camera"


def test_gpu_and_cpu_differ_where_they_must() -> None:
    assert container("gpu")["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in container("cpu")["resources"]["limits"]
    [engines] = [volume for volume in pod("gpu")["volumes"] if volume["name"] == "engines"]
    claim = engines["persistentVolumeClaim"]["claimName"]
    assert claim == the("gpu", "PersistentVolumeClaim")["metadata"]["name"]


# --- metrics ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def promtool() -> Callable[..., None]:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian, Ubuntu: apt install prometheus)")

    def run(*arguments: object) -> None:
        result = subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr

    return run


def test_rules_fire_when_they_should(promtool: Callable[..., None]) -> None:
    promtool("check", "rules", CHART / "files/rules.yaml")
    promtool("test", "rules", PROMETHEUS / "rules_test.yaml")


def test_every_expression_is_promql(promtool: Callable[..., None], tmp_path: Path) -> None:
    rules = [{"record": f"expression:{number}", "expr": text} for number, text in enumerate(expressions())]
    assert len(rules) > 25
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "rules.yaml")


def test_every_alert_is_tested() -> None:
    groups = yaml.safe_load((CHART / "files/rules.yaml").read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    tests = yaml.safe_load((PROMETHEUS / "rules_test.yaml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == alerts


def test_the_autoscaler_s_metric_is_the_adapter_s_and_the_rule_s() -> None:
    [rule] = yaml.safe_load((PROMETHEUS / "adapter-values.yaml").read_text())["rules"]["custom"]
    [metric] = the("gpu", "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    groups = the("gpu", "PrometheusRule")["spec"]["groups"]
    records = {entry["record"] for group in groups for entry in group["rules"] if "record" in entry}
    assert rule["seriesQuery"].split("{")[0] in records
    assert the("gpu", "PodMonitor")["spec"]["jobLabel"] in the("gpu", "Deployment")["metadata"]["labels"]
