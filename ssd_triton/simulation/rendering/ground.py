"""The road, its markings and the verges: a texture in road coordinates, sampled for every pixel.

The texture repeats along the road. Distant rows are sampled from copies that are coarser along the road, across it, or
both, in proportion to the area that one pixel covers, to avoid flicker.
"""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np

from ssd_triton.common.arrays import FloatArray, UInt8Array
from ssd_triton.driving.camera import Camera
from ssd_triton.simulation.motion import Pose
from ssd_triton.simulation.rendering.textures import cloud_noise
from ssd_triton.simulation.rendering.weather import Weather
from ssd_triton.simulation.scenario import Road

_TILE_ALONG_M, _TILE_ACROSS_M = 54.0, 40.0
"""Six periods of a dashed line of 3 m with gaps of 6 m (German RMS, rural roads; 3 m and 3 m are usual in towns)."""
_TEXELS_PER_M = 32
_LINE_M, _DASH_M, _PERIOD_M = 0.12, 3.0, 9.0
_LEVELS = 8
_FARTHEST_M = 600.0
_HAZIEST_M = 350.0
"""Haze does not increase beyond this distance, so that the ground matches the line of trees at the horizon."""


class Ground:
    """The ground of one world.

    Args:
        road: Lanes and kerbs.
        weather: Light.
        seed: Seed of textures and colours.
    """

    def __init__(self, road: Road, weather: Weather, seed: int) -> None:
        self._road, self._weather = road, weather
        tile = _paint_tile(road, weather, np.random.default_rng([seed, 1]))
        self._levels: dict[tuple[int, int], UInt8Array] = {(0, 0): tile}

    def draw(self, image_rgb: UInt8Array, ego: Pose, ego_along_m: float, camera: Camera) -> None:
        """Draw the ground below the horizon, in place.

        Args:
            image_rgb: UINT8 [H, W, 3].
            ego: Position of the camera.
            ego_along_m: Position of the camera along the road.
            camera: A camera without lens distortion.
        """
        first = max(math.ceil(camera.horizon_y_px - 0.5 + 0.3), 0)
        if first >= camera.height_px:
            return
        rows = np.arange(first, camera.height_px, dtype=np.float32) + 0.5
        ends = [
            camera.road_points(np.column_stack([np.full_like(rows, x_px), rows]))
            for x_px in (0.5, camera.width_px - 0.5)
        ]
        forward_m, lateral_m = ends[0][:, 0], ends[0][:, 1]
        part = np.linspace(0, 1, camera.width_px, dtype=np.float32)
        # Without roll, depth is linear along a row.
        forward = forward_m[:, np.newaxis] + (ends[1][:, 0] - forward_m)[:, np.newaxis] * part
        lateral = lateral_m[:, np.newaxis] + (ends[1][:, 1] - lateral_m)[:, np.newaxis] * part
        np.minimum(forward, _FARTHEST_M, out=forward)
        along, across = self._road_coordinates(forward, lateral, ego, ego_along_m)
        across = np.where(np.abs(across) < 19, across, 12.5 + np.abs(across) % 6)
        step_along = np.abs(np.gradient(forward_m)) if len(rows) > 1 else np.ones(1, np.float32)
        step_across = np.hypot(*(ends[1] - ends[0]).T) / camera.width_px
        coarse_along = np.clip(np.log2(np.maximum(step_along * _TEXELS_PER_M, 1)), 0, _LEVELS).astype(int)
        coarse_across = np.clip(np.log2(np.maximum(step_across * _TEXELS_PER_M, 1)), 0, _LEVELS - 2).astype(int)
        pairs = np.column_stack([coarse_along, coarse_across])
        starts = [0, *(np.flatnonzero(np.any(np.diff(pairs, axis=0), axis=1)) + 1), len(rows)]
        for top, bottom in pairwise(starts):
            level = self._level(int(pairs[top, 0]), int(pairs[top, 1]))
            scale_along, scale_across = level.shape[0] / _TILE_ALONG_M, level.shape[1] / _TILE_ACROSS_M
            row_map = (along[top:bottom] % _TILE_ALONG_M) * scale_along - 0.5
            column_map = (across[top:bottom] + _TILE_ACROSS_M / 2) * scale_across - 0.5
            image_rgb[first + top : first + bottom] = cv2.remap(
                level,
                column_map.astype(np.float32),
                row_map.astype(np.float32),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_WRAP,
            )
        self._veil(image_rgb[first:], forward_m)

    def _veil(self, image_rgb: UInt8Array, forward_m: FloatArray) -> None:
        """Draw haze over the rows, in place."""
        left = np.exp(-np.minimum(forward_m, _HAZIEST_M) / self._weather.visibility_m).astype(np.float32)
        far = int(np.searchsorted(-forward_m, -0.008 * self._weather.visibility_m))
        veil = np.array(self._weather.horizon, np.float32) * 255
        band = image_rgb[:far].astype(np.float32)
        band *= left[:far, np.newaxis, np.newaxis]
        band += (1 - left[:far, np.newaxis, np.newaxis]) * veil
        image_rgb[:far] = band.astype(np.uint8)

    def _road_coordinates(
        self, forward: FloatArray, lateral: FloatArray, ego: Pose, ego_along_m: float
    ) -> tuple[FloatArray, FloatArray]:
        """Transform points ahead of the camera and to its right to positions along and across the road."""
        road = self._road
        if road.curvature_per_m == 0:
            return forward + np.float32(ego_along_m), lateral
        cos, sin = np.float32(math.cos(ego.heading_rad)), np.float32(math.sin(ego.heading_rad))
        x_m = np.float32(ego.x_m) + forward * cos - lateral * sin
        y_m = np.float32(ego.y_m) + forward * sin + lateral * cos
        radius_m = 1 / road.curvature_per_m
        side = math.copysign(1.0, radius_m)
        past = x_m - np.float32(road.curve_start_m)
        inwards = np.float32(radius_m) - y_m
        angle = np.arctan2(past * side, inwards * side)
        arc_along = road.curve_start_m + abs(radius_m) * angle
        arc_across = radius_m - side * np.hypot(past, inwards)
        on_arc = past > 0
        return (
            np.where(on_arc, arc_along, x_m).astype(np.float32),
            np.where(on_arc, arc_across, y_m).astype(np.float32),
        )

    def _level(self, coarse_along: int, coarse_across: int) -> UInt8Array:
        """The texture averaged over 2^n texels in each direction."""
        key = (coarse_along, coarse_across)
        if key not in self._levels:
            tile = self._levels[0, 0]
            size = (max(tile.shape[1] >> coarse_across, 4), max(tile.shape[0] >> coarse_along, 4))
            self._levels[key] = cv2.resize(tile, size, interpolation=cv2.INTER_AREA)
        return self._levels[key]


