"""The file that describes a detector: its model file, input, outputs and classes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.labels import load_labels
from ssd_triton.common.yaml_file import read_yaml
from ssd_triton.training.errors import TrainingError

Side = Annotated[int, Field(ge=32, le=4096)]
Iou = Annotated[float, Field(gt=0, le=1)]
Channels = tuple[float, float, float]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class InputFormat(_Part):
    """Input of the network: FP32 [N, 3, height_px, width_px].

    Attributes:
        width_px: Width of the input.
        height_px: Height of the input.
        fit: ``stretch`` squeezes an image into the input; ``letterbox`` keeps its shape, in the upper left corner, and
            pads the rest.
        padding: Grey level of the padding, 0 to 255.
        colour: Order of the channels.
        scale: Pixels, 0 to 255, are first divided by this: 1 or 255.
        mean: This is then subtracted, by channel in the order of ``colour``.
        std: The result is divided by this, by channel.
    """

    width_px: Side
    height_px: Side
    fit: Literal["stretch", "letterbox"] = "stretch"
    padding: Annotated[int, Field(ge=0, le=255)] = 114
    colour: Literal["rgb", "bgr"] = "rgb"
    scale: Literal[1, 255] = 255
    mean: Channels = (0.0, 0.0, 0.0)
    std: Channels = (1.0, 1.0, 1.0)

    @model_validator(mode="after")
    def _can_divide(self) -> InputFormat:
        if min(self.std) <= 0:
            raise ValueError(f"std: got {self.std}, expected numbers above 0")
        return self


class DistanceOutputs(_Part):
    """Scores and distances on grids, as in PicoDet and NanoDet (Li et al., "Generalized Focal Loss", 2020).

    First a score map [N, HW, C] for each stride, between 0 and 1, then a map [N, HW, 4 · bins] for each: a
    distribution over the distances from the cell's centre to the left, upper, right and lower side, in strides.

    Attributes:
        kind: ``distances``.
        strides: Distance between neighbouring cells of each grid, in pixels of the input.
        centre: Position of a cell's centre, in cells: 0.5 is its middle.
        nms_iou: A box is dropped if its IoU with a better one of its class is this or more.
    """

    kind: Literal["distances"]
    strides: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    centre: Annotated[float, Field(ge=0, le=1)] = 0.5
    nms_iou: Iou = 0.6


class CentreOutputs(_Part):
    """One output [N, K, 4 + C] or [N, 4 + C, K]: centre, width and height in pixels of the input, then scores.

    Exports of YOLOv8 and later have this form; those of YOLOv5 and of YOLOX with decoded boxes also have an objectness.

    Attributes:
        kind: ``centres``.
        objectness: Whether a score for any object precedes the scores of the classes; these are multiplied by it.
        nms_iou: As in :class:`DistanceOutputs`.
    """

    kind: Literal["centres"]
    objectness: bool = False
    nms_iou: Iou = 0.6


class BoxOutputs(_Part):
    """Three outputs for each image: boxes [N, K, 4] (left, top, right, bottom in pixels of the input), scores, classes.

    No boxes are suppressed here: the network has done that.

    Attributes:
        kind: ``boxes``.
        order: Order of the outputs.
        first_class: Number of the first class, 1 where 0 is the background.
    """

    kind: Literal["boxes"]
    order: tuple[Literal["boxes", "scores", "classes"], ...] = ("boxes", "scores", "classes")
    first_class: Literal[0, 1] = 0

    @model_validator(mode="after")
    def _each_once(self) -> BoxOutputs:
        if sorted(self.order) != ["boxes", "classes", "scores"]:
            raise ValueError(f"order: got {list(self.order)}, expected boxes, scores and classes once each")
        return self


class DetectorDescription(_Part):
    """A detector as TorchScript or ONNX; load only files that you trust.

    Attributes:
        file: ``.pt``, ``.ts`` or ``.onnx``; relative to the description.
        classes: Names in the order of the scores.
        labels_path: A file with the names instead of ``classes``; its first line is ``background``, as in the project's
            own.
        input: Format of the input.
        outputs: Format of the outputs.
        mirror: Whether the network also runs on the mirror image, and scores and boxes are averaged; only with outputs
            of ``distances``.
        batch: Images in a batch.
    """

    file: Path
    classes: tuple[str, ...] = ()
    labels_path: Path | None = None
    input: InputFormat
    outputs: Annotated[DistanceOutputs | CentreOutputs | BoxOutputs, Field(discriminator="kind")]
    mirror: bool = False
    batch: Annotated[int, Field(ge=1, le=256)] = 8

    @model_validator(mode="after")
    def _can_mirror(self) -> DetectorDescription:
        if self.mirror and self.outputs.kind != "distances":
            raise ValueError("mirror: got true, which needs outputs on grids (kind: distances)")
        return self


def read_description(path: Path) -> DetectorDescription:
    """Read a description; in the result, the model's path is absolute, and ``classes`` holds the names.

    Raises:
        TrainingError: The file is not a description, or its model is missing.
        ConfigError: The file with its classes is missing or damaged.
    """
    found = read_yaml(
        path, DetectorDescription, error_type=TrainingError, next_step="see docs/training.md for what it holds"
    )
    file = (path.parent / found.file).resolve()
    if not file.is_file():
        raise TrainingError(f"{relative_to_cwd(path)}: file: got {found.file}, expected a TorchScript or ONNX file")
    classes = found.classes
    if found.labels_path is not None:
        classes = load_labels((path.parent / found.labels_path).resolve())[1:]
    if not classes or len(set(classes)) < len(classes) or (found.classes and found.labels_path is not None):
        raise TrainingError(
            f"{relative_to_cwd(path)}: classes: got {len(classes)} names, expected each class once, here or at "
            "labels_path"
        )
    return found.model_copy(update={"file": file, "classes": classes, "labels_path": None})
