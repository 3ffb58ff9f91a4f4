"""Meshes of standing and walking people."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ssd_triton.common.arrays import Float64Array
from ssd_triton.simulation.rendering.mesh import Mesh, MeshBuilder

_SKIN = ((0.87, 0.68, 0.56), (0.78, 0.57, 0.44), (0.55, 0.38, 0.28), (0.36, 0.24, 0.17))
_HAIR = ((0.08, 0.06, 0.05), (0.2, 0.13, 0.08), (0.42, 0.3, 0.16), (0.6, 0.58, 0.55))
_TOPS = (
    (0.1, 0.11, 0.14), (0.16, 0.2, 0.32), (0.48, 0.1, 0.1), (0.8, 0.8, 0.78), (0.3, 0.36, 0.24), (0.68, 0.52, 0.2),
    (0.25, 0.42, 0.55), (0.5, 0.5, 0.52), (0.35, 0.2, 0.36),
)  # fmt: skip
_TROUSERS = ((0.09, 0.1, 0.13), (0.14, 0.18, 0.3), (0.25, 0.25, 0.26), (0.45, 0.38, 0.28), (0.3, 0.36, 0.48))
_SIDES = 12

_FOLDS = 0.1
"""Relative variation of the brightness of cloth."""

STRIDE = 0.78
"""Length of two steps relative to the height: 1.4 m for 1.8 m at walking pace (Winter, Biomechanics of Human Gait)."""


_Limb = Callable[[Sequence[Sequence[float]], Sequence[tuple[float, float]], Float64Array], None]
"""Adds a tube along points, with two radii at each and a colour; lengths relative to the height."""


def person_mesh(height_m: float, look: int, walked_m: float, moving: bool) -> Mesh:
    """Mesh of a person facing along the x-axis.

    Args:
        height_m: From the road to the top of the head.
        look: Chooses clothes, hair and skin.
        walked_m: Distance walked since the start, for the phase of the gait.
        moving: Whether the legs swing.
    """
    rng = np.random.default_rng([look, 77])
    skin, hair, top, trousers = (
        np.array(choice[int(rng.integers(len(choice)))]) * rng.uniform(0.85, 1.1)
        for choice in (_SKIN, _HAIR, _TOPS, _TROUSERS)
    )
    stout, long_hair, bag = rng.uniform(0.92, 1.12), rng.random() < 0.4, rng.random() < 0.35
    short_sleeves, skirt = rng.random() < 0.25, rng.random() < 0.15
    swing = 0.42 if moving else 0.05
    phase = 2 * math.pi * walked_m / (STRIDE * height_m)
    builder = MeshBuilder()

    def limb(points: Sequence[Sequence[float]], radii: Sequence[tuple[float, float]], colour: Float64Array) -> None:
        _tube(builder, np.array(points) * height_m, np.array(radii) * height_m, colour, rng)

    for side, turn in ((1, phase), (-1, phase + math.pi)):
        _leg(limb, side, turn, swing, colours=(trousers, skin if skirt else trousers), moving=moving, stout=stout)
        colours = (top, skin if short_sleeves else top, skin)
        _arm(limb, side, -swing * 0.8 * math.sin(turn), colours=colours, moving=moving, stout=stout)
    hem = 0.40 if skirt else 0.49
    limb(
        [(0, 0, hem), (0, 0, 0.55), (0, 0, 0.63), (0.004, 0, 0.70), (0.005, 0, 0.77), (0, 0, 0.815), (0, 0, 0.84)],
        [(0.072 * stout, 0.102 * stout), (0.068 * stout, 0.097 * stout), (0.061 * stout, 0.086 * stout),
         (0.067 * stout, 0.098 * stout), (0.066 * stout, 0.106 * stout), (0.05, 0.1), (0.032, 0.048)],
        top,
    )  # fmt: skip
    limb([(0.0, 0, 0.82), (0.008, 0, 0.885)], [(0.03, 0.03), (0.028, 0.028)], skin)
    limb(
        [(0.01, 0, 0.868), (0.014, 0, 0.89), (0.014, 0, 0.925), (0.01, 0, 0.96), (0.004, 0, 0.985)],
        [(0.025, 0.022), (0.045, 0.036), (0.052, 0.043), (0.05, 0.042), (0.03, 0.028)],
        skin,
    )
    limb(
        [(-0.014, 0, 0.87 if long_hair else 0.91), (-0.012, 0, 0.94), (-0.004, 0, 0.975), (0.0, 0, 1.0)],
        [(0.04, 0.044), (0.05, 0.048), (0.051, 0.046), (0.018, 0.018)],
        hair,
    )
    if bag:
        limb([(-0.1, 0, 0.62), (-0.1, 0, 0.8)], [(0.045, 0.075), (0.04, 0.065)], top[::-1] * 0.6)
    return builder.build()


def _leg(
    limb: _Limb,
    side: int,
    turn: float,
    swing: float,
    *,
    colours: tuple[Float64Array, Float64Array],
    moving: bool,
    stout: float,
) -> None:
    """Add a leg at a phase of the gait; the colours are those of thigh and shank."""
    y, hip = side * 0.052, 0.52
    thigh = swing * math.sin(turn)
    knee = (math.sin(thigh) * 0.245, y, hip - math.cos(thigh) * 0.245)
    shank = thigh - (swing * (0.75 + 0.75 * math.cos(turn)) if moving else 0.04)
    ankle = (knee[0] + math.sin(shank) * 0.235, y, max(knee[2] - math.cos(shank) * 0.235, 0.035))
    limb([(0, y * 0.9, hip + 0.01), knee], [(0.055 * stout, 0.046 * stout), (0.037, 0.036)], colours[0])
    limb([knee, ankle], [(0.036, 0.034), (0.025, 0.024)], colours[1])
    foot = [(ankle[0] - 0.03, y, ankle[2] - 0.012), (ankle[0] + 0.095, y, max(ankle[2] - 0.018, 0.012))]
    limb(foot, [(0.026, 0.026), (0.016, 0.022)], np.array([0.08, 0.07, 0.07]))


def _arm(
    limb: _Limb,
    side: int,
    swing: float,
    *,
    colours: tuple[Float64Array, Float64Array, Float64Array],
    moving: bool,
    stout: float,
) -> None:
    """Add an arm; the colours are those of upper arm, forearm and hand."""
    y, shoulder = side * 0.112 * stout, 0.815
    elbow = (math.sin(swing) * 0.17, y + side * 0.02, shoulder - 0.02 - math.cos(swing) * 0.17)
    fore = swing + (0.35 if moving else 0.12)
    wrist = (elbow[0] + math.sin(fore) * 0.15, elbow[1], elbow[2] - math.cos(fore) * 0.15)
    limb(
        [(0, y * 0.72, shoulder + 0.012), (0, y, shoulder - 0.018), elbow],
        [(0.03, 0.026), (0.037, 0.036), (0.027, 0.027)],
        colours[0],
    )
    limb([elbow, wrist], [(0.026, 0.026), (0.02, 0.02)], colours[1])
    limb([wrist, (wrist[0] + 0.012, wrist[1], wrist[2] - 0.055)], [(0.018, 0.014), (0.02, 0.012)], colours[2])


def _tube(
    builder: MeshBuilder, path_m: Float64Array, radii_m: Float64Array, colour: Float64Array, rng: np.random.Generator
) -> None:
    """Add faces around a path, with closed ends.

    Args:
        builder: Receives the faces.
        path_m: FP64 [k, 3].
        radii_m: FP64 [k, 2]: along the direction the person faces, and across it.
        colour: RGB in [0, 1].
        rng: Varies the brightness like folds of cloth.
    """
    angles = np.linspace(0, 2 * math.pi, _SIDES + 1)[:-1]
    along = path_m[-1] - path_m[0]
    along /= np.linalg.norm(along)
    across = np.array([0.0, 1.0, 0.0])
    ahead = np.cross(across, along)
    circle_ahead, circle_across = np.cos(angles)[:, np.newaxis] * ahead, np.sin(angles)[:, np.newaxis] * across
    rings = [
        point + radius[0] * circle_ahead + radius[1] * circle_across
        for point, radius in zip(path_m, radii_m, strict=True)
    ]
    for low, high, near, far in zip(rings, rings[1:], path_m, path_m[1:], strict=False):
        inside = (near + far) / 2
        for index in range(_SIDES):
            following = (index + 1) % _SIDES
            builder.add(
                np.array([low[index], low[following], high[following], high[index]]),
                inside,
                colour * rng.uniform(1 - _FOLDS, 1 + _FOLDS),
            )
    builder.add(rings[0], rings[0].mean(axis=0) + along, colour)
    builder.add(rings[-1], rings[-1].mean(axis=0) - along, colour)
