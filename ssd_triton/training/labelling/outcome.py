"""The outcome of a labelling, as figures and as a picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image as PilImage

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import listing
from ssd_triton.common.report import Block, Bullets, Heading, Table, markdown
from ssd_triton.evaluation.annotations import Image
from ssd_triton.media.decoding import open_rgb
from ssd_triton.media.drawing import draw_detections
from ssd_triton.media.drawing.boxes import draw_box, visible_part
from ssd_triton.media.drawing.canvas import MUTED
from ssd_triton.media.images import read_image
from ssd_triton.training.labelling.merging import CONTRADICTING, IGNORED, KNOWN, OBJECT, Counts, NewBox

_COLUMNS, _ROWS, _TILE_PX = 5, 4, 320


class Outcome:
    """Figures of a labelling.

    Attributes:
        labels: Names of the classes, the background first.
        images: Number of labelled images.
        left_out: Images that were not labelled, by reason.
        counts: Numbers of the detector's boxes by outcome.
        written: Written files.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        """Start with empty counts."""
        self.labels = labels
        self.images = 0
        self.left_out: dict[str, list[str]] = defaultdict(list)
        self.counts = Counts()
        self.written: tuple[Path, ...] = ()

    def leave_out(self, reason: str, image: str) -> None:
        """Count an image that is not labelled."""
        self.left_out[reason].append(image)

    def left_out_text(self) -> str:
        """How many images were left out, and why."""
        return ", ".join(f"{len(images)} {reason}" for reason, images in self.left_out.items()) or "none left out"

    def total(self, kind: str) -> int:
        """Number of boxes, over all classes, with this outcome."""
        return self.counts.of[kind].total()

    def to_json(self) -> dict[str, object]:
        """All figures, with class names."""
        names = {
            kind: {self.labels[class_id]: number for class_id, number in sorted(found.items())}
            for kind, found in self.counts.of.items()
        }
        return {"images": self.images, "left_out": dict(self.left_out), "boxes": names}


def table(outcome: Outcome) -> Table:
    """Table of boxes by class and outcome, the most frequent class first."""
    kinds = (OBJECT, IGNORED, KNOWN, CONTRADICTING)
    of = outcome.counts.of
    class_ids = sorted(
        {key for kind in kinds for key in of[kind]}, key=lambda key: -sum(of[kind][key] for kind in kinds)
    )
    rows = [[outcome.labels[key], *(str(of[kind][key]) for kind in kinds)] for key in class_ids]
    return Table(["class", *kinds], [*rows, ["all", *(str(outcome.total(kind)) for kind in kinds)]])


def page(outcome: Outcome) -> str:
    """The numbers as a page in Markdown."""
    left_out = [f"{len(images)} {reason}: {listing(images)}" for reason, images in outcome.left_out.items()]
    meaning = (
        "**objects** and **ignored** joined the annotations; training takes ignored boxes neither for objects nor for "
        "background. **known** boxes repeat an annotation, and **contradicting** ones lie on another object."
    )
    blocks: list[Block] = [Heading("Images that were left out"), Bullets(left_out)] if left_out else []
    return markdown(Heading("Labels of a detector", 1), f"{outcome.images} images.", table(outcome), meaning, *blocks)


def sheet(
    folder: Path, images: Sequence[Image], added: Mapping[int, Sequence[NewBox]], labels: Sequence[str]
) -> UInt8Array:
    """Draw the added boxes on some images, spread evenly over all; ignored boxes are grey."""
    count = min(_COLUMNS * _ROWS, len(images))
    chosen = [images[index * len(images) // count] for index in range(count)]
    canvas = PilImage.new("RGB", (_COLUMNS * _TILE_PX, -(-count // _COLUMNS) * _TILE_PX))
    for place, image in enumerate(chosen):
        tile = open_rgb(read_image(folder / image.file_name), image.file_name)
        shrink = _TILE_PX / max(tile.size)
        tile = tile.resize((max(1, round(tile.width * shrink)), max(1, round(tile.height * shrink))))
        drawn = _draw(np.array(tile), added[image.id], shrink, labels)
        canvas.paste(PilImage.fromarray(drawn), (place % _COLUMNS * _TILE_PX, place // _COLUMNS * _TILE_PX))
    return np.asarray(canvas)


def _draw(tile: UInt8Array, boxes: Sequence[NewBox], shrink: float, labels: Sequence[str]) -> UInt8Array:
    for one in boxes:
        part = visible_part([side * shrink for side in one.box_xyxy], tile)
        if one.ignored and part is not None:
            draw_box(tile, part, MUTED, emphasised=False)
    objects = sorted((one for one in boxes if not one.ignored), key=lambda one: -one.score)
    found = Detections(
        np.array([one.box_xyxy for one in objects], np.float32).reshape(-1, 4) * np.float32(shrink),
        np.array([one.score for one in objects], np.float32),
        np.array([one.class_id for one in objects], np.int32),
    )
    return draw_detections(tile, found, labels)
