"""Drives in a small world."""

from __future__ import annotations

from ssd_triton.common.detections import Detections
from ssd_triton.config import Config
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.camera import Camera
from ssd_triton.simulation import Run, Scenario, Target, simulate
from ssd_triton.simulation.scenario import Criterion, Road

CAMERA = Camera.from_fov((1280, 720), horizontal_fov_deg=60, height_m=1.3)
SMALL = CAMERA.scaled_to(640, 360)
OVERHANG_M = 1.5
NOTHING_ASKED = Criterion("none", "none")


def drive(config: Config, labels: tuple[str, ...], scenario: Scenario, **options: object) -> Run:
    return simulate(scenario, CAMERA, config.simulation, labels, front_overhang_m=OVERHANG_M, **options)  # type: ignore[arg-type]


def alone(*targets: Target, speed_kmh: float = 0.0, duration_s: float = 0.1, road: Road | None = None) -> Scenario:
    return Scenario("test", speed_kmh, targets, NOTHING_ASKED, duration_s, road or Road())


def brake_from(time_s: float):  # type: ignore[no-untyped-def]  # noqa: ANN201
    def controller(now_s: float, detections: Detections | None, ego: EgoMotion) -> State:
        return State.BRAKE if now_s >= time_s - 1e-9 else State.SAFE

    return controller