def _paint_tile(road: Road, weather: Weather, rng: np.random.Generator) -> UInt8Array:
    """Paint the texture, UINT8 [1728, 1280, 3]: rows along the road, columns across it from left to right."""
    rows, columns = round(_TILE_ALONG_M * _TEXELS_PER_M), round(_TILE_ACROSS_M * _TEXELS_PER_M)
    across_m = (np.arange(columns) + 0.5) / _TEXELS_PER_M - _TILE_ACROSS_M / 2
    left_m = -road.lane_width_m * (0.5 + road.lanes_left)
    right_m = road.lane_width_m * (0.5 + road.lanes_right)
    kerb_left_m, kerb_right_m = left_m - road.parking_left_m - 0.25, right_m + road.parking_right_m + 0.25
    brightness = rng.uniform(0.3, 0.44)
    fine = rng.standard_normal((rows, columns), dtype=np.float32)
    fine = cv2.GaussianBlur(fine, (3, 3), 0.7) * 1.7
    coarse = cloud_noise(rng, (columns, rows), (8, 11), 5, 0.6)
    grain = 1 + 0.075 * fine + 0.05 * coarse
    for lane in range(-road.lanes_left, road.lanes_right + 1):
        middle_m = lane * road.lane_width_m
        for wheel_m in (-0.8, 0.8):
            grain *= 1 - 0.07 * np.exp(-(((across_m - middle_m - wheel_m) / 0.28) ** 2)).astype(np.float32)
        grain *= 1 - 0.08 * np.exp(-(((across_m - middle_m) / 0.35) ** 2)).astype(np.float32)
    tile = grain[..., np.newaxis] * np.array([1.0, 0.995, 0.985], np.float32) * brightness
    _wear(tile, rng)
    _mark(tile, across_m, road, (left_m, right_m), rng)
    _roadside(tile, across_m, (kerb_left_m, kerb_right_m), (fine, coarse), rng)
    light = weather.ambient + weather.sun_strength * weather.sun[2] * np.array(weather.sun_colour, np.float32)
    if weather.wet:
        tile = tile * 0.55 + 0.16 * np.array(weather.horizon, np.float32)
    lit: UInt8Array = np.clip(tile * light * 255 * 1.05, 0, 255).astype(np.uint8)
    return lit


