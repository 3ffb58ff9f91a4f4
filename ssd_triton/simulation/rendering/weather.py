"""Light and air."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from ssd_triton.common.arrays import FloatArray, UInt8Array

Colour = tuple[float, float, float]
"""RGB in [0, 1]."""


@dataclass(frozen=True)
class Weather:
    """Light of a scene, and the air between it and the camera.

    Attributes:
        name: A key of :data:`WEATHERS`.
        sun_azimuth_deg: Azimuth of the sun, clockwise from the initial heading.
        sun_elevation_deg: Elevation of the sun above the horizon.
        sun_strength: Sunlight on a face turned to the sun; 1 fully exposes white.
        sun_colour: Colour of the sunlight.
        sky_light: Colour and strength of the light from the sky.
        zenith: Colour of the sky overhead.
        horizon: Colour of the sky at the horizon.
        clouds: Share of the sky that is covered, 0 to 1.
        visibility_m: Distance at which 37 % (1/e) of an object's contrast is left.
        wet: Whether the road is wet.
        lights_on: Whether the lights of vehicles and lamp posts are on.
    """

    name: str
    sun_azimuth_deg: float
    sun_elevation_deg: float
    sun_strength: float
    sun_colour: Colour
    sky_light: Colour
    zenith: Colour
    horizon: Colour
    clouds: float
    visibility_m: float
    wet: bool = False
    lights_on: bool = False

    @property
    def sun(self) -> tuple[float, float, float]:
        """Unit vector towards the sun: ahead, to the right, up."""
        azimuth, elevation = math.radians(self.sun_azimuth_deg), math.radians(self.sun_elevation_deg)
        flat = math.cos(elevation)
        return flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)

    @property
    def ambient(self) -> FloatArray:
        """Light from the sky, FP32 [3]."""
        return np.array(self.sky_light, np.float32)

    def mirrored_sky(self, upwards: FloatArray) -> FloatArray:
        """Colours that a mirror shows in directions with these upward components: FP32 [n, 3] for [n]."""
        up = np.clip(upwards, 0, 1)[:, np.newaxis] ** 0.6
        sky = (1 - up) * np.array(self.horizon, np.float32) + up * np.array(self.zenith, np.float32)
        ground = 0.33 * self.ambient * np.ones_like(sky)
        part = np.clip(upwards * 6 + 0.5, 0, 1)[:, np.newaxis]
        mixed: FloatArray = (part * sky + (1 - part) * ground).astype(np.float32)
        return mixed

    def haze(self, image_rgb: UInt8Array, distance_m: float, opacity: UInt8Array) -> UInt8Array:
        """Colours of an object at a distance.

        Args:
            image_rgb: UINT8 [h, w, 3], premultiplied by ``opacity``.
            distance_m: From the camera.
            opacity: UINT8 [h, w].
        """
        left = math.exp(-distance_m / self.visibility_m)
        veil = [part * 255 * (1 - left) for part in self.horizon]
        dimmed = cv2.convertScaleAbs(image_rgb, alpha=left)
        veils = cv2.merge([cv2.convertScaleAbs(opacity, alpha=part / 255) for part in veil])
        hazed: UInt8Array = cv2.add(dimmed, veils)
        return hazed


WEATHERS: Mapping[str, Weather] = {
    weather.name: weather
    for weather in (
        Weather("sunny", 125, 42, 0.75, (1.0, 0.95, 0.86), (0.47, 0.5, 0.56), (0.25, 0.46, 0.77), (0.74, 0.83, 0.91),
                clouds=0.35, visibility_m=900),
        Weather("overcast", 60, 50, 0.08, (1.0, 1.0, 1.0), (0.78, 0.8, 0.83), (0.62, 0.66, 0.71), (0.83, 0.85, 0.87),
                clouds=0.95, visibility_m=450),
        Weather("dusk", -35, 9, 0.38, (1.0, 0.68, 0.42), (0.31, 0.32, 0.4), (0.2, 0.27, 0.45), (0.88, 0.66, 0.5),
                clouds=0.5, visibility_m=500, lights_on=True),
        Weather("rain", 40, 55, 0.0, (1.0, 1.0, 1.0), (0.58, 0.6, 0.64), (0.48, 0.51, 0.56), (0.66, 0.69, 0.72),
                clouds=1.0, visibility_m=180, wet=True, lights_on=True),
    )
}  # fmt: skip
"""Chosen by eye to match photographs of roads."""
