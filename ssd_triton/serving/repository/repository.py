"""The model repository as an object: its configurations, variants, thresholds and artefact files."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from ssd_triton.common.errors import ConfigError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.model_names import DETECTOR, POSTPROCESS
from ssd_triton.config import TensorRTConfig
from ssd_triton.detector.engines.engine import Engine
from ssd_triton.detector.postprocessing.parameters import PostprocessParameters
from ssd_triton.detector.variants import Variant, find_variant, variant_of_file
from ssd_triton.serving.repository.model_config import ModelConfig, load_model_config

_DEFAULT_FILES = {"onnxruntime": "model.onnx", "pytorch": "model.pt", "tensorrt": "model.plan"}
"""File that each of Triton's backends loads when a configuration names none."""


class ModelRepository:
    """A folder of models, read as Triton reads it.

    Every configuration is parsed once and cached: do not change one in place.
    """

    def __init__(self, path: Path) -> None:
        """Prepare; nothing is read yet.

        Args:
            path: The folder.
        """
        self.path = path
        self._parsed: dict[Path, ModelConfig] = {}

    @cached_property
    def variants(self) -> tuple[str, ...]:
        """Names of the detector's variants, as tritonserver's ``--model-config-name`` takes them."""
        return tuple(sorted(path.stem for path in (self.path / DETECTOR / "configs").glob("*.pbtxt")))

    def configuration(self, model: str, variant: str | None = None) -> ModelConfig:
        """Return the configuration that Triton uses for a model: the one with the variant's name, else the default.

        Raises:
            ConfigError: The file is missing, or holds a field that Triton does not know.
        """
        own = self.path / model / "configs" / f"{variant}.pbtxt"
        path = own if variant is not None and own.is_file() else self.path / model / "config.pbtxt"
        if path not in self._parsed:
            self._parsed[path] = load_model_config(path)
        return self._parsed[path]

    def detector(self, variant: str) -> ModelConfig:
        """Return the detector's configuration for a variant.

        Raises:
            ConfigError: There is no such variant. Triton itself would silently use the default configuration.
        """
        if variant not in self.variants:
            has = ", ".join(self.variants) or "none"
            raise ConfigError(f"unknown variant '{variant}'; {relative_to_cwd(self.path)} has: {has}")
        return self.configuration(DETECTOR, variant)

    def detector_file(self, variant: str) -> Path:
        """Return the file that the detector runs for a variant.

        Raises:
            ConfigError: There is no such variant.
        """
        return self._file(DETECTOR, self.detector(variant))

    def postprocess_file(self, variant: str) -> Path:
        """Return the file that the post-processing runs for a variant of the detector.

        Raises:
            ConfigError: See :meth:`configuration`.
        """
        return self._file(POSTPROCESS, self.configuration(POSTPROCESS, variant))

    def table_entry(self, variant: str) -> Variant:
        """Return the entry of :data:`VARIANTS` whose file a variant of this repository serves.

        Raises:
            ConfigError: There is no such variant, or no builder for its file.
        """
        file = self.detector_file(variant).name
        found = variant_of_file(file)
        if found is None:
            raise ConfigError(f"variant '{variant}' serves {file}, and no builder makes that file: copy it there")
        return found

    def engine(self, variant: str, settings: TensorRTConfig, compute_capability: str | None = None) -> Engine:
        """Return the engine of a TensorRT variant, for this machine's GPU unless a compute capability is given.

        Raises:
            ConfigError: There is no such variant, or it is not built from another one.
        """
        model, entry = self.detector(variant), self.table_entry(variant)
        return Engine(
            path=self.detector_file(variant),
            onnx=self.path / DETECTOR / "1" / find_variant(str(entry.source)).file,
            precision=entry.precision,
            max_batch_size=model.max_batch_size,
            num_labels=self.num_labels,
            settings=settings,
            compute_capability=compute_capability,
        )

    def graph_batch_sizes(self, variant: str) -> list[int]:
        """Return the batch sizes that a TensorRT variant runs as CUDA graphs.

        Raises:
            ConfigError: There is no such variant.
        """
        graphs = self.detector(variant).optimization.cuda
        return [spec.batch_size for spec in graphs.graph_spec] if graphs.graphs else []

    @cached_property
    def num_labels(self) -> int:
        """Number of classes that the post-processing takes, the background included.

        Raises:
            ConfigError: Its configuration has no input ``conf``.
        """
        for tensor in self.configuration(POSTPROCESS).input:
            if tensor.name == "conf" and len(tensor.dims):
                return int(tensor.dims[0])
        raise ConfigError(f"{relative_to_cwd(self.path / POSTPROCESS / 'config.pbtxt')}: expected an input 'conf'")

    @cached_property
    def thresholds(self) -> PostprocessParameters:
        """Thresholds that the post-processing is built with.

        Raises:
            ConfigError: A threshold is not a number or is out of range.
        """
        known = PostprocessParameters.model_fields
        parameters = self.configuration(POSTPROCESS).parameters
        try:
            return PostprocessParameters.model_validate(
                {key: value.string_value for key, value in parameters.items() if key in known}
            )
        except ValidationError as error:
            problems = "; ".join(f"{problem['loc'][0]}: {problem['msg'].lower()}" for problem in error.errors())
            name = relative_to_cwd(self.path / POSTPROCESS / "config.pbtxt")
            raise ConfigError(f"{name}, parameters: {problems}") from None

    def _file(self, model: str, config: ModelConfig) -> Path:
        name = config.default_model_filename or _DEFAULT_FILES.get(config.backend, "model")
        return self.path / model / "1" / str(name)
