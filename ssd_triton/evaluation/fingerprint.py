"""Fingerprint of the models on a server: JSON values to compare between runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2

from ssd_triton.client import DetectorClient
from ssd_triton.common.files import sha256_of
from ssd_triton.evaluation.errors import EvaluationError

_DECIDING = (
    "platform",
    "backend",
    "default_model_filename",
    "optimization",
    "parameters",
    "ensemble_scheduling",
    "output",
)
"""Fields of a model's configuration that results depend on; the others concern scheduling only."""


def served_models(client: DetectorClient, model: str) -> dict[str, Any]:
    """Read the configurations of an ensemble and its members from a server, as far as results depend on them.

    For a single model that does all steps itself, the models whose files it loads count as members.

    Returns:
        By model name: fields of the configuration by their names in ``config.pbtxt``, and ``instance_kinds``, the
        devices, since a variant may have another precision on a CPU.

    Raises:
        ClientError: The server does not answer, or has no such model.
    """
    ensemble = _deciding(client.model_config(model))
    steps = ensemble.get("ensemble_scheduling", {}).get("step", [])
    members = {str(step["model_name"]) for step in steps}
    parameters = ensemble.get("parameters", {})
    files = [str(parameters[name]["string_value"]) for name in ("detector", "postprocess") if name in parameters]
    members |= {file.partition("/")[0] for file in files}
    return {model: ensemble, **{name: _deciding(client.model_config(name)) for name in sorted(members)}}


def check_classes(models: Mapping[str, Any], num_labels: int) -> None:
    """Refuse labels that do not fit the served model.

    Raises:
        EvaluationError: The output ``conf`` of a member has another number of classes.
    """
    for name, config in models.items():
        for output in config.get("output", []):
            got = int(output["dims"][0])
            if output["name"] == "conf" and got != num_labels:
                raise EvaluationError(
                    f"the served model '{name}' has {got} classes, expected {num_labels} as the labels file has "
                    "(background included); give the labels of that model with --labels-path"
                )


def artefacts(models: Mapping[str, Any], repository: Path) -> dict[str, str]:
    """SHA-256 of the model files in the repository of a server on this machine, by model."""
    names = {name: config.get("default_model_filename") or "model.onnx" for name, config in models.items()}
    paths = {name: repository / name / "1" / filename for name, filename in names.items()}
    return {name: sha256_of(path) for name, path in paths.items() if path.is_file()}


def _deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the JSON of either protocol into one form, through Triton's own message."""
    message = json_format.ParseDict(config, model_config_pb2.ModelConfig(), ignore_unknown_fields=True)
    known = json_format.MessageToDict(message, preserving_proto_field_name=True)
    kinds = sorted({str(group.get("kind", "KIND_AUTO")) for group in known.get("instance_group", [])})
    return {**{key: known[key] for key in _DECIDING if key in known}, "instance_kinds": kinds}
