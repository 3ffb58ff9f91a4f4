"""SAFE, WARN or BRAKE for one frame.

The rule looks at one frame only and takes every object for stationary, so that it warns too early behind
moving traffic and too late of objects that approach. Ranges are those of :mod:`ssd_triton.braking.geometry`,
with its limits, and count from the camera, not from the bumper. A demonstration, not a safety system.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum

from ssd_triton.braking.geometry import GroundCamera, RoadPoint
from ssd_triton.config import BrakingConfig
from ssd_triton.detections import Detections
from ssd_triton.errors import ConfigError

KMH_PER_MPS = 3.6


class State(IntEnum):
    """What the driver is told; the higher, the more urgent."""

    SAFE = 0
    WARN = 1
    BRAKE = 2


@dataclass(frozen=True)
class RoadObject:
    """A road user on the road before the car.

    Attributes:
        index: Its place among the detections it was taken from.
        class_name: Its class.
        position: Where its box stands on the road.
        in_corridor: Whether that is in the way of the car.
    """

    index: int
    class_name: str
    position: RoadPoint
    in_corridor: bool


@dataclass(frozen=True)
class Zones:
    """Ranges from the camera, in metres, up to which an object in the corridor calls for a state."""

    brake_m: float
    warn_m: float


@dataclass(frozen=True)
class Decision:
    """A state, the object that called for it (the nearest in the corridor; None without one), and why."""

    state: State
    obstacle: RoadObject | None
    reason: str


def gate_class_ids(labels: Sequence[str], classes: Collection[str]) -> frozenset[int]:
    """Class ids of the classes to brake for.

    Args:
        labels: Class names by id, the background first.
        classes: ``braking.classes`` of the configuration.

    Raises:
        ConfigError: A class is not among the labels; the message names the nearest one.
    """
    for name in classes:
        if name not in labels[1:]:
            nearest = difflib.get_close_matches(name, labels[1:], n=1, cutoff=0.5)
            hint = f"did you mean '{nearest[0]}'?" if nearest else "see the file at labels_path"
            raise ConfigError(f"braking.classes: got '{name}', expected a class of the model; {hint}")
    return frozenset(labels.index(name) for name in classes)


def zones(settings: BrakingConfig) -> Zones:
    """How far ahead to brake and to warn.

    BRAKE reaches as far as the car goes until it stands: v·t during the driver's reaction, then v²/2a. WARN
    reaches further by what the car covers in ``warning_lead_time_s``, so that a stationary object that comes
    into range is warned of that much earlier than it is braked for: UN Regulation No. 152 asks for 0.8 s with
    a car as target.
    """
    speed_mps = settings.ego_speed_kmh / KMH_PER_MPS
    brake_m = speed_mps * settings.reaction_time_s + speed_mps**2 / (2 * settings.deceleration_mps2)
    return Zones(brake_m, brake_m + speed_mps * settings.warning_lead_time_s)


def locate(
    detections: Detections,
    labels: Sequence[str],
    camera: GroundCamera,
    *,
    class_ids: Collection[int],
    corridor_half_width_m: float,
) -> list[RoadObject]:
    """Place the detected road users on the road, by the bottom centre of their boxes.

    Detections of other classes than ``class_ids``, and those that stand at the horizon or above it, are left
    out.
    """
    objects = []
    for index, (box_xyxy, _, class_id) in enumerate(detections):
        left, _, right, bottom = (float(side) for side in box_xyxy)
        position = camera.road_point((left + right) / 2, bottom) if class_id in class_ids else None
        if position is not None:
            in_corridor = abs(position.lateral_m) <= corridor_half_width_m
            objects.append(RoadObject(index, labels[class_id], position, in_corridor))
    return objects


def decide(objects: Sequence[RoadObject], settings: BrakingConfig) -> Decision:
    """Decide by the nearest object in the corridor."""
    in_corridor = [item for item in objects if item.in_corridor]
    if not in_corridor:
        return Decision(State.SAFE, None, "nothing in the corridor")
    obstacle = min(in_corridor, key=lambda item: item.position.forward_m)
    range_m, limits = obstacle.position.forward_m, zones(settings)
    what = f"{obstacle.class_name} at {range_m:.1f} m"
    if range_m <= limits.brake_m:
        why = f"{what}: stopping from {settings.ego_speed_kmh:g} km/h takes {limits.brake_m:.1f} m"
        return Decision(State.BRAKE, obstacle, why)
    if range_m <= limits.warn_m:
        lead_s = (range_m - limits.brake_m) / (settings.ego_speed_kmh / KMH_PER_MPS)
        return Decision(State.WARN, obstacle, f"{what}: braking zone in {lead_s:.1f} s")
    return Decision(State.SAFE, obstacle, f"{what}: beyond the warning zone of {limits.warn_m:.1f} m")
