"""Ground-truth files: boxes in COCO's format, and tables of ranges and speeds."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssd_triton.common.arrays import Float64Array
from ssd_triton.common.files import atomic_output
from ssd_triton.simulation.motion import TargetState, road_pose
from ssd_triton.simulation.run import Run
from ssd_triton.simulation.snapshot import Snapshot, truth_of
from ssd_triton.simulation.visible_targets import VisibleTarget

MIN_VISIBLE_SHARE = 0.1
"""Less visible targets are not annotated: people could not recognise them either."""
MIN_SIDE_PX = 3.0

_COLUMNS = (
    "time_s", "ego_speed_mps", "ego_deceleration_mps2", "target", "class_name", "range_m", "gap_m",
    "lateral_m", "closing_mps", "ttc_s", "visible_share", "left_px", "top_px", "right_px", "bottom_px",
)  # fmt: skip


class CocoWriter:
    """Collects images and boxes, in the format of https://cocodataset.org/#format-data.

    In addition to COCO's keys, every annotation has ``visibility`` in (0, 1], ``range_m``, and ``offset_m`` (see
    :func:`offset_m`).

    Args:
        labels: Class names by id, the background first; all of them become categories, with these ids.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = tuple(labels)
        self._images: list[dict[str, object]] = []
        self._annotations: list[dict[str, object]] = []

    @property
    def num_boxes(self) -> int:
        """Number of boxes so far."""
        return len(self._annotations)

    def add(self, file_name: str, size_px: tuple[int, int], seen: Sequence[VisibleTarget], snapshot: Snapshot) -> None:
        """Add an image and its visible targets.

        Args:
            file_name: Name of the image.
            size_px: Width and height of the image.
            seen: Its visible targets; barely visible ones are left out.
            snapshot: The world that it shows.
        """
        image_id = len(self._images) + 1
        self._images.append(
            {
                "id": image_id,
                "file_name": file_name,
                "width": size_px[0],
                "height": size_px[1],
                "time_s": snapshot.time_s,
            }
        )
        for item in seen:
            box: Float64Array = item.box_xyxy
            width, height = float(box[2] - box[0]), float(box[3] - box[1])
            if item.visible_share < MIN_VISIBLE_SHARE or min(width, height) < MIN_SIDE_PX:
                continue
            state = snapshot.targets[item.index]
            class_name = state.target.size.class_name
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": image_id,
                    "category_id": self._labels.index(class_name),
                    "bbox": [round(side, 2) for side in (float(box[0]), float(box[1]), width, height)],
                    "area": round(width * height, 2),
                    "iscrowd": 0,
                    "visibility": round(item.visible_share, 3),
                    "range_m": round(item.range_m, 3),
                    "offset_m": round(offset_m(state, snapshot), 3),
                    "target": item.index,
                }
            )

    def write(self, path: Path) -> None:
        """Write the annotations."""
        categories = [{"id": index, "name": name} for index, name in enumerate(self._labels) if index > 0]
        content = {"images": self._images, "annotations": self._annotations, "categories": categories}
        with atomic_output(path) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")


def offset_m(state: TargetState, snapshot: Snapshot) -> float:
    """Distance of a target's outline from the camera's path along the road; 0 where the target is on it."""
    road = snapshot.scenario.road
    ego = np.array([[snapshot.ego.x_m, snapshot.ego.y_m]])
    ego_offset_m = float(road_pose(road, snapshot.ego_along_m).to_local(ego)[0, 1])
    # The curvature of the road within the target's length is neglected.
    aside_m = road_pose(road, state.along_m, ego_offset_m).to_local(state.outline_m())[:, 1]
    if aside_m.min() < 0 < aside_m.max():
        return 0.0
    return float(np.abs(aside_m).min())


def write_ego_table(path: Path, run: Run) -> None:
    """Write the ego's motion as a CSV file for :func:`ssd_triton.driving.braking.ego.load_ego_csv`."""
    with atomic_output(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("time_s", "speed_mps", "yaw_rate_rad_s"))
        for frame in run.frames:
            writer.writerow((f"{frame.time_s:.4f}", f"{frame.ego_speed_mps:.4f}", f"{frame.ego_yaw_rate_rad_s:.5f}"))


def write_table(path: Path, run: Run, seen: Sequence[Sequence[VisibleTarget]], front_overhang_m: float) -> None:
    """Write a CSV file with a row for every frame and target; a frame without targets has one row.

    Args:
        path: The file.
        run: The run.
        seen: Visible targets of each of its frames.
        front_overhang_m: From the camera to the front bumper.
    """
    with atomic_output(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for frame, visible in zip(run.frames, seen, strict=True):
            ego = (f"{frame.time_s:.4f}", f"{frame.ego_speed_mps:.4f}", f"{frame.ego_deceleration_mps2:.3f}")
            by_index = {item.index: item for item in visible}
            truths = truth_of(frame, front_overhang_m)
            for index, (state, truth) in enumerate(zip(frame.targets, truths, strict=True)):
                item = by_index.get(index)
                box = [""] * 4 if item is None else [f"{side:.2f}" for side in item.box_xyxy]
                figures = (truth.range_m, truth.gap_m, truth.lateral_m, truth.closing_mps)
                ttc = f"{truth.ttc_s:.3f}" if math.isfinite(truth.ttc_s) else ""
                share = "0" if item is None else f"{item.visible_share:.3f}"
                values = [f"{figure:.3f}" for figure in figures]
                writer.writerow([*ego, index, state.target.size.class_name, *values, ttc, share, *box])
            if not frame.targets:
                writer.writerow([*ego, *[""] * (len(_COLUMNS) - len(ego))])
