"""Reading the ``config.pbtxt`` files of the model repository through Triton's own protobuf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import text_format
from pydantic import ValidationError
from tritonclient.grpc import model_config_pb2

from ssd_triton.common.errors import ConfigError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.model_names import DETECTOR, POSTPROCESS
from ssd_triton.detector.postprocessing.parameters import PostprocessParameters

ModelConfig = Any
"""``inference.ModelConfig``; the generated module carries no types."""


def load_model_config(path: Path) -> ModelConfig:
    """Parse a ``.pbtxt`` file.

    Raises:
        ConfigError: The file is missing, or holds a field that Triton does not know.
    """
    if not path.is_file():
        raise ConfigError(f"model configuration not found: {relative_to_cwd(path)}; set model_repository or variant")
    config = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), config)
    except text_format.ParseError as error:
        raise ConfigError(f"{relative_to_cwd(path)}:{error}") from error
    return config


def variants(repository: Path) -> list[str]:
    """Names of the detector's variants: what ``--model-config-name`` of tritonserver takes."""
    return sorted(path.stem for path in (repository / DETECTOR / "configs").glob("*.pbtxt"))


def variant_config(repository: Path, variant: str) -> ModelConfig:
    """The detector's configuration for a variant.

    Raises:
        ConfigError: There is no such variant. Triton itself would silently take the default one.
    """
    known = variants(repository)
    if variant not in known:
        raise ConfigError(
            f"unknown variant '{variant}'; {relative_to_cwd(repository)} has: {', '.join(known) or 'none'}"
        )
    return load_model_config(repository / DETECTOR / "configs" / f"{variant}.pbtxt")


def postprocess_config(repository: Path, variant: str) -> ModelConfig:
    """The post-processing's configuration for a variant of the detector: its own, or the default one.

    Raises:
        ConfigError: The file is missing, or holds a field that Triton does not know.
    """
    own = repository / POSTPROCESS / "configs" / f"{variant}.pbtxt"
    return load_model_config(own if own.is_file() else repository / POSTPROCESS / "config.pbtxt")


def postprocess_artefact(repository: Path, variant: str) -> Path:
    """The file that the post-processing runs for a variant of the detector.

    Raises:
        ConfigError: See :func:`postprocess_config`.
    """
    config = postprocess_config(repository, variant)
    return repository / POSTPROCESS / "1" / (config.default_model_filename or "model.onnx")


def postprocess_parameters(repository: Path) -> PostprocessParameters:
    """Read the thresholds that the post-processing is built with.

    Raises:
        ConfigError: A threshold is missing or out of range, the outputs' size is not ``detections_per_img``, or the
            configurations of the post-processing do not agree.
    """
    path = repository / POSTPROCESS / "config.pbtxt"
    parameters = _parameters(path)
    for other in sorted({link.resolve() for link in (repository / POSTPROCESS / "configs").glob("*.pbtxt")}):
        values = _parameters(other)
        for name, expected in parameters:
            if getattr(values, name) != expected:
                raise ConfigError(
                    f"{relative_to_cwd(other)}: {name} is {getattr(values, name)}, expected {expected} as in "
                    f"{relative_to_cwd(path)}: give both the same thresholds"
                )
    return parameters


def _parameters(path: Path) -> PostprocessParameters:
    """The thresholds in one configuration of the post-processing."""
    config = load_model_config(path)
    known = PostprocessParameters.model_fields
    given = {key: value.string_value for key, value in config.parameters.items() if key in known}
    try:
        parsed = PostprocessParameters.model_validate(given)
    except ValidationError as error:
        problems = "; ".join(f"{problem['loc'][0]}: {problem['msg'].lower()}" for problem in error.errors())
        raise ConfigError(f"{relative_to_cwd(path)}, parameters: {problems}") from None
    for output in config.output:
        if output.name == "detection_scores" and list(output.dims) != [parsed.detections_per_img]:
            raise ConfigError(
                f"{relative_to_cwd(path)}: detection_scores has dims {list(output.dims)}, expected "
                f"[{parsed.detections_per_img}] as detections_per_img says"
            )
    return parsed
