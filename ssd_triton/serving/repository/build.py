"""Building the artefacts that the model repository needs, and only those that are out of date."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import torch

from ssd_triton.common.arrays import AnyArray
from ssd_triton.common.errors import ConfigError
from ssd_triton.common.files import relative_to_cwd, sha256_of
from ssd_triton.common.labels import load_labels
from ssd_triton.common.model_names import DETECTOR
from ssd_triton.config import Config
from ssd_triton.detector import protocol
from ssd_triton.detector.export import compare, onnx_export, samples, torchscript
from ssd_triton.detector.network import boxes, fused, resnet, ssd
from ssd_triton.detector.postprocessing import onnx_graph as postprocess
from ssd_triton.detector.postprocessing import parameters as parameters_module
from ssd_triton.detector.postprocessing import reference
from ssd_triton.detector.postprocessing import torchscript as postprocess_torchscript
from ssd_triton.detector.postprocessing.parameters import PostprocessParameters
from ssd_triton.detector.quantization import quantize, ranges
from ssd_triton.detector.weights import file as weights_file
from ssd_triton.detector.weights.file import WeightsFile
from ssd_triton.serving.repository.artefact import Artefact, RecordedArtefact
from ssd_triton.serving.repository.engines import ONNX_OF, PRECISION_OF, engine_artefact
from ssd_triton.serving.repository.model_config import (
    ModelConfig,
    postprocess_artefact,
    postprocess_parameters,
    variant_config,
    variants,
)

_CHECK_IMAGES = 4
_NETWORK_CODE = (boxes, resnet, ssd, weights_file, compare, samples, protocol)
_POSTPROCESS_CODE = (boxes, reference, parameters_module)


@dataclass(frozen=True)
class _PostprocessExport:
    """How a file of the post-processing is made."""

    export: Callable[[Path, int, PostprocessParameters], None]
    code: tuple[ModuleType, ...]
    packages: tuple[str, ...]


@dataclass(frozen=True)
class _Export:
    """How a file of the detector is made from the network in PyTorch."""

    export: Callable[[ssd.ServedDetector, Path, AnyArray], object]
    code: tuple[ModuleType, ...]
    packages: tuple[str, ...]


_INT8 = "onnx_int8.onnx"
_SOURCES = {"onnx_int8": "onnx_fp32", **{variant: ONNX_OF[precision] for variant, precision in PRECISION_OF.items()}}
"""The variant whose file another one is made from."""
_EXPORTS = {
    "onnx_fp32.onnx": _Export(
        onnx_export.export_detector, (onnx_export,), ("torch", "onnx", "onnxscript", "onnxruntime-openvino")
    ),
    "pytorch_fp32.pt": _Export(partial(torchscript.export_eager, dtype=torch.float32), (torchscript,), ("torch",)),
    "pytorch_fp16.pt": _Export(partial(torchscript.export_eager, dtype=torch.float16), (torchscript,), ("torch",)),
    "pytorch_fused_fp16.pt": _Export(torchscript.export_fused, (torchscript, fused), ("torch",)),
}


_POSTPROCESS_EXPORTS = {
    "model.onnx": _PostprocessExport(
        postprocess.export_postprocess,
        (postprocess, onnx_export, compare),
        ("numpy", "onnx", "onnxscript", "onnxruntime-openvino"),
    ),
    "model.pt": _PostprocessExport(
        postprocess_torchscript.export_postprocess_script,
        (postprocess_torchscript,),
        ("numpy", "torch"),
    ),
}


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
    chosen = list(only or variants(config.model_repository))
    found: list[Artefact] = _postprocess_artefacts(config, chosen, len(labels))
    weights = WeightsFile(config.weights_path)
    for variant in _with_sources(chosen):
        model = variant_config(config.model_repository, variant)
        _check_classes(variant, model, len(labels))
        filename = model.default_model_filename
        if variant in PRECISION_OF and filename == f"{variant}.plan":
            found.append(engine_artefact(config, variant))
        elif filename == _INT8:
            found.append(_int8_artefact(config, weights, len(labels), images))
        elif filename in _EXPORTS:
            found.append(_detector_artefact(config, weights, filename, len(labels), images))
        else:
            raise ConfigError(f"variant '{variant}' names {filename}, which nothing here builds")
    return found


def ensure_built(
    config: Config,
    report: Callable[[str], None],
    *,
    force: bool = False,
    images: Path | None = None,
    only: Sequence[str] = (),
) -> None:
    """Build what is out of date, and report a line for each artefact.

    What was not asked for by name and cannot be built here, such as an engine without its GPU, is skipped.

    Args:
        config: The project's configuration.
        report: Takes lines such as ``built model_repository/...: missing``.
        force: Build everything.
        images: See :func:`artefacts`.
        only: See :func:`artefacts`.
    """
    for artefact in artefacts(config, images, only):
        unavailable = None if only else artefact.unavailable_because()
        if unavailable is not None:
            report(f"skipped  {relative_to_cwd(artefact.path)} ({unavailable})")
            continue
        reason = "forced" if force else artefact.stale_because()
        if reason is None:
            report(f"current  {relative_to_cwd(artefact.path)}")
            continue
        report(f"building {relative_to_cwd(artefact.path)} ({reason})")
        artefact.build()
        report(f"built    {relative_to_cwd(artefact.path)} ({artefact.path.stat().st_size / 1e6:.1f} MB)")


def _check_classes(variant: str, model: ModelConfig, num_labels: int) -> None:
    """The labels file, the weights and the configurations must agree on the number of classes."""
    dims = {output.name: list(output.dims) for output in model.output}.get("conf")
    if dims != [num_labels, boxes.NUM_DEFAULT_BOXES]:
        raise ConfigError(
            f"variant '{variant}' has the output conf {dims}, expected [{num_labels}, {boxes.NUM_DEFAULT_BOXES}] as "
            "labels_path says: change the dims of conf in the configurations of ssd_detector and ssd_postprocess"
        )


def _detector_artefact(
    config: Config, weights: WeightsFile, filename: str, num_labels: int, images: Path | None
) -> RecordedArtefact:
    path = config.model_repository / DETECTOR / "1" / filename
    export = _EXPORTS[filename]

    def make() -> None:
        network = weights.load_network(config.backbone, num_labels)
        export.export(ssd.ServedDetector(network).eval(), path, samples.photographs(images, _CHECK_IMAGES))

    inputs: dict[str, object] = {
        "weights_sha256": weights.sha256,
        "backbone": config.backbone,
        "num_labels": num_labels,
        "code_sha256": _code_sha256((*_NETWORK_CODE, *export.code)),
    }
    return RecordedArtefact(path, inputs, export.packages, make)


def _with_sources(names: Sequence[str]) -> list[str]:
    """The variants, each after the one whose file it is made from."""
    ordered: dict[str, None] = {}
    for name in names:
        chain = [name]
        while source := _SOURCES.get(chain[0]):
            chain.insert(0, source)
        ordered.update(dict.fromkeys(chain))
    return list(ordered)


def _int8_artefact(config: Config, weights: WeightsFile, num_labels: int, images: Path | None) -> RecordedArtefact:
    path = config.model_repository / DETECTOR / "1" / _INT8
    ranges_file = ranges.ranges_path(weights.path)

    def make() -> None:
        found = ranges.load_ranges(ranges_file, weights)
        quantize.export_int8(
            path.with_name("onnx_fp32.onnx"),
            found,
            path,
            exclude=found.exclude,
            images_rgb=samples.photographs(images, _CHECK_IMAGES),
        )

    inputs: dict[str, object] = {
        "weights_sha256": weights.sha256,
        "ranges_sha256": sha256_of(ranges_file) if ranges_file.is_file() else None,
        "backbone": config.backbone,
        "num_labels": num_labels,
        "code_sha256": _code_sha256((*_NETWORK_CODE, onnx_export, quantize, ranges)),
    }
    return RecordedArtefact(path, inputs, ("onnx", "onnxruntime-openvino"), make, _without_ranges(weights, ranges_file))


def _without_ranges(weights: WeightsFile, ranges_file: Path) -> str | None:
    """Why INT8 cannot be built; None where the ranges of these weights are there."""
    try:
        ranges.load_ranges(ranges_file, weights)
    except ranges.CalibrationError as error:
        return str(error)
    return None


def _postprocess_artefacts(config: Config, chosen: Sequence[str], num_labels: int) -> list[Artefact]:
    """The forms of the post-processing that some variants use."""
    parameters = postprocess_parameters(config.model_repository)
    paths = sorted({postprocess_artefact(config.model_repository, variant) for variant in chosen})
    return [_postprocess_file(path, parameters, num_labels) for path in paths]


def _postprocess_file(path: Path, parameters: PostprocessParameters, num_labels: int) -> RecordedArtefact:
    if path.name not in _POSTPROCESS_EXPORTS:
        raise ConfigError(f"the post-processing's configurations name {path.name}, which nothing here builds")
    export = _POSTPROCESS_EXPORTS[path.name]
    inputs: dict[str, object] = {
        **parameters.model_dump(),
        "num_labels": num_labels,
        "code_sha256": _code_sha256((*_POSTPROCESS_CODE, *export.code)),
    }
    return RecordedArtefact(path, inputs, export.packages, lambda: export.export(path, num_labels, parameters))


def _code_sha256(modules: tuple[ModuleType, ...]) -> str:
    """Digest of the source that makes an artefact, so that a changed exporter exports again."""
    digest = sha256()
    for module in modules:
        if module.__file__ is None:
            raise RuntimeError(f"{module.__name__} has no source file")
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()
