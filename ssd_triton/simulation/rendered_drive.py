"""A rendered drive in closed loop, as a source of frames: the car that is drawn reacts to the decisions."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ssd_triton.common.units import KMH_PER_MPS
from ssd_triton.config import Config, SimulationConfig
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.camera import Camera, configured_camera
from ssd_triton.media.video import VideoSource
from ssd_triton.media.video.source import Frame
from ssd_triton.simulation.catalogue import DEFAULT_NAME, find_scenario
from ssd_triton.simulation.clip import DEFAULT_FPS, DEFAULT_SIZE_PX
from ssd_triton.simulation.rendering.renderer import Renderer
from ssd_triton.simulation.scenario import Scenario
from ssd_triton.simulation.simulate import Drive

_DEFAULT_SEED = 12


class RenderedDrive(VideoSource):
    """Frames of a scenario, drawn one after the other as the car drives.

    A frame is drawn when it is requested, with the decisions that have reached the brakes by then. If not in real time,
    the reader must decide on frame *k* before it requests frame *k* + ``frames_ahead``.

    Args:
        scenario: The scenario.
        camera: A pinhole camera.
        settings: Ego, brakes, time step.
        front_overhang_m: From the camera to the front bumper.
        fps: Frames per second; in real time, at most.
        latency_s: From a frame until its decision reaches the brakes; in real time, the actual latency counts instead.
        seed: Seed of the appearance.
        real_time: Whether simulated time follows the clock, however long drawing takes.

    Attributes:
        camera: The camera.
        frames_ahead: Number of frames that can be drawn before the first of them needs a decision.

    Raises:
        SimulationError: The camera cannot be drawn.
    """

    def __init__(
        self,
        scenario: Scenario,
        camera: Camera,
        settings: SimulationConfig,
        *,
        front_overhang_m: float,
        fps: float,
        latency_s: float,
        seed: int,
        real_time: bool = False,
    ) -> None:
        size_px = (camera.width_px, camera.height_px)
        frames = None if real_time else round(scenario.duration_s * fps)
        super().__init__(f"scenario {scenario.name}", size_px, fps, frames)
        self.camera = camera
        self.frames_ahead = max(int(latency_s * fps + 1e-6), 1)
        self._duration_s = scenario.duration_s
        self._latency_s = latency_s
        self._real_time = real_time
        self._renderer = Renderer(scenario, camera, seed=seed)
        self._drive = Drive(scenario, camera, settings, front_overhang_m=front_overhang_m)
        self._motions: dict[float, EgoMotion] = {}
        self._start_s = time.monotonic()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames until the scenario ends, or the first contact."""
        index, time_s = 0, 0.0
        while time_s < self._duration_s and self._drive.contact is None:
            self._drive.advance_to(time_s)
            snapshot = self._drive.snapshot()
            self._motions[time_s] = snapshot.ego_motion
            image_rgb = self._renderer.draw(snapshot)
            if not index:
                self._start_s = time.monotonic()
            yield Frame(image_rgb, time_s, index)
            index += 1
            time_s = self._next_time_s(index, time_s)

    def close(self) -> None:
        """Do nothing: no resource is open."""

    def at(self, time_s: float) -> EgoMotion:
        """The car's own motion at the time of a frame, as its sensors report it."""
        return self._motions.get(time_s, EgoMotion())

    def react(self, time_s: float, *, brake: bool) -> None:
        """Pass the decision on the frame at a time to the brakes."""
        self._drive.demand(brake, self._elapsed_s() if self._real_time else time_s + self._latency_s)

    @property
    def outcome(self) -> str:
        """How the drive ended, in words."""
        contact = self._drive.contact
        if contact is not None:
            return f"contact at {contact.time_s:.2f} s, closing at {contact.impact_mps * KMH_PER_MPS:.0f} km/h"
        return f"no contact, least gap {self._drive.min_gap_m:.1f} m"

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._start_s

    def _next_time_s(self, index: int, time_s: float) -> float:
        """Time of the next frame."""
        if not self._real_time:
            return index / self.fps
        time.sleep(max(time_s + 1 / self.fps - self._elapsed_s(), 0.0))
        return self._elapsed_s()


def open_default_drive(config: Config, *, real_time: bool) -> RenderedDrive:
    """The default drive of the demo.

    Raises:
        UserError: The configuration's camera cannot be used, or its view cannot be drawn.
    """
    return RenderedDrive(
        find_scenario(DEFAULT_NAME),
        configured_camera(config.camera, DEFAULT_SIZE_PX),
        config.simulation,
        front_overhang_m=config.braking.front_overhang_m,
        fps=DEFAULT_FPS,
        latency_s=config.demo.assumed_latency_s,
        seed=_DEFAULT_SEED,
        real_time=real_time,
    )
