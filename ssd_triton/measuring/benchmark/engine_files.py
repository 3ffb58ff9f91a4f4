"""What an instance of the one process does with a file before the engine gets it. Needs neither PyTorch nor Triton."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.errors import ConfigError, ImageError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.model_names import ENSEMBLE
from ssd_triton.detector.export.samples import first_images, photographs
from ssd_triton.measuring.model_modules import model_module
from ssd_triton.media.images import read_served

VARIANT = "pytorch_fused_fp16"
"""The variant that is served by one process."""
_PARAMETER = re.compile(r'key: "(\w+)"\s+value \{\s+string_value: "([^"]*)"')
_VIEW_PX = (640, 480)
"""Size of the views of the bundled photograph: that of most of COCO's photographs."""
_QUALITY = 90
"""JPEG quality of these views, typical of cameras."""

EngineImage = tuple[int, bytes | UInt8Array, tuple[int, int]]
"""Kind, data, and (width, height) of an image, as ``EngineClient.ask`` takes them."""


def encoded_images(folder: Path | None, count: int) -> dict[str, bytes]:
    """Return files by name.

    Args:
        folder: Folder of images; None makes JPEG files of 640 x 480 px of views of a bundled photograph.
        count: Number of images, the first by name.

    Raises:
        ExportError: There are fewer images.
        ImageError: One cannot be read.
    """
    if folder is not None:
        return {relative_to_cwd(path): read_served(path) for path in first_images(folder, count)}
    files = {}
    for index, view in enumerate(photographs(None, count)):
        file = io.BytesIO()
        Image.fromarray(view).resize(_VIEW_PX).save(file, "JPEG", quality=_QUALITY)
        files[f"view {index}"] = file.getvalue()
    return files


@dataclass(frozen=True)
class Setup:
    """The one process as it is served, and the device and the detector that it runs with.

    Attributes:
        repository: The model repository.
        parameters: Parameters of the model ``ssd``.
        device: ``cpu`` or ``cuda:N``.
        detector: TorchScript or TensorRT plan.
        postprocess: TorchScript.
    """

    repository: Path
    parameters: Mapping[str, str]
    device: str
    detector: Path
    postprocess: Path

    @classmethod
    def of(cls, repository: Path, device: str, detector: Path | None) -> Setup:
        """Read the configuration that the build has written.

        Args:
            repository: The model repository.
            device: ``cpu`` or ``cuda:N``.
            detector: Detector instead of the configuration's own.

        Raises:
            ConfigError: The configuration or an artefact is missing.
        """
        config = repository / ENSEMBLE / "configs" / f"{VARIANT}.pbtxt"
        _check_built(config)
        # Triton's protobuf would read any such file, but a machine with PyTorch may lack it.
        parameters = dict(_PARAMETER.findall(config.read_text(encoding="utf-8")))
        detector = detector or repository / parameters["detector"]
        setup = cls(repository, parameters, device, detector, repository / parameters["postprocess"])
        for artefact in (setup.detector, setup.postprocess):
            _check_built(artefact)
        return setup

    @property
    def model_folder(self) -> Path:
        """Folder of the model ``ssd``."""
        return self.repository / ENSEMBLE

    @property
    def batch_sizes(self) -> list[int]:
        """Batches that run as a CUDA graph; the largest is the engine's limit."""
        return sorted(int(size) for size in self.parameters["batch_sizes"].split(","))

    @property
    def engine_settings(self) -> dict[str, Any]:
        """What ``EngineClient`` takes."""
        return {
            "device": self.device,
            "detector": str(self.detector.resolve()),
            "postprocess": str(self.postprocess.resolve()),
            "batch_sizes": self.batch_sizes,
        }


def _check_built(path: Path) -> None:
    if not path.is_file():
        raise ConfigError(f"{relative_to_cwd(path)} is missing: build it with 'ssd-triton build'")


class Instance:
    """The part of ``encoded.py`` that needs no Triton: checks and decodes files one by one.

    Attributes:
        limits: The ``DecodingLimits`` of the model.
    """

    def __init__(self, setup: Setup) -> None:
        """Import the model's own modules."""
        folder = setup.model_folder
        self._check_file = model_module(folder, "baseline").check_file
        self._decoding, self._untrusted = model_module(folder, "decoding"), model_module(folder, "untrusted")
        self._protocol = model_module(folder, "protocol")
        parameters = {name: {"string_value": value} for name, value in setup.parameters.items()}
        self.limits: Any = self._decoding.DecodingLimits.from_parameters(parameters)

    def check(self, data: bytes) -> EngineImage | None:
        """Check a file, and return what the GPU's decoder gets of it; None for a file that PIL decodes."""
        found = self._check_file(data, self.limits)
        if found is None:
            return None
        size_px, _, engine_data = found
        return self._protocol.FILE, engine_data, size_px

    def decode(self, data: bytes) -> EngineImage:
        """Decode and resize a file by PIL: UINT8 [300, 300, 3]."""
        pixels, size_px = self._decoding.decode(data, self.limits)
        return self._protocol.PIXELS, pixels, size_px

    def pixels_of(self, files: Mapping[str, bytes]) -> list[EngineImage]:
        """Decode files by PIL.

        Raises:
            ImageError: The model refuses one.
        """
        images = []
        for name, data in files.items():
            try:
                self.check(data)
                images.append(self.decode(data))
            except self._untrusted.RefusedInputError as error:
                raise ImageError(f"{name}: {error}: give other images with --images") from error
        return images
