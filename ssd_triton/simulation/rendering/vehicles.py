"""Meshes of vehicles: a body of stacked rounded rings with a cabin, wheels, lights and plates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ssd_triton.common.arrays import Float64Array
from ssd_triton.simulation.bodies import BODIES
from ssd_triton.simulation.rendering.mesh import ColourLike, Material, Mesh, MeshBuilder
from ssd_triton.simulation.rendering.shapes import (
    CORNER,
    ENDS,
    SIDE,
    Look,
    box,
    half_ring,
    lid,
    plate,
    side_face,
    skin,
)

_PAINTS = (
    (0.86, 0.87, 0.88), (0.93, 0.93, 0.92), (0.05, 0.05, 0.06), (0.32, 0.33, 0.35), (0.58, 0.6, 0.62),
    (0.5, 0.05, 0.06), (0.06, 0.13, 0.33), (0.16, 0.28, 0.45), (0.12, 0.2, 0.15), (0.55, 0.5, 0.42),
    (0.75, 0.32, 0.08), (0.13, 0.14, 0.16),
)  # fmt: skip
"""Mostly white, grey, silver and black, like most cars."""
_BLACK, _RUBBER, _RIM, _PLASTIC = (0.02, 0.02, 0.025), (0.045, 0.045, 0.05), (0.55, 0.56, 0.58), (0.07, 0.07, 0.075)
_GLASS, _RED, _AMBER, _WHITE = (0.05, 0.06, 0.07), (0.55, 0.03, 0.03), (0.8, 0.4, 0.05), (0.85, 0.87, 0.9)
_PLATES = ((0.92, 0.92, 0.88), (0.93, 0.75, 0.15))


@dataclass(frozen=True)
class _Form:
    """Proportions of a kind of vehicle: shares of its height, and of its length from the rear.

    Attributes:
        belt: Height of the lower edge of the windows.
        bonnet: Height of the body at its front.
        boot: Height of the body at its rear.
        cabin_foot: Rear and front end of the cabin's foot.
        roof: Rear and front end of the roof.
        axles: Positions of the axles.
        wheel_m: Radius of the wheels.
        corner_m: Radius of the body's corners seen from above.
        pillars: Side segments of the ring that are not glass.
        lean: Share of its width that the cabin loses from its foot to the roof.
    """

    belt: float
    bonnet: float
    boot: float
    cabin_foot: tuple[float, float]
    roof: tuple[float, float]
    axles: tuple[float, ...]
    wheel_m: float
    corner_m: float
    pillars: tuple[int, ...]
    lean: float


_FORMS: Mapping[str, _Form] = {
    "hatchback": _Form(0.65, 0.52, 0.63, (0.01, 0.76), (0.1, 0.56), (0.19, 0.8), 0.31, 0.42, (4, 5), 0.26),
    "saloon": _Form(0.64, 0.5, 0.66, (0.1, 0.74), (0.27, 0.55), (0.21, 0.81), 0.33, 0.42, (5,), 0.27),
    "estate": _Form(0.64, 0.5, 0.63, (0.01, 0.74), (0.07, 0.56), (0.2, 0.81), 0.33, 0.4, (3, 6), 0.25),
    "suv": _Form(0.63, 0.55, 0.62, (0.01, 0.74), (0.08, 0.56), (0.19, 0.81), 0.36, 0.38, (3, 6), 0.22),
    "minivan": _Form(0.6, 0.5, 0.58, (0.01, 0.84), (0.05, 0.58), (0.18, 0.81), 0.32, 0.38, (3, 6), 0.2),
    "van": _Form(0.53, 0.44, 0.53, (0.0, 0.9), (0.0, 0.72), (0.18, 0.82), 0.34, 0.2, tuple(range(8)), 0.08),
    "bus": _Form(0.36, 0.36, 0.36, (0.0, 1.0), (0.0, 0.99), (0.22, 0.78), 0.48, 0.25, (0, 5, 10), 0.03),
}

_LOWER_LEVELS = (
    (0.2, 0.10, 0.09), (0.27, 0.04, 0.04), (0.36, 0.01, 0.015), (0.48, 0.0, 0.0), (0.6, 0.0, 0.0), (0.7, 0.012, 0.004),
    (0.8, 0.03, 0.012), (0.88, 0.05, 0.022), (0.95, 0.08, 0.045), (1.0, 0.13, 0.085),
)  # fmt: skip
"""Rings of the body: share of the height to the belt, inset of the ends and of the sides in metres."""
_CABIN_LEVELS = (0.0, 0.08, 0.3, 0.55, 0.8, 0.9, 0.97)
"""Rings of the cabin: share of the height from belt to roof; glass lies between the second and the fifth."""
_CORNER_SEGMENTS = range(ENDS - 1, ENDS + CORNER - 1)


@dataclass(frozen=True)
class _Trim:
    """Differences between vehicles of one kind."""

    paint: Float64Array
    tail_levels: tuple[int, ...]
    tail_segments: tuple[int, ...]
    head_levels: tuple[int, ...]
    dark_levels: int
    plate_low: bool
    plate_colour: tuple[float, float, float]


@lru_cache(maxsize=128)
def vehicle_mesh(body: str, look: int) -> Mesh:
    """Mesh of a vehicle.

    Args:
        body: A vehicle's key in :data:`ssd_triton.simulation.bodies.BODIES`.
        look: Chooses paint and plate.
    """
    rng = np.random.default_rng([look, sum(body.encode())])
    paint = np.clip(np.array(_PAINTS[int(rng.integers(len(_PAINTS)))]) * rng.uniform(0.9, 1.1), 0, 1)
    wide = int(rng.integers(ENDS - 1, ENDS + 2))
    trim = _Trim(
        paint,
        tail_levels=((6, 7), (5, 6, 7), (6, 7, 8), (4, 5, 6, 7, 8))[int(rng.integers(4))],
        tail_segments=tuple(range(wide, ENDS + CORNER - 2)),
        head_levels=((6, 7), (5, 6, 7), (6, 7, 8))[int(rng.integers(3))],
        dark_levels=int(rng.integers(1, 4)),
        plate_low=bool(rng.random() < 0.4),
        plate_colour=_PLATES[int(rng.integers(2))],
    )
    builder = MeshBuilder()
    if body == "truck":
        _truck(builder, paint, rng)
    else:
        _car(builder, body, trim)
    return builder.build()


def _car(builder: MeshBuilder, body: str, trim: _Trim) -> None:
    paint = trim.paint
    size, form = BODIES[body], _FORMS[body]
    length, half_width, belt_m = size.length_m, size.width_m / 2, form.belt * size.height_m
    rear_m = -length / 2

    def top_m(x_m: Float64Array) -> Float64Array:
        knots = (0.0, *form.cabin_foot, 1.0)
        heights = (form.boot, form.belt, form.belt, form.bonnet)
        along = (x_m - rear_m) / length
        bulge = 0.035 * np.clip((along - form.cabin_foot[1]) / (1.001 - form.cabin_foot[1]), 0, 1) * (1 - along) * 4
        return (np.interp(along, knots, heights) + bulge) * size.height_m

    rings = []
    for part, end_m, side_m in _LOWER_LEVELS:
        plan = half_ring(rear_m + end_m, -rear_m - end_m, half_width - side_m, form.corner_m, 0.1)
        rings.append(np.column_stack([plan, part * top_m(plan[:, 0])]))
    skin(builder, rings, _body_rule(trim, len(rings[0]) - 1))
    lid(builder, rings[-1], paint, belt_m / 2)
    cabin = []
    for part in _CABIN_LEVELS:
        foot, roof = np.array(form.cabin_foot), np.array(form.roof)
        ends = rear_m + length * (foot + (roof - foot) * part)
        lean = half_width * (1 - form.lean * part) - 0.07 * (1 - part)
        plan = half_ring(ends[0] + 0.04, ends[1], lean, 0.22, 0.06)
        low = np.minimum(top_m(plan[:, 0]), belt_m) - 0.03
        height = low + (size.height_m * 0.985 - low) * part
        cabin.append(np.column_stack([plan, height]))
    windows = _window_rule(form, paint)
    skin(builder, cabin, windows)
    roof = cabin[-1].copy()
    roof[:, 2] = size.height_m
    roof[:, :2] *= 0.9
    roof[:, 0] += cabin[-1][:, 0].mean() * 0.1
    skin(builder, [cabin[-1], roof], lambda *_: (paint, Material.PAINT))
    lid(builder, roof, paint, belt_m)
    _underside(builder, rings[0])
    for axle in form.axles:
        for side in (1, -1):
            _wheel(builder, rear_m + axle * length, side, half_width - 0.01, form.wheel_m)
    _details(builder, body, trim)


def _body_rule(trim: _Trim, segments: int) -> Look:
    """Paint, with lights around the corners, and a bumper of plastic."""

    def rule(level: int, segment: int) -> tuple[ColourLike, Material]:
        if level < trim.dark_levels:
            return _PLASTIC, Material.MATT
        if level in trim.tail_levels and segment in trim.tail_segments:
            return _RED, Material.BRAKE_LIGHT
        if level in trim.head_levels and segments - 1 - segment in _CORNER_SEGMENTS:
            inner = (
                segments - 1 - segment in _CORNER_SEGMENTS[1:4]
                and level == trim.head_levels[len(trim.head_levels) // 2]
            )
            return (_WHITE, Material.LIGHT) if inner else ((0.3, 0.31, 0.33), Material.GLASS)
        return trim.paint, Material.PAINT

    return rule


def _window_rule(form: _Form, paint: Float64Array) -> Look:
    first_side = ENDS + CORNER
    last_side = first_side + SIDE

    def rule(level: int, segment: int) -> tuple[ColourLike, Material]:
        if 1 <= level <= 3:
            on_side = first_side <= segment < last_side
            pillar = (on_side and segment - first_side in form.pillars) or segment in (
                *range(first_side - 3, first_side), *range(last_side, last_side + 3),
            )  # fmt: skip
            if not pillar:
                return _GLASS, Material.GLASS
        return paint, Material.PAINT

    return rule


def _underside(builder: MeshBuilder, half: Float64Array) -> None:
    """A dark box between the wheels that blocks the view below the bumper."""
    low, high = half.copy(), half.copy()
    low[:, 2] = 0.12
    low[:, :2] *= 0.9
    skin(builder, [low, high], lambda *_: (_BLACK, Material.MATT))


def _wheel(builder: MeshBuilder, x_m: float, side: int, outside_m: float, radius_m: float) -> None:
    angles = np.linspace(0, 2 * np.pi, 21)[:-1]
    circle = np.column_stack([np.cos(angles), np.zeros(len(angles)), np.sin(angles)])

    def disc(radius: float, y_m: float) -> Float64Array:
        return circle * radius + (x_m, side * y_m, radius_m)

    inside = np.array([x_m, side * (outside_m - 0.3), radius_m])
    arch = disc(radius_m + 0.055, outside_m + 0.004)
    builder.add(arch[arch[:, 2] > radius_m * 0.55], inside, _BLACK, Material.MATT, 0.5)
    outer, inner = disc(radius_m, outside_m + 0.008), disc(radius_m, outside_m - 0.2)
    for index in range(len(outer)):
        following = (index + 1) % len(outer)
        tread = np.array([outer[index], outer[following], inner[following], inner[index]])
        builder.add(tread, np.array([x_m, tread[:, 1].mean(), radius_m]), _RUBBER)
    builder.add(outer, inside, _RUBBER, Material.MATT, 0.55)
    builder.add(disc(radius_m * 0.68, outside_m + 0.01), inside, _RIM, Material.PAINT, 0.6)
    builder.add(disc(radius_m * 0.6, outside_m + 0.011), inside, (0.12, 0.12, 0.13), Material.MATT, 0.62)
    for angle in np.linspace(0, 2 * np.pi, 6)[:-1]:
        along = np.array([np.cos(angle), 0.0, np.sin(angle)]) * radius_m * 0.66
        across = np.array([-np.sin(angle), 0.0, np.cos(angle)]) * radius_m * 0.1
        centre = np.array([x_m, side * (outside_m + 0.012), radius_m])
        builder.add(
            np.array([centre - across, centre + across, centre + along + across, centre + along - across]),
            inside, _RIM, Material.PAINT, 0.65,
        )  # fmt: skip


def _details(builder: MeshBuilder, body: str, trim: _Trim) -> None:
    """Plates, grille, doors, mirrors."""
    size, form = BODIES[body], _FORMS[body]
    half, wide, tall = size.length_m / 2, size.width_m / 2, form.belt * size.height_m
    seam: ColourLike = tuple(trim.paint * 0.35)
    low, grille = tall * (0.4 if trim.plate_low else 0.66), form.bonnet * size.height_m
    faces: list[tuple[float, tuple[float, float], tuple[float, float], ColourLike, float]] = [
        (-half - 0.006, (-0.29, 0.29), (low - 0.03, low + 0.14), tuple(trim.paint * 0.6), 0.45),
        (-half - 0.012, (-0.26, 0.26), (low, low + 0.11), trim.plate_colour, 0.5),
        *((-half - 0.013, (left, left + 0.045), (low + 0.025, low + 0.085), _BLACK, 0.55)
          for left in (-0.21 + 0.07 * index for index in range(6))),
        (-half - 0.004, (-wide * 0.6, wide * 0.6), (tall * 0.5, tall * 0.512), seam, 0.42),
        (half + 0.002, (-wide * 0.42, wide * 0.42), (grille * 0.62, grille * 0.84), _BLACK, 0.3),
        (half + 0.004, (-wide * 0.6, wide * 0.6), (grille * 0.28, grille * 0.44), _PLASTIC, 0.3),
        (half + 0.01, (-0.26, 0.26), (grille * 0.47, grille * 0.47 + 0.11), trim.plate_colour, 0.5),
    ]  # fmt: skip
    if body == "van":
        faces.append((-half - 0.003, (-0.012, 0.012), (tall * 0.3, size.height_m * 0.93), seam, 0.4))
    for x_m, y_m, z_m, colour, lift_m in faces:
        plate(builder, x_m, y_m, z_m, colour, lift_m=lift_m)
    if body == "van":
        z_m = (tall * 1.08, size.height_m * 0.84)
        for side in (1, -1):
            y_m = (side * 0.1, side * wide * 0.72)
            plate(builder, -half - 0.004, y_m, z_m, _GLASS, material=Material.GLASS, lift_m=0.42)
    for side in (1, -1):
        _doors(builder, body, side, seam)
        if body != "bus":
            _mirror(builder, body, side, trim.paint)


def _doors(builder: MeshBuilder, body: str, side: int, seam: ColourLike) -> None:
    size, form = BODIES[body], _FORMS[body]
    half, wide, tall = size.length_m / 2, size.width_m / 2, form.belt * size.height_m
    for along in (0.36, 0.52, 0.69) if body != "bus" else (0.9,):
        x_m = -half + along * size.length_m
        side_face(builder, side, (x_m - 0.008, x_m + 0.008), wide, (tall * 0.3, tall * 0.94), colour=seam)
        if along != 0.69:
            handle_m, z_m = (x_m + 0.06, x_m + 0.2), (tall * 0.82, tall * 0.85)
            side_face(builder, side, handle_m, wide + 0.01, z_m, colour=seam, material=Material.PAINT)


def _mirror(builder: MeshBuilder, body: str, side: int, paint: Float64Array) -> None:
    size, form = BODIES[body], _FORMS[body]
    wide, tall = size.width_m / 2, form.belt * size.height_m
    x_m = -size.length_m / 2 + (form.cabin_foot[1] - 0.06) * size.length_m
    corners = np.array([[x_m, 0, 0.01], [x_m, 0.16, 0.0], [x_m, 0.18, 0.1], [x_m, 0.02, 0.12]])
    foot = np.array([0.0, wide * 0.93, tall * 1.02])
    corners = (corners + foot) * (1, side, 1)
    for inside_m, shade in ((1.0, np.array(_GLASS)), (-1.0, paint)):
        builder.add(corners, corners.mean(axis=0) + np.array([inside_m, 0.0, 0.0]), shade, Material.PAINT, 0.2)


def _truck(builder: MeshBuilder, paint: Float64Array, rng: np.random.Generator) -> None:
    size = BODIES["truck"]
    half, wide, tall = size.length_m / 2, size.width_m / 2, size.height_m
    cargo = np.array((0.85, 0.86, 0.87)) if rng.random() < 0.6 else paint
    box(builder, (-half + 0.05, half - 0.3), wide * 0.8, (0.35, 0.95), _PLASTIC, material=Material.MATT)
    box(builder, (half - 2.0, half), wide * 0.96, (0.45, 2.75), paint)
    windscreen_m = (-wide * 0.85, wide * 0.85)
    plate(builder, half + 0.01, windscreen_m, (1.65, 2.5), _GLASS, material=Material.GLASS, lift_m=0.5, lean_m=0.02)
    plate(builder, half + 0.01, (-wide * 0.7, wide * 0.7), (0.7, 1.2), _BLACK, lift_m=0.5)
    box(builder, (-half, half - 2.15), wide, (0.95, tall), cargo)
    plate(builder, -half - 0.01, (-wide * 0.97, wide * 0.97), (1.0, 1.06), _PLASTIC)
    for y_m in (-0.03, 0.0, 0.03):
        plate(builder, -half - 0.01, (y_m - 0.008, y_m + 0.008), (1.05, tall - 0.1), _PLASTIC)
    for y_m in (-0.75, -0.35, 0.35, 0.75):
        plate(builder, -half - 0.02, (y_m - 0.02, y_m + 0.02), (1.1, tall - 0.15), _RIM, material=Material.PAINT)
    stripe = np.clip(rng.uniform(0.1, 0.8, 3), 0, 1)
    for side in (1, -1):
        cargo_m, window_m = (-half + 0.5, half - 2.8), (half - 1.2, half - 0.2)
        side_face(builder, side, cargo_m, wide + 0.01, (1.7, 2.5), colour=stripe, material=Material.PAINT)
        side_face(builder, side, window_m, wide * 0.97, (1.65, 2.4), colour=_GLASS, material=Material.GLASS)
        tail_m, head_m = (side * wide * 0.65, side * wide * 0.95), (side * wide * 0.6, side * wide * 0.92)
        plate(builder, -half + 0.02, tail_m, (0.68, 0.9), _RED, material=Material.BRAKE_LIGHT)
        plate(builder, half + 0.01, head_m, (0.6, 0.85), _WHITE, material=Material.LIGHT)
        for x_m in (-half + 1.4, half - 1.1):
            _wheel(builder, x_m, side, wide - 0.02, 0.47)
    plate(builder, -half - 0.0, (-wide * 0.9, wide * 0.9), (0.48, 0.62), _PLASTIC)
    plate(builder, -half - 0.02, (-0.26, 0.26), (0.68, 0.8), _PLATES[0])
