"""Meshes of targets, and the points of their silhouettes."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from scipy.spatial import ConvexHull

from ssd_triton.common.arrays import Float64Array
from ssd_triton.simulation.bodies import BODIES
from ssd_triton.simulation.motion import TargetState
from ssd_triton.simulation.rendering.mesh import Mesh
from ssd_triton.simulation.rendering.people import STRIDE, person_mesh
from ssd_triton.simulation.rendering.vehicles import vehicle_mesh

_PHASES_PER_M = 20.0
"""Gait is drawn in phases 5 cm apart: 3 % of a stride."""


def target_mesh(state: TargetState) -> Mesh:
    """Mesh of a target at one instant, in its own axes."""
    return _mesh(*_key(state))


def shape_points(state: TargetState) -> Float64Array:
    """Points of a target's surface that span its silhouette.

    Returns:
        FP64 [n, 3], metres in the world's axes; the third is the height above the road.
    """
    return state.pose.to_world(_spanning(*_key(state)))


def _key(state: TargetState) -> tuple[str, int, float, int, bool]:
    """The inputs of a mesh: body, look, scale, phase of the gait, and whether it walks."""
    target = state.target
    if not BODIES[target.body].is_person:
        return target.body, target.look, target.scale, 0, False
    moving = abs(state.speed_along_mps) + abs(state.speed_across_mps) > 0
    phases = round(STRIDE * target.size.height_m * _PHASES_PER_M)
    return target.body, target.look, target.scale, round(state.walked_m * _PHASES_PER_M) % phases, moving


@lru_cache(maxsize=512)
def _mesh(body: str, look: int, scale: float, phase: int, moving: bool) -> Mesh:
    if BODIES[body].is_person:
        return person_mesh(BODIES[body].height_m * scale, look, phase / _PHASES_PER_M, moving)
    mesh = vehicle_mesh(body, look)
    return replace(mesh, vertices_m=mesh.vertices_m * scale, centres_m=mesh.centres_m * np.float32(scale))


@lru_cache(maxsize=512)
def _spanning(body: str, look: int, scale: float, phase: int, moving: bool) -> Float64Array:
    """Corners of a mesh's convex hull, FP64 [n, 3]: they span the mesh's silhouette from every direction."""
    vertices_m = _mesh(body, look, scale, phase, moving).vertices_m
    corners: Float64Array = vertices_m[ConvexHull(vertices_m).vertices]
    return corners
