"""The distant background: sky, clouds, hills and a line of trees."""

from __future__ import annotations

import math

import cv2
import numpy as np

from ssd_triton.common.arrays import FloatArray, UInt8Array
from ssd_triton.driving.camera import Camera
from ssd_triton.simulation.motion import Pose
from ssd_triton.simulation.rendering.textures import cloud_noise
from ssd_triton.simulation.rendering.weather import Weather

_HALF_ANGLE_RAD = 1.0
"""Extent of the picture to each side of the road's initial direction; beyond it, the picture is mirrored."""
_HIGHEST_HILL_RAD = 0.12
_BELOW_RAD = 0.12
"""Extent of the picture below the horizon, for cameras that pitch."""


class Backdrop:
    """A picture on an infinitely distant cylinder around the camera.

    Args:
        camera: Sets the resolution.
        weather: Light and colours.
        seed: Seed of clouds, hills and trees.
    """

    def __init__(self, camera: Camera, weather: Weather, seed: int) -> None:
        rng = np.random.default_rng([seed, 2])
        self._px_per_rad = camera.fx_px
        self._horizon_row = math.ceil(camera.height_px * 0.75) + round(0.2 * camera.fy_px)
        height = self._horizon_row + math.ceil(_BELOW_RAD * camera.fy_px)
        width = math.ceil(2 * _HALF_ANGLE_RAD * self._px_per_rad)
        # Clouds have no sharp edges: half the resolution is enough.
        half = (math.ceil(width / 2), math.ceil(height / 2))
        sky = _sky(half, self._horizon_row // 2, camera.fy_px / 2, weather, rng)
        picture = cv2.resize(sky, (width, height), interpolation=cv2.INTER_LINEAR)
        _skyline(picture, self._horizon_row, camera.fy_px, weather, rng)
        self._picture = np.clip(picture * 255, 0, 255).astype(np.uint8)

    def draw(self, image_rgb: UInt8Array, ego: Pose, camera: Camera) -> None:
        """Draw down to just below the horizon, in place."""
        bottom = min(math.ceil(camera.horizon_y_px) + 2, camera.height_px)
        if bottom <= 0:
            return
        heading_rad = ego.heading_rad + math.radians(camera.yaw_deg)
        # Whole pixels are enough for a background without parallax.
        left = round(self._px_per_rad * (_HALF_ANGLE_RAD + heading_rad) - camera.cx_px)
        top = round(self._horizon_row - camera.horizon_y_px)
        height, width = self._picture.shape[:2]
        columns = np.arange(left, left + camera.width_px)
        rows = np.clip(np.arange(top, top + bottom), 0, height - 1)
        if columns[0] < 0 or columns[-1] >= width:
            folded = np.abs(columns) % (2 * (width - 1))
            image_rgb[:bottom] = self._picture[rows][:, np.minimum(folded, 2 * (width - 1) - folded)]
        else:
            image_rgb[:bottom] = self._picture[rows, left : left + camera.width_px]


def _sky(
    size_px: tuple[int, int], horizon_row: int, focal_px: float, weather: Weather, rng: np.random.Generator
) -> FloatArray:
    """Gradient, glow around the sun, and clouds that get denser towards the horizon; FP32 [height, width, 3]."""
    width, height = size_px
    elevation = np.clip((horizon_row - np.arange(height, dtype=np.float32)) / focal_px, 0, None)
    part = (1 - np.exp(-elevation / 0.28))[:, np.newaxis, np.newaxis]
    horizon, zenith = np.array(weather.horizon, np.float32), np.array(weather.zenith, np.float32)
    sky = np.broadcast_to(horizon * (1 - part) + zenith * part, (height, width, 3)).astype(np.float32)
    azimuth = (np.arange(width, dtype=np.float32) - width / 2) / focal_px
    apart = np.hypot(
        azimuth - math.radians(weather.sun_azimuth_deg),
        (elevation - math.radians(weather.sun_elevation_deg))[:, np.newaxis],
    )
    glow = 0.5 * weather.sun_strength * np.exp(-apart / 0.25)
    sky += glow[..., np.newaxis] * np.array(weather.sun_colour, np.float32)
    noise = cloud_noise(rng, (1024, 512), (5, 6), 6, 0.55)
    rows = (90 / (elevation + 0.07))[:, np.newaxis] * np.ones((1, width), np.float32)
    columns = azimuth[np.newaxis] * 130 / (elevation + 0.16)[:, np.newaxis] ** 0.5 + 300
    density = cv2.remap(noise, columns % 1024, rows % 512, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    threshold = 1.6 - 2.9 * weather.clouds
    cover = np.clip((density - threshold) * 0.8, 0, 0.93) * np.clip(elevation / 0.04, 0, 1)[:, np.newaxis]
    shade = np.clip(1.0 - 0.09 * np.clip(density - threshold, 0, 3), 0.75, 1)[..., np.newaxis]
    brightest = np.minimum(weather.ambient * 1.15 + weather.sun_strength * 0.45, 0.98)
    cloud = shade * brightest
    opacity = cover[..., np.newaxis]
    clouded: FloatArray = sky * (1 - opacity) + cloud * opacity
    return clouded


def _skyline(
    picture: FloatArray, horizon_row: int, focal_px: float, weather: Weather, rng: np.random.Generator
) -> None:
    """Draw hills, and trees in front of them, in haze; in place."""
    highest = max(horizon_row - math.ceil(_HIGHEST_HILL_RAD * focal_px), 0)
    picture = picture[highest:]
    height, width = picture.shape[:2]
    horizon_row -= highest
    rows = np.arange(height, dtype=np.float32)[:, np.newaxis]
    light = weather.ambient + 0.5 * weather.sun_strength * np.array(weather.sun_colour, np.float32)
    horizon = np.array(weather.horizon, np.float32)
    # Height, features, octaves, distance in metres, colour.
    layers = (
        (rng.uniform(0.0, 0.035), 3, 3, 2000, (0.2, 0.26, 0.2)),
        (rng.uniform(0.014, 0.026), 9, 6, 700, (0.14, 0.19, 0.09)),
        (rng.uniform(0.008, 0.02), 16, 7, 350, (0.12, 0.17, 0.07)),
    )
    for tall_rad, features, octaves, distance_m, colour in layers:
        profile = cloud_noise(rng, (width, 1), (features, 1), octaves, 0.55)[0]
        top = horizon_row - focal_px * tall_rad * np.clip(1 + 0.45 * profile, 0.15, None)
        mask = np.clip(rows - top + 0.5, 0, 1)[..., np.newaxis]
        leaves = 1 + 0.3 * cloud_noise(rng, (width, 64), (width // 8, 16), 3, 0.7)
        texture = np.resize(leaves, (height, width))[..., np.newaxis]
        part = 1 - math.exp(-distance_m / weather.visibility_m)
        layer = np.array(colour, np.float32) * light * texture * 1.3 * (1 - part) + horizon * part
        picture += mask * (layer - picture)
