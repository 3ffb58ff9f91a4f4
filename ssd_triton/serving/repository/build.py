"""Builds the artefacts of the model repository that are out of date."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import torch

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
from ssd_triton.detector.quantization import quantize, ranges
from ssd_triton.detector.variants import Variant, with_sources
from ssd_triton.detector.weights import file as weights_file
from ssd_triton.detector.weights.file import WeightsFile
from ssd_triton.serving.repository.artefact import Artefact, RecordedArtefact
from ssd_triton.serving.repository.generated import outdated_files, write_files
from ssd_triton.serving.repository.repository import ModelRepository

_CHECK_IMAGES = 4
_NETWORK_CODE = (boxes, resnet, ssd, weights_file, compare, samples, protocol)
_POSTPROCESS_CODE = (boxes, reference, parameters_module)


def artefacts(config: Config, images: Path | None = None, only: Sequence[str] = ()) -> list[Artefact]:
    """List every artefact that the repository's configurations name, each after the artefacts it is built from.

    Args:
        config: The project's configuration.
        images: A folder of images for the check of each export; None takes a bundled photograph.
        only: Variants of the detector; empty takes all.

    Raises:
        ConfigError: There is no such variant, or no builder for its file.
        WeightsError: The weights file is missing.
    """
    builder = _Builder(config, images)
    repository = builder.repository
    names = only or repository.variants
    files = sorted({repository.postprocess_file(name) for name in names})
    detectors = with_sources([repository.table_entry(name).name for name in names])
    return [*(builder.postprocess(path) for path in files), *(builder.detector(variant) for variant in detectors)]


def ensure_built(
    config: Config,
    report: Callable[[str], None],
    *,
    force: bool = False,
    images: Path | None = None,
    only: Sequence[str] = (),
    relabel: bool = False,
) -> None:
    """Write all files that are out of date, configurations first, and report a line for each.

    An artefact that cannot be built here, such as an engine without its GPU, is skipped unless ``only`` names it.

    Args:
        config: The project's configuration.
        report: Called with lines such as ``built model_repository/... (91.6 MB)``.
        force: Whether to build everything.
        images: See :func:`artefacts`.
        only: See :func:`artefacts`.
        relabel: Whether the user named ``labels_path`` explicitly: its classes then replace those of configurations
            with another number of classes.

    Raises:
        ConfigError: The labels or a configuration are invalid; nothing is written then.
        WeightsError: The weights file is missing, damaged, or for other classes.
        ExportError: An artefact differs from the network.
    """
    labels = load_labels(config.labels_path)
    repository = ModelRepository(config.model_repository)
    outdated = outdated_files(repository, labels, relabel=relabel)
    if len(labels) != repository.num_labels or relabel:
        _check_weights(config, len(labels))
    write_files(outdated)
    for path in outdated:
        report(f"written  {relative_to_cwd(path)}")
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


def _check_weights(config: Config, num_labels: int) -> None:
    """Refuse labels whose number differs from the classes of the weights, before anything is written."""
    bias = WeightsFile(config.weights_path).read_state_dict().get("conf.0.bias")
    if bias is None:  # weights of another network: the build reports that
        return
    trained = len(bias) // boxes.FEATURE_MAPS[0].boxes_per_cell
    if trained != num_labels:
        raise ConfigError(
            f"{relative_to_cwd(config.labels_path)} has {num_labels} classes, expected {trained} as "
            f"{relative_to_cwd(config.weights_path)} has, the background included: set weights_path to weights for "
            "these classes, or labels_path to the labels of these weights"
        )


class _Builder:
    """Makes the artefacts of one configuration, and reads what they share only once."""

    def __init__(self, config: Config, images: Path | None) -> None:
        self._config = config
        self._images = images
        self._weights = WeightsFile(config.weights_path)
        self._num_labels = len(load_labels(config.labels_path))
        self.repository = ModelRepository(config.model_repository)

    @cached_property
    def _network_inputs(self) -> dict[str, object]:
        """Inputs that all files of the detector share."""
        return {
            "weights_sha256": self._weights.sha256,
            "backbone": self._config.backbone,
            "num_labels": self._num_labels,
        }

    def detector(self, variant: Variant) -> Artefact:
        """Return the artefact of a variant."""
        if variant.backend == "tensorrt":
            return self.repository.engine(variant.name, self._config.tensorrt)
        path = self.repository.path / DETECTOR / "1" / variant.file
        return self._exported(variant, path) if variant.source is None else self._quantized(variant.source, path)

    def postprocess(self, path: Path) -> Artefact:
        """Return the artefact for a file of the post-processing.

        Raises:
            ConfigError: There is no builder for the file.
        """
        code: tuple[ModuleType, ...]
        packages: tuple[str, ...]
        if path.suffix == ".pt":
            export = postprocess_torchscript.export_postprocess_script
            code, packages = (postprocess_torchscript,), ("numpy", "torch")
        elif path.suffix == ".onnx":
            export = postprocess.export_postprocess
            code, packages = (
                (postprocess, onnx_export, compare),
                ("numpy", "onnx", "onnxscript", "onnxruntime-openvino"),
            )
        else:
            raise ConfigError(f"the post-processing's configurations name {path.name}, expected a .onnx or .pt file")
        thresholds = self.repository.thresholds
        inputs: dict[str, object] = {
            **thresholds.model_dump(),
            "num_labels": self._num_labels,
            "code_sha256": _code_sha256(*_POSTPROCESS_CODE, *code),
        }
        return RecordedArtefact(path, inputs, packages, partial(export, path, self._num_labels, thresholds))

    def _exported(self, variant: Variant, path: Path) -> RecordedArtefact:
        """Return an artefact that is exported from the weights."""
        export: Callable[..., object]
        code: tuple[ModuleType, ...]
        packages: tuple[str, ...]
        if variant.backend == "onnxruntime":
            export, code = onnx_export.export_detector, (onnx_export,)
            packages = ("torch", "onnx", "onnxscript", "onnxruntime-openvino")
        elif variant.is_fused:
            export, code, packages = torchscript.export_fused, (torchscript, fused), ("torch",)
        else:
            dtype = torch.float16 if variant.precision == "fp16" else torch.float32
            export, code = partial(torchscript.export_eager, dtype=dtype), (torchscript,)
            packages = ("torch",)

        def make() -> None:
            network = self._weights.load_network(self._config.backbone, self._num_labels)
            export(ssd.ServedDetector(network).eval(), path, samples.photographs(self._images, _CHECK_IMAGES))

        inputs = {**self._network_inputs, "code_sha256": _code_sha256(*_NETWORK_CODE, *code)}
        return RecordedArtefact(path, inputs, packages, make)

    def _quantized(self, source: str, path: Path) -> RecordedArtefact:
        """Return an artefact that is quantised from another file with the ranges of its activations."""
        ranges_file = ranges.ranges_path(self._weights.path)

        def make() -> None:
            found = ranges.load_ranges(ranges_file, self._weights)
            images = samples.photographs(self._images, _CHECK_IMAGES)
            quantize.export_int8(
                path.with_name(f"{source}.onnx"), found, path, exclude=found.exclude, images_rgb=images
            )

        inputs = {
            **self._network_inputs,
            "ranges_sha256": sha256_of(ranges_file) if ranges_file.is_file() else None,
            "code_sha256": _code_sha256(*_NETWORK_CODE, onnx_export, quantize, ranges),
        }
        packages = ("onnx", "onnxruntime-openvino")
        return RecordedArtefact(path, inputs, packages, make, _without_ranges(ranges_file, self._weights))


def _without_ranges(ranges_file: Path, weights: WeightsFile) -> str | None:
    """Return why INT8 cannot be built; None if there are ranges for these weights."""
    try:
        ranges.load_ranges(ranges_file, weights)
    except ranges.CalibrationError as error:
        return str(error)
    return None


def _code_sha256(*modules: ModuleType) -> str:
    """Return a digest of the source code that builds an artefact, so that a changed exporter leads to a new export."""
    digest = sha256()
    for module in modules:
        if module.__file__ is None:
            raise RuntimeError(f"{module.__name__} has no source file")
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()
