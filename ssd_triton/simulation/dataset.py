"""Random scenes as a data set for training: images, and boxes in COCO's format.

Worlds differ in road, weather, light, roadside, lens and image size. The scenes within a world differ in traffic,
colours, and the camera's height and pitch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.files import atomic_output
from ssd_triton.common.processes import process_pool
from ssd_triton.common.progress import progress
from ssd_triton.driving.camera import Camera
from ssd_triton.simulation.motion import TargetState, road_pose, target_state
from ssd_triton.simulation.rendering.renderer import Renderer, check_camera
from ssd_triton.simulation.rendering.weather import WEATHERS, Weather
from ssd_triton.simulation.scenario import Criterion, Road, Scenario, SideMove, SimulationError, Target
from ssd_triton.simulation.snapshot import Snapshot
from ssd_triton.simulation.truth_files import CocoWriter
from ssd_triton.simulation.visible_targets import VisibleTarget, visible_targets

_SCENES_PER_WORLD = 8
_OVERHANG_M = 1.5
_MAX_LOOK = 100_000
_VEHICLES = ("hatchback", "saloon", "estate", "suv", "minivan", "van", "truck", "bus")
_VEHICLE_SHARES = (0.22, 0.22, 0.12, 0.2, 0.08, 0.05, 0.07, 0.04)
_LEAST_GAP_M = 1.5
_NICENESS = 10
_JPEG_QUALITY = (75, 96)


@dataclass(frozen=True)
class RenderedDataset:
    """A written data set.

    Attributes:
        folder: Folder of the images.
        annotations: The COCO file.
        images: Number of images.
        boxes: Number of boxes.
    """

    folder: Path
    annotations: Path
    images: int
    boxes: int


class _Drawn(NamedTuple):
    """A drawn image and its visible targets. Finding these takes longest, so it is done in the drawing process."""

    name: str
    size_px: tuple[int, int]
    snapshot: Snapshot
    seen: list[VisibleTarget]


def write_dataset(
    folder: Path,
    count: int,
    seed: int,
    sizes_px: Sequence[tuple[int, int]],
    labels: Sequence[str],
    *,
    processes: int = 1,
) -> RenderedDataset:
    """Write random scenes: ``images/*.jpg`` and ``annotations.json`` in COCO's format.

    The annotations are written last: a folder without them is incomplete.

    Args:
        folder: Created when missing.
        count: Number of images, at least 1.
        seed: The same seed gives the same images.
        sizes_px: Width and height of the images; worlds take turns. The network squeezes every image into a square, so
            training must cover the aspect ratios of later use.
        labels: Class names by id.
        processes: Number of drawing processes; the images do not depend on it.

    Raises:
        SimulationError: The number or a size is too small.
    """
    if count < 1:
        raise SimulationError(f"got {count} images, expected at least 1; change --count")
    for size_px in sizes_px:
        check_camera(Camera.from_fov(size_px, 60, 1.3))
    coco = CocoWriter(labels)
    annotations = folder / "annotations.json"
    annotations.unlink(missing_ok=True)
    drawn = _drawn(folder / "images", count, seed, sizes_px, processes)
    for image in progress(drawn, total=count, description="dataset", unit="images"):
        coco.add(image.name, image.size_px, image.seen, image.snapshot)
    coco.write(annotations)
    return RenderedDataset(folder / "images", annotations, count, coco.num_boxes)


def _drawn(
    folder: Path, count: int, seed: int, sizes_px: Sequence[tuple[int, int]], processes: int
) -> Iterator[_Drawn]:
    """Draw all images, world by world, in order."""
    starts = range(0, count, _SCENES_PER_WORLD)
    draw = partial(_draw_world, folder, count, seed, sizes_px)
    if processes == 1:
        for start in starts:
            yield from draw(start)
        return
    with process_pool(min(processes, len(starts)), _give_way) as pool:
        for drawn in pool.map(draw, starts):
            yield from drawn


def _give_way() -> None:
    """Draw on one thread and at low priority, since a training waits for its own threads all the time."""
    cv2.setNumThreads(1)
    os.nice(_NICENESS)


def _draw_world(folder: Path, count: int, seed: int, sizes_px: Sequence[tuple[int, int]], start: int) -> list[_Drawn]:
    """Draw the scenes from ``start`` that share a world."""
    size_px = sizes_px[start // _SCENES_PER_WORLD % len(sizes_px)]
    scenes, drawn = _Scenes(seed, size_px), []
    for index in range(start, min(start + _SCENES_PER_WORLD, count)):
        snapshot, image_rgb, quality = scenes.draw(index)
        # Sets with different seeds may be used in one training: file names must not collide.
        name = f"{seed}-{index:06d}.jpg"
        with atomic_output(folder / name) as temporary:
            cv2.imwrite(str(temporary), image_rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        drawn.append(_Drawn(name, size_px, snapshot, visible_targets(snapshot.targets, snapshot.ego, snapshot.camera)))
    return drawn


class _Scenes:
    """Scenes by number; a world is kept for all of its scenes."""

    def __init__(self, seed: int, size_px: tuple[int, int]) -> None:
        self._seed, self._size_px = seed, size_px
        self._world = -1

    def draw(self, index: int) -> tuple[Snapshot, UInt8Array, int]:
        """The snapshot, its image UINT8 [H, W, 3] RGB, and the JPEG quality to store it with."""
        world, rng = index // _SCENES_PER_WORLD, np.random.default_rng([self._seed, 11, index])
        if world != self._world:
            self._open(world)
        camera = replace(
            self._camera, height_m=float(rng.uniform(1.1, 1.9)), pitch_deg=self._pitch_deg + float(rng.normal(0, 1.0))
        )
        along_m = float(rng.uniform(0, 120))
        scenario = replace(self._scenario, targets=tuple(_traffic(self._scenario.road, along_m, rng)))
        states = tuple(target_state(item, scenario.road, _OVERHANG_M, 0.0) for item in scenario.targets)
        braking = rng.random(len(states)) < 0.3
        states = tuple(
            replace(state, acceleration_mps2=-3.0 * float(np.sign(state.speed_along_mps))) if brakes else state
            for state, brakes in zip(states, braking, strict=True)
        )
        pose = road_pose(scenario.road, along_m, float(rng.normal(0, 0.25)))
        snapshot = Snapshot(0.001 * index, scenario, pose, along_m, 0.0, 0.0, 0.0, camera, states)
        return snapshot, self._renderer.draw(snapshot), int(rng.integers(*_JPEG_QUALITY))

    def _open(self, world: int) -> None:
        rng = np.random.default_rng([self._seed, 12, world])
        curved = rng.random() < 0.3
        road = Road(
            curvature_per_m=float(rng.choice([-1, 1]) / rng.uniform(90, 400)) if curved else 0.0,
            curve_start_m=float(rng.uniform(20, 150)),
            lane_width_m=float(rng.uniform(3.0, 3.75)),
            lanes_right=int(rng.random() < 0.3),
            lanes_left=int(rng.integers(0, 3)),
            parking_right_m=float(rng.choice([0.0, 2.3])),
            parking_left_m=float(rng.choice([0.0, 2.3])),
        )
        self._camera = Camera.from_fov(
            self._size_px, float(rng.uniform(45, 80)), 1.3, yaw_deg=float(rng.normal(0, 1.5))
        )
        self._pitch_deg = float(rng.normal(0.5, 1.5))
        self._scenario = Scenario("random", 0.0, (), Criterion("none", "none"), 1.0, road)
        weather = _varied(WEATHERS[str(rng.choice(list(WEATHERS)))], rng)
        self._renderer = Renderer(
            replace(self._scenario, ego_speed_kmh=432.0), self._camera, weather=weather, seed=int(rng.integers(1 << 31))
        )
        self._world = world


def _varied(weather: Weather, rng: np.random.Generator) -> Weather:
    """A random variation of a weather."""
    exposure = rng.uniform(0.8, 1.2)
    tint = rng.uniform(0.94, 1.06, 3)
    sky = tuple(
        float(np.clip(part * exposure * shade, 0, 1)) for part, shade in zip(weather.sky_light, tint, strict=True)
    )
    return replace(
        weather,
        sun_azimuth_deg=float(rng.uniform(-180, 180)),
        sun_elevation_deg=float(np.clip(weather.sun_elevation_deg * rng.uniform(0.6, 1.4), 6, 75)),
        sun_strength=weather.sun_strength * float(rng.uniform(0.7, 1.2)),
        sky_light=(sky[0], sky[1], sky[2]),
        clouds=float(np.clip(weather.clouds + rng.normal(0, 0.2), 0, 1)),
        visibility_m=weather.visibility_m * float(rng.uniform(0.6, 1.6)),
    )


def _traffic(road: Road, along_m: float, rng: np.random.Generator) -> list[Target]:
    """Road users on lanes, at kerbs, on pavements and crossing, without overlaps."""
    kerbs_m = (
        road.lane_width_m * (0.5 + road.lanes_left) + road.parking_left_m,
        road.lane_width_m * (0.5 + road.lanes_right) + road.parking_right_m,
    )
    placed: list[TargetState] = []
    wanted = int(rng.integers(0, 16))
    for _ in range(4 * wanted):
        if len(placed) >= wanted:
            break
        target = _walker(kerbs_m, along_m, rng) if rng.random() < 0.4 else _vehicle(road, kerbs_m, along_m, rng)
        state = target_state(target, road, _OVERHANG_M, 0.0)
        if all(_apart_m(state, other) > _LEAST_GAP_M for other in placed):
            placed.append(state)
    return [state.target for state in placed]


def _vehicle(road: Road, kerbs_m: tuple[float, float], along_m: float, rng: np.random.Generator) -> Target:
    body = str(rng.choice(_VEHICLES, p=_VEHICLE_SHARES))
    lanes = list(range(-road.lanes_left, road.lanes_right + 1))
    lane = int(rng.choice(lanes))
    offset_m, speed_mps = lane * road.lane_width_m + float(rng.normal(0, 0.2)), float(rng.uniform(2, 20))
    parked_sides = [side for side, width in ((-1, road.parking_left_m), (1, road.parking_right_m)) if width > 0]
    if parked_sides and rng.random() < 0.4 and body not in ("bus", "truck"):
        side = int(rng.choice(parked_sides))
        offset_m, speed_mps = side * (kerbs_m[0 if side < 0 else 1] - 1.1), 0.0
    elif lane < 0:
        speed_mps = -speed_mps
    heading_deg = float(rng.normal(0, 2)) + (180.0 if rng.random() < 0.2 and speed_mps == 0 else 0.0)
    if rng.random() < 0.06:
        heading_deg, speed_mps = float(rng.uniform(-180, 180)), 0.0
    return Target(
        body,
        gap_m=along_m + _distance_m(rng, 4.0, 90.0),
        offset_m=offset_m,
        speed_mps=speed_mps,
        heading_deg=heading_deg,
        scale=float(rng.uniform(0.94, 1.06)),
        look=int(rng.integers(_MAX_LOOK)),
    )


def _walker(kerbs_m: tuple[float, float], along_m: float, rng: np.random.Generator) -> Target:
    child = rng.random() < 0.2
    side = int(rng.choice([-1, 1]))
    kerb_m = kerbs_m[0 if side < 0 else 1]
    gap_m = along_m + _distance_m(rng, 2.0, 45.0)
    look = int(rng.integers(_MAX_LOOK))
    scale = float(rng.uniform(0.8, 1.25) if child else rng.uniform(0.86, 1.08))
    body = "child" if child else "adult"
    if rng.random() < 0.45:
        # Crossing: the walk began at a random time, so the person is anywhere on the road.
        reach_m = max(kerbs_m) + 1.0
        start_m = side * reach_m
        lasted = float(rng.uniform(0.05, 0.95))
        move = SideMove(-10 * lasted, 10.0, -start_m, smooth=False)
        return Target(body, gap_m, offset_m=start_m, side_move=move, heading_deg=-90.0 * side, scale=scale, look=look)
    offset_m = side * (kerb_m + float(rng.uniform(0.4, 2.2)))
    speed_mps = float(rng.choice([0.0, rng.uniform(0.8, 1.8)]) * rng.choice([-1, 1]))
    heading_deg = float(rng.uniform(-180, 180))
    return Target(body, gap_m, offset_m, speed_mps, heading_deg=heading_deg, scale=scale, look=look)


def _distance_m(rng: np.random.Generator, nearest_m: float, farthest_m: float) -> float:
    """A distance from a log-uniform distribution, so that all sizes in the image are equally frequent."""
    return float(nearest_m * (farthest_m / nearest_m) ** rng.random())


def _apart_m(first: TargetState, second: TargetState) -> float:
    radii_m = sum(max(state.target.size.length_m, state.target.size.width_m) / 2 for state in (first, second))
    beside_m = abs(first.pose.y_m - second.pose.y_m) - (first.target.size.width_m + second.target.size.width_m) / 2
    distance_m = math.hypot(first.pose.x_m - second.pose.x_m, first.pose.y_m - second.pose.y_m) - radii_m
    return max(distance_m, beside_m + _LEAST_GAP_M - 0.4)
