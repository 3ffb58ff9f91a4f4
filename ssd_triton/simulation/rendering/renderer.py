"""Render the simulated world as a dash-cam would record it.

    renderer = Renderer(scenario, camera, weather="sunny", seed=1)
    image_rgb = renderer.draw(snapshot)

Everything is drawn with OpenCV on the CPU, from far to near. The camera is a pinhole: cameras with lens distortion are
refused, since straight edges would not match the boxes.
"""

from __future__ import annotations

import cv2
import numpy as np

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.driving.camera import Camera
from ssd_triton.simulation.motion import TargetState
from ssd_triton.simulation.rendering.backdrop import Backdrop
from ssd_triton.simulation.rendering.ground import Ground
from ssd_triton.simulation.rendering.mesh import draw_mesh
from ssd_triton.simulation.rendering.scenery import Item, Scenery
from ssd_triton.simulation.rendering.shadows import draw_shadows
from ssd_triton.simulation.rendering.target_meshes import target_mesh
from ssd_triton.simulation.rendering.view import View
from ssd_triton.simulation.rendering.weather import WEATHERS, Weather
from ssd_triton.simulation.scenario import Scenario, SimulationError
from ssd_triton.simulation.snapshot import Snapshot

LEAST_SIZE_PX = 64
"""In smaller images, nothing is recognisable."""

_GRAIN_MARGIN_PX = 64
_HAZE_FROM_M = 8.0
_BRAKING_MPS2 = 0.5
"""Brake lights are on from this deceleration; UN R13-H requires them from 1.3 m/s² and allows them from 0.7 m/s²."""


class Renderer:
    """Draws snapshots of one scenario.

    Args:
        scenario: Its road is drawn.
        camera: Size and lens; the pitch comes from each snapshot.
        weather: A key of :data:`ssd_triton.simulation.rendering.weather.WEATHERS`, or a weather.
        seed: Seed of textures, sky, roadside and sensor noise.
        shadows: Whether road users cast shadows.

    Raises:
        SimulationError: The camera has lens distortion or is smaller than 64 pixels, or the weather is unknown.
    """

    def __init__(
        self,
        scenario: Scenario,
        camera: Camera,
        *,
        weather: str | Weather = "sunny",
        seed: int = 0,
        shadows: bool = True,
    ) -> None:
        check_camera(camera)
        self.weather = weather if isinstance(weather, Weather) else find_weather(weather)
        self._seed, self._shadows = seed, shadows
        self._ground = Ground(scenario.road, self.weather, seed)
        self._backdrop = Backdrop(camera, self.weather, seed)
        self._scenery = Scenery(scenario.road, self.weather, seed, scenario.ego_speed_mps * scenario.duration_s)
        rng = np.random.default_rng([seed, 4])
        grain_size = (camera.height_px + _GRAIN_MARGIN_PX, camera.width_px + _GRAIN_MARGIN_PX, 3)
        level = 2.4 if not self.weather.lights_on else 4.0
        self._grain = np.round(level * rng.standard_normal(grain_size, dtype=np.float32)).astype(np.int16)
        self._vignette = _vignette(camera)

    def draw(self, snapshot: Snapshot) -> UInt8Array:
        """Draw a snapshot: UINT8 [H, W, 3], RGB."""
        camera, ego = snapshot.camera, snapshot.ego
        view = View(ego, camera, self.weather)
        image = np.zeros((camera.height_px, camera.width_px, 3), np.uint8)
        self._backdrop.draw(image, ego, camera)
        self._ground.draw(image, ego, snapshot.ego_along_m, camera)
        if self._shadows:
            for state in snapshot.targets:
                draw_shadows(image, state, view)
        things: list[tuple[float, Item | TargetState]] = []
        for item in self._scenery.near(snapshot.ego_along_m):
            things.append((float(np.hypot(item.pose.x_m - ego.x_m, item.pose.y_m - ego.y_m)), item))
        for state in snapshot.targets:
            things.append((float(np.hypot(*ego.to_local(state.outline_m()).T).min()), state))
        for distance_m, thing in sorted(things, key=lambda pair: -pair[0]):
            if isinstance(thing, TargetState):
                self._draw_target(thing, distance_m, image, view)
            else:
                self._scenery.draw(thing, image, view)
        return self._as_sensed(image, snapshot.time_s)

    def _draw_target(self, state: TargetState, distance_m: float, image: UInt8Array, view: View) -> None:
        braking = state.acceleration_mps2 * np.sign(state.speed_along_mps) < -_BRAKING_MPS2
        sprite = draw_mesh(target_mesh(state), state.pose, view, bool(braking))
        if sprite is None:
            return
        if distance_m > _HAZE_FROM_M:
            rgba = sprite.rgba
            rgba[..., :3] = self.weather.haze(rgba[..., :3], distance_m, rgba[..., 3])
        sprite.draw(image)

    def _as_sensed(self, image: UInt8Array, time_s: float) -> UInt8Array:
        """Add the blur and vignetting of the lens, and the noise of the sensor."""
        image = cv2.GaussianBlur(image, (0, 0), 0.55)
        image = cv2.multiply(image, self._vignette, scale=1 / 255)
        rng = np.random.default_rng([self._seed, 5, round(time_s * 1000)])
        top, left = (int(place) for place in rng.integers(0, _GRAIN_MARGIN_PX, 2))
        grain = self._grain[top : top + image.shape[0], left : left + image.shape[1]]
        noisy: UInt8Array = cv2.add(image, grain, dtype=cv2.CV_8U)
        return noisy


def check_camera(camera: Camera) -> None:
    """Refuse a camera whose view cannot be drawn.

    Raises:
        SimulationError: Lens distortion, or fewer than 64 pixels across or down.
    """
    if any(camera.distortion):
        raise SimulationError(
            f"got a camera with lens distortion {list(camera.distortion)}, expected a pinhole; remove 'distortion' "
            "from the camera file, or leave camera.file out"
        )
    if min(camera.width_px, camera.height_px) < LEAST_SIZE_PX:
        raise SimulationError(
            f"got an image of {camera.width_px}x{camera.height_px} pixels, expected at least {LEAST_SIZE_PX} each way; "
            "change --size"
        )


def find_weather(name: str) -> Weather:
    """Find a weather by name.

    Raises:
        SimulationError: The name is unknown.
    """
    if name not in WEATHERS:
        raise SimulationError(f"unknown weather '{name}', expected one of {', '.join(WEATHERS)}")
    return WEATHERS[name]


def _vignette(camera: Camera) -> UInt8Array:
    """Share of the light that reaches the sensor, 255 for all of it, UINT8 [H, W, 3]."""
    x = (np.arange(camera.width_px) + 0.5 - camera.cx_px) / camera.width_px
    y = (np.arange(camera.height_px) + 0.5 - camera.cy_px) / camera.width_px
    light = np.clip(1 - 0.42 * (x**2 + y[:, np.newaxis] ** 2), 0, 1)
    return np.repeat((light * 255)[..., np.newaxis], 3, axis=2).astype(np.uint8)