def _wear(tile: FloatArray, rng: np.random.Generator) -> None:
    """Draw repaired patches, cracks and manholes."""
    rows, columns = tile.shape[:2]
    for _ in range(int(rng.integers(2, 6))):
        top, left = int(rng.integers(rows - 400)), int(rng.integers(columns // 3, 2 * columns // 3))
        tall, wide = int(rng.integers(60, 360)), int(rng.integers(40, 130))
        tile[top : top + tall, left : left + wide] *= rng.uniform(0.75, 1.15)
    for _ in range(14):
        points = np.cumsum(rng.normal(0, 14, (24, 2)) + rng.normal(0, 7, 2), axis=0)
        points += (rng.uniform(columns * 0.3, columns * 0.7), rng.uniform(0, rows))
        cv2.polylines(tile, [points.astype(np.int32)], False, (0.15, 0.15, 0.15), 1, cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 3))):
        centre = (int(rng.uniform(columns * 0.42, columns * 0.62)), int(rng.integers(100, rows - 100)))
        cv2.circle(tile, centre, 13, (0.2, 0.19, 0.18), -1, cv2.LINE_AA)
        cv2.circle(tile, centre, 13, (0.12, 0.12, 0.12), 1, cv2.LINE_AA)


def _mark(
    tile: FloatArray, across_m: FloatArray, road: Road, edges_m: tuple[float, float], rng: np.random.Generator
) -> None:
    """Draw worn lane markings."""
    rows = tile.shape[0]
    along_m = (np.arange(rows) + 0.5) / _TEXELS_PER_M
    dashed = np.clip((_DASH_M - along_m % _PERIOD_M) * _TEXELS_PER_M + 0.5, 0, 1).astype(np.float32)
    solid = np.ones(rows, np.float32)
    yellow = rng.random() < 0.2
    lines = [(edges_m[0] + 0.15, solid), (edges_m[1] - 0.15, solid if road.parking_right_m == 0 else dashed)]
    lines += [((lane + 0.5) * road.lane_width_m, dashed) for lane in range(-road.lanes_left, road.lanes_right)]
    worn = np.clip(0.88 + 0.14 * cloud_noise(rng, (16, rows), (4, 200), 3), 0.4, 1)
    for index, (middle_m, pattern) in enumerate(lines):
        columns = np.flatnonzero(np.abs(across_m - middle_m) < _LINE_M)
        coverage = np.clip((_LINE_M / 2 - np.abs(across_m[columns] - middle_m)) * _TEXELS_PER_M + 0.5, 0, 1)
        opacity = (pattern[:, np.newaxis] * coverage * worn[:, : len(columns)])[..., np.newaxis].astype(np.float32)
        colour = np.array((0.85, 0.65, 0.12) if yellow and index != 1 else (0.86, 0.86, 0.84), np.float32)
        tile[:, columns] = tile[:, columns] * (1 - opacity) + colour * opacity


def _roadside(
    tile: FloatArray,
    across_m: FloatArray,
    kerbs_m: tuple[float, float],
    grain: tuple[FloatArray, FloatArray],
    rng: np.random.Generator,
) -> None:
    """Draw kerbs, pavements and grass; ``grain`` is fine and coarse noise."""
    (fine, coarse), rows = grain, tile.shape[0]
    paving_m = rng.uniform(1.8, 2.6) if rng.random() < 0.7 else 0.0
    slab, stone = rng.uniform(0.42, 0.6), rng.uniform(0.5, 0.68)
    green = np.array([0.2, 0.24, 0.11]) * rng.uniform(0.75, 1.25) + np.array([0.1, 0.05, 0.0]) * rng.uniform(0, 1)
    along_m = (np.arange(rows) + 0.5) / _TEXELS_PER_M
    for side, kerb_m in zip((-1, 1), kerbs_m, strict=True):
        outside_m = side * (across_m - kerb_m)
        gutter = (outside_m > -0.3) & (outside_m <= 0)
        tile[:, gutter] *= 0.85
        curb = (outside_m > 0) & (outside_m <= 0.16)
        tile[:, curb] = (stone * (1 + 0.05 * fine[:, curb]))[..., np.newaxis]
        tile[np.ix_(np.flatnonzero(along_m % 1.0 < 0.03), np.flatnonzero(curb))] *= 0.6
        # The kerb's face towards the road is in shade.
        tile[:, (outside_m > 0) & (outside_m <= 0.05)] *= 0.62
        paved = (outside_m > 0.16) & (outside_m <= 0.16 + paving_m)
        tile[:, paved] = (slab * (1 + 0.05 * fine[:, paved] + 0.06 * coarse[:, paved]))[..., np.newaxis]
        tile[np.ix_(np.flatnonzero(along_m % 0.5 < 0.03), np.flatnonzero(paved))] *= 0.82
        tile[:, paved & (outside_m % 0.5 < 0.03)] *= 0.82
        grass = outside_m > 0.16 + paving_m
        blades = 1 + 0.24 * fine[:, grass] + 0.2 * coarse[:, grass]
        tile[:, grass] = blades[..., np.newaxis] * green.astype(np.float32)
