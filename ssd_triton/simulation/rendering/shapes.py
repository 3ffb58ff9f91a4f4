"""Building blocks of vehicles: stacked rounded rings, boxes, and flat faces on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from ssd_triton.common.arrays import Float64Array
from ssd_triton.simulation.rendering.mesh import ColourLike, Material, MeshBuilder

Look = Callable[[int, int], tuple[ColourLike, Material]]
"""Colour and material of a face by its level, and by its segment of half a ring from the rear."""

ENDS, CORNER, SIDE = 4, 7, 11
"""Number of points of half a ring: across an end, around a corner, along the side."""


def half_ring(rear_m: float, front_m: float, half_width_m: float, corner_m: float, bow_m: float) -> Float64Array:
    """Right half of a rounded rectangle from the middle of its rear to the middle of its front, FP64 [n, 2]."""
    corner_m = min(corner_m, half_width_m * 0.9, (front_m - rear_m) / 2.2)
    turn = np.linspace(0, np.pi / 2, CORNER + 1)
    rear_end = np.column_stack([np.full(ENDS, rear_m), np.linspace(0, half_width_m - corner_m, ENDS + 1)[:-1]])
    rear_corner = np.column_stack(
        [rear_m + corner_m * (1 - np.cos(turn)), half_width_m - corner_m * (1 - np.sin(turn))]
    )
    side_x = np.linspace(rear_m + corner_m, front_m - corner_m, SIDE + 1)[1:-1]
    side = np.column_stack([side_x, np.full(len(side_x), half_width_m)])
    front = np.vstack([rear_end, rear_corner])[::-1].copy()
    front[:, 0] = front_m + rear_m - front[:, 0]
    half = np.vstack([rear_end, rear_corner, side, front])
    middle = (rear_m + front_m) / 2
    ends = (
        np.where(half[:, 0] > middle, -1.0, 1.0) * np.clip(np.abs(half[:, 0] - middle) / (front_m - middle), 0, 1) ** 8
    )
    half[:, 0] += ends * bow_m * (half[:, 1] / half_width_m) ** 2
    return half


def _mirrored(half: Float64Array) -> Float64Array:
    return half * (1, -1, 1)


def skin(builder: MeshBuilder, rings: Sequence[Float64Array], look: Look) -> None:
    """Add faces between rings, on both sides."""
    for level, (low, high) in enumerate(pairwise(rings)):
        inside = np.array([low[:, 0].mean(), 0.0, (low[:, 2].mean() + high[:, 2].mean()) / 2])
        for segment in range(len(low) - 1):
            corners = np.array([low[segment], low[segment + 1], high[segment + 1], high[segment]])
            colour, material = look(level, segment)
            for quad in (corners, _mirrored(corners)):
                near = inside.copy()
                near[0] = np.clip(quad[:, 0].mean(), low[:, 0].min() + 0.4, low[:, 0].max() - 0.4)
                builder.add(quad, near, colour, material)


def lid(builder: MeshBuilder, half: Float64Array, colour: ColourLike, below_m: float) -> None:
    """Add faces from side to side on top of a ring."""
    mirrored = _mirrored(half)
    for index in range(len(half) - 1):
        corners = np.array([half[index], half[index + 1], mirrored[index + 1], mirrored[index]])
        centre = corners.mean(axis=0)
        builder.add(corners, np.array([centre[0], 0.0, below_m]), colour, Material.PAINT)


def plate(
    builder: MeshBuilder,
    x_m: float,
    y_m: tuple[float, float],
    z_m: tuple[float, float],
    colour: ColourLike,
    *,
    material: Material = Material.MATT,
    lift_m: float = 0.3,
    lean_m: float = 0.0,
) -> None:
    """Add a face across the heading, at the front (x > 0) or the rear."""
    corners = np.array([[x_m, y_m[0], z_m[0]], [x_m, y_m[1], z_m[0]], [x_m, y_m[1], z_m[1]], [x_m, y_m[0], z_m[1]]])
    corners[2:, 0] -= np.sign(x_m) * lean_m
    builder.add(corners, np.array([0.0, corners[:, 1].mean(), corners[:, 2].mean()]), colour, material, lift_m)


def side_face(
    builder: MeshBuilder,
    side: int,
    x_m: tuple[float, float],
    y_m: float,
    z_m: tuple[float, float],
    *,
    colour: ColourLike,
    material: Material = Material.MATT,
) -> None:
    """Add a face along the heading, on the right (1) or the left (-1) side."""
    (rear, front), (low, high), y = x_m, z_m, side * y_m
    corners = np.array([[rear, y, low], [front, y, low], [front, y, high], [rear, y, high]], np.float64)
    builder.add(corners, corners.mean(axis=0) * (1, 0, 1), colour, material, 0.25)


def box(
    builder: MeshBuilder,
    x_m: tuple[float, float],
    half_width_m: float,
    z_m: tuple[float, float],
    colour: ColourLike,
    *,
    material: Material = Material.PAINT,
) -> None:
    """Add a box with slightly rounded edges, without a bottom."""
    plan = half_ring(x_m[0], x_m[1], half_width_m, 0.05, 0.0)
    rings = [np.column_stack([plan, np.full(len(plan), height)]) for height in np.linspace(*z_m, 5)]
    skin(builder, rings, lambda *_: (colour, material))
    lid(builder, rings[-1], colour, z_m[0])
