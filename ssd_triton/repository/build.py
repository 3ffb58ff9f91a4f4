"""Building the artefacts that the model repository needs, and only those that are out of date.

Beside each artefact lies a JSON file with what it was made from (``inputs``), its own SHA-256, and the versions that
made it. An artefact is current when its inputs are the same and its content is what was written.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import torch

from ssd_triton import postprocess_parameters as parameters_module
from ssd_triton import reference
from ssd_triton.arrays import AnyArray
from ssd_triton.config import Config
from ssd_triton.errors import ConfigError
from ssd_triton.export import compare, detector, postprocess, quantize, ranges, samples, torchscript
from ssd_triton.files import atomic_output, relative_to_cwd, sha256_of
from ssd_triton.labels import load_labels
from ssd_triton.network import boxes, fused, resnet, ssd, weights
from ssd_triton.repository.model_config import (
    ModelConfig,
    postprocess_parameters,
    variant_config,
    variants,
)
from ssd_triton.repository.paths import DETECTOR, POSTPROCESS

_CHECK_IMAGES = 4
_NETWORK_CODE = (boxes, resnet, ssd, weights, compare, samples)
_POSTPROCESS_CODE = (boxes, postprocess, compare, samples, reference, parameters_module)


@dataclass(frozen=True)
class _Export:
    """How a file of the detector is made from the network in PyTorch."""

    export: Callable[[ssd.ServedDetector, Path, AnyArray], object]
    code: tuple[ModuleType, ...]
    packages: tuple[str, ...]


_INT8 = "onnx_int8.onnx"
_EXPORTS = {
    "onnx_fp32.onnx": _Export(
        detector.export_detector, (detector,), ("torch", "onnx", "onnxscript", "onnxruntime-openvino")
    ),
    "pytorch_fp32.pt": _Export(partial(torchscript.export_eager, dtype=torch.float32), (torchscript,), ("torch",)),
    "pytorch_fp16.pt": _Export(partial(torchscript.export_eager, dtype=torch.float16), (torchscript,), ("torch",)),
    "pytorch_fused_fp16.pt": _Export(torchscript.export_fused, (torchscript, fused), ("torch",)),
}


@dataclass(frozen=True)
class Artefact:
    """A file of the repository, what it depends on, and how it is made."""

    path: Path
    inputs: dict[str, object]
    packages: tuple[str, ...]
    build: Callable[[], None]

    @property
    def record_path(self) -> Path:
        """The JSON file beside the artefact."""
        return self.path.with_name(self.path.name + ".json")

    def stale_because(self) -> str | None:
        """Why the artefact must be built, or None when it is current."""
        if not self.path.is_file():
            return "missing"
        try:
            record = json.loads(self.record_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return "no record of what it was built from"
        if not isinstance(record, dict) or not isinstance(record.get("inputs"), dict):
            return "no record of what it was built from"
        changed = [key for key, value in self.inputs.items() if record["inputs"].get(key) != value]
        if changed:
            return f"changed: {', '.join(changed)}"
        return None if record.get("sha256") == sha256_of(self.path) else "not the file that was built"

    def write_record(self) -> None:
        """Note what the artefact was built from."""
        record = {
            "artefact": self.path.name,
            "sha256": sha256_of(self.path),
            "inputs": self.inputs,
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in self.packages},
            },
            "built": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        with atomic_output(self.record_path) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def artefacts(config: Config, images: Path | None = None, only: Sequence[str] = ()) -> list[Artefact]:
    """Every artefact that the repository's configurations name.

    Args:
        config: The project's configuration.
        images: A folder of images for the checks after an export; None takes a bundled photograph.
        only: Variants of the detector; empty takes all.

    Raises:
        ConfigError: The repository names a file that no builder here makes.
        WeightsError: The weights file is missing.
    """
    labels = load_labels(config.labels_path)
    found = [_postprocess_artefact(config, len(labels))]
    for variant in _with_sources(only or variants(config.model_repository)):
        model = variant_config(config.model_repository, variant)
        _check_classes(variant, model, len(labels))
        filename = model.default_model_filename
        if filename == _INT8:
            found.append(_int8_artefact(config, len(labels), images))
        elif filename in _EXPORTS:
            found.append(_detector_artefact(config, filename, len(labels), images))
        else:
            raise ConfigError(f"variant '{variant}' names {filename}, which nothing here builds")
    return found


def build(artefact: Artefact) -> None:
    """Build an artefact and its record; until it has passed its checks, the old one stays in place."""
    artefact.build()
    artefact.write_record()


def ensure_built(
    config: Config,
    report: Callable[[str], None],
    *,
    force: bool = False,
    images: Path | None = None,
    only: Sequence[str] = (),
) -> None:
    """Build what is out of date, and report a line for each artefact.

    Args:
        config: The project's configuration.
        report: Takes lines such as ``built model_repository/...: missing``.
        force: Build everything.
        images: See :func:`artefacts`.
        only: See :func:`artefacts`.
    """
    for artefact in artefacts(config, images, only):
        reason = "forced" if force else artefact.stale_because()
        if reason is None:
            report(f"current  {relative_to_cwd(artefact.path)}")
            continue
        report(f"building {relative_to_cwd(artefact.path)} ({reason})")
        build(artefact)
        report(f"built    {relative_to_cwd(artefact.path)} ({artefact.path.stat().st_size / 1e6:.1f} MB)")


def _check_classes(variant: str, model: ModelConfig, num_labels: int) -> None:
    """The labels file, the weights and the configurations must agree on the number of classes."""
    dims = {output.name: list(output.dims) for output in model.output}.get("conf")
    if dims != [num_labels, boxes.NUM_DEFAULT_BOXES]:
        raise ConfigError(
            f"variant '{variant}' has the output conf {dims}, expected [{num_labels}, {boxes.NUM_DEFAULT_BOXES}] as "
            "labels_path says: change the dims of conf in the configurations of ssd_detector and ssd_postprocess"
        )


def _detector_artefact(config: Config, filename: str, num_labels: int, images: Path | None) -> Artefact:
    path = config.model_repository / DETECTOR / "1" / filename
    export = _EXPORTS[filename]

    def make() -> None:
        network = weights.load_network(config.weights_path, config.backbone, num_labels)
        export.export(ssd.ServedDetector(network).eval(), path, samples.photographs(images, _CHECK_IMAGES))

    inputs: dict[str, object] = {
        "weights_sha256": weights.digest(config.weights_path),
        "backbone": config.backbone,
        "num_labels": num_labels,
        "code_sha256": _code_sha256((*_NETWORK_CODE, *export.code)),
    }
    return Artefact(path, inputs, export.packages, make)


def _with_sources(names: Sequence[str]) -> list[str]:
    """INT8 is made from the FP32 file, which must be current before it."""
    sources = ["onnx_fp32"] if "onnx_int8" in names else []
    return list(dict.fromkeys([*sources, *names]))


def _int8_artefact(config: Config, num_labels: int, images: Path | None) -> Artefact:
    path = config.model_repository / DETECTOR / "1" / _INT8
    ranges_file = ranges.ranges_path(config.weights_path)

    def make() -> None:
        found = ranges.load_ranges(ranges_file, config.weights_path)
        quantize.export_int8(
            path.with_name("onnx_fp32.onnx"),
            found,
            path,
            exclude=found.exclude,
            images_rgb=samples.photographs(images, _CHECK_IMAGES),
        )

    inputs: dict[str, object] = {
        "weights_sha256": weights.digest(config.weights_path),
        "ranges_sha256": sha256_of(ranges_file) if ranges_file.is_file() else None,
        "backbone": config.backbone,
        "num_labels": num_labels,
        "code_sha256": _code_sha256((*_NETWORK_CODE, detector, quantize, ranges)),
    }
    return Artefact(path, inputs, ("onnx", "onnxruntime-openvino"), make)


def _postprocess_artefact(config: Config, num_labels: int) -> Artefact:
    path = config.model_repository / POSTPROCESS / "1" / "model.onnx"
    parameters = postprocess_parameters(config.model_repository)
    inputs: dict[str, object] = {
        **parameters.model_dump(),
        "num_labels": num_labels,
        "code_sha256": _code_sha256(_POSTPROCESS_CODE),
    }
    return Artefact(
        path,
        inputs,
        ("numpy", "onnx", "onnxruntime-openvino"),
        lambda: postprocess.export_postprocess(path, num_labels, parameters),
    )


def _code_sha256(modules: tuple[ModuleType, ...]) -> str:
    """Digest of the source that makes an artefact, so that a changed exporter exports again."""
    digest = sha256()
    for module in modules:
        if module.__file__ is None:
            raise RuntimeError(f"{module.__name__} has no source file")
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()
