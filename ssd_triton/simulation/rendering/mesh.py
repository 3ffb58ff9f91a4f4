"""Meshes of flat faces: their construction, lighting and drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np
import numpy.typing as npt

from ssd_triton.common.arrays import Float64Array, FloatArray, IntArray, UInt8Array
from ssd_triton.simulation.motion import Pose
from ssd_triton.simulation.rendering.view import View
from ssd_triton.simulation.rendering.weather import Weather

_NEAR_M = 0.3
_SUBPIXEL_BITS = 4
_GLARE = (0.1, 0.03, 0.02)
"""Added to the colour of a brake light: it saturates the sensor's other channels too."""
ColourLike = Sequence[float] | Float64Array
"""RGB in [0, 1]."""
_OVERSAMPLING = ((4, 60.0), (3, 300.0), (2, math.inf))
"""Oversampling of a mesh, each up to a size in pixels."""
_LEAST_NORMAL_M2 = 1e-9
"""Faces of less area are left out: their normal is undefined."""


class Material(IntEnum):
    """Reflection or emission of a face."""

    MATT = 0
    PAINT = 1
    GLASS = 2
    LIGHT = 3
    BRAKE_LIGHT = 4


@dataclass(frozen=True)
class Mesh:
    """Convex faces in a body's axes: ahead, right and up, in metres from the middle of its footprint.

    Attributes:
        vertices_m: FP64 [n, 3].
        faces: Indices of each face's corners, in order around it.
        colours: FP32 [m, 3], RGB in [0, 1].
        materials: INT32 [m], of :class:`Material`.
        lift_m: FP32 [m]; shifts a face towards the camera in the drawing order, for faces that lie on others.
        normals: FP32 [m, 3], outwards, of length 1.
        centres_m: FP32 [m, 3].
    """

    vertices_m: Float64Array
    faces: tuple[IntArray, ...]
    colours: FloatArray
    materials: IntArray
    lift_m: FloatArray
    normals: FloatArray
    centres_m: FloatArray


class MeshBuilder:
    """Collects faces."""

    def __init__(self) -> None:
        self._vertices: list[Float64Array] = []
        self._faces: list[IntArray] = []
        self._colours: list[tuple[float, float, float]] = []
        self._materials: list[Material] = []
        self._lifts: list[float] = []
        self._normals: list[Float64Array] = []
        self._centres: list[Float64Array] = []
        self._count = 0

    def add(
        self,
        corners_m: Float64Array,
        inside_m: Float64Array,
        colour: ColourLike,
        material: Material = Material.MATT,
        lift_m: float = 0.0,
    ) -> None:
        """Add a face.

        Args:
            corners_m: FP64 [k, 3], in order around it, in either direction.
            inside_m: A point on its inner side.
            colour: RGB in [0, 1].
            material: Its material.
            lift_m: See :class:`Mesh`.
        """
        centre = corners_m.sum(axis=0) / len(corners_m)
        (ax, ay, az), (bx, by, bz) = (corners_m[2] - corners_m[0]).tolist(), (corners_m[-1] - corners_m[1]).tolist()
        normal = np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])
        length = math.sqrt(normal @ normal)
        if length < _LEAST_NORMAL_M2:
            return
        normal /= length if normal @ (centre - inside_m) >= 0 else -length
        self._vertices.append(corners_m)
        self._faces.append(np.arange(self._count, self._count + len(corners_m), dtype=np.int32))
        self._count += len(corners_m)
        self._colours.append((float(colour[0]), float(colour[1]), float(colour[2])))
        self._materials.append(material)
        self._lifts.append(lift_m)
        self._normals.append(normal)
        self._centres.append(centre)

    def build(self) -> Mesh:
        """Build the mesh of all faces."""
        vertices, places = np.unique(np.concatenate(self._vertices), axis=0, return_inverse=True)
        places = places.reshape(-1).astype(np.int32)
        return Mesh(
            vertices,
            tuple(places[face] for face in self._faces),
            np.array(self._colours, np.float32),
            np.array(self._materials, np.int32),
            np.array(self._lifts, np.float32),
            np.array(self._normals, np.float32),
            np.array(self._centres, np.float32),
        )


@dataclass(frozen=True)
class Sprite:
    """An image with transparency, for drawing over a frame.

    Attributes:
        left_px: Column of its first pixel in the frame.
        top_px: Row of its first pixel.
        rgba: UINT8 [h, w, 4], colours premultiplied by opacity.
    """

    left_px: int
    top_px: int
    rgba: UInt8Array

    def draw(self, image_rgb: UInt8Array) -> None:
        """Draw it over a frame, in place; the sprite must lie within the frame."""
        height, width = self.rgba.shape[:2]
        window = image_rgb[self.top_px : self.top_px + height, self.left_px : self.left_px + width]
        through = cv2.merge([255 - self.rgba[..., 3]] * 3)
        window[:] = cv2.add(cv2.multiply(window, through, scale=1 / 255), self.rgba[..., :3])


def draw_mesh(mesh: Mesh, pose: Pose, view: View, braking: bool) -> Sprite | None:
    """Light a mesh and draw it as the camera sees it.

    Args:
        mesh: The mesh.
        pose: Its pose in the world.
        view: Position, camera and light.
        braking: Whether its brake lights are on.

    Returns:
        None where it is not visible.
    """
    points_m, points_px = view.project(pose.to_world(mesh.vertices_m))
    seen = (points_m[:, 0] > _NEAR_M) & np.isfinite(points_px).all(axis=1)
    if not seen.any():
        return None
    left, top, right, bottom = view.window(points_px[seen], 1.0)
    width_px, height_px = right - left, bottom - top
    if min(width_px, height_px) < 1:
        return None
    finer = next(times for times, longest_px in _OVERSAMPLING if max(width_px, height_px) < longest_px)
    canvas = np.zeros((height_px * finer, width_px * finer, 4), np.uint8)
    # The first pixel's centre is at (0.5, 0.5) for the camera, and at (0, 0) for OpenCV.
    corners = (points_px - (left, top)) * finer - 0.5
    corners_fixed = np.round(np.clip(np.nan_to_num(corners), -30000, 30000) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    order, towards = _facing(mesh, pose, view)
    colours = _lit(mesh, pose, order, towards, view.weather, braking=braking)
    all_seen = bool(seen.all())
    for index, colour in zip(order.tolist(), colours, strict=True):
        face = mesh.faces[index]
        if all_seen or seen[face].all():
            cv2.fillConvexPoly(canvas, corners_fixed[face], colour, cv2.LINE_8, _SUBPIXEL_BITS)
    return Sprite(left, top, cv2.resize(canvas, (width_px, height_px), interpolation=cv2.INTER_AREA))


def _facing(mesh: Mesh, pose: Pose, view: View) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """Faces turned to the lens, far to near; and unit vectors from them to the lens in the body's axes, FP32 [k, 3]."""
    lens = pose.to_local(np.array([[view.ego.x_m, view.ego.y_m, view.camera.height_m]]))[0].astype(np.float32)
    towards = lens - mesh.centres_m
    front = np.flatnonzero(np.einsum("ij,ij->i", towards, mesh.normals) > 0)
    towards = towards[front]
    distance_m = np.sqrt(np.einsum("ij,ij->i", towards, towards))
    order = np.argsort(mesh.lift_m[front] - distance_m, kind="stable")
    return front[order], (towards / distance_m[:, np.newaxis])[order]


def _lit(
    mesh: Mesh, pose: Pose, chosen: npt.NDArray[np.intp], towards: FloatArray, weather: Weather, *, braking: bool
) -> list[tuple[float, float, float, float]]:
    """Colours of chosen faces as seen by the lens, RGB and opacity in 0 to 255."""
    sun = pose.to_local(np.array([[pose.x_m + weather.sun[0], pose.y_m + weather.sun[1], weather.sun[2]]]))[0]
    sun = sun.astype(np.float32)
    normals, materials, own = mesh.normals[chosen], mesh.materials[chosen], mesh.colours[chosen]
    facing = np.einsum("ij,ij->i", normals, towards)
    # Less sky lights faces near the road.
    openness = np.clip(0.5 + mesh.centres_m[chosen, 2] * 0.7, 0.45, 1.05) * (0.78 + 0.3 * normals[:, 2])
    sunlit = weather.sun_strength * np.clip(normals @ sun, 0, 1)
    light = weather.ambient * openness[:, np.newaxis] + np.outer(sunlit, weather.sun_colour)
    mirrored = 2 * facing[:, np.newaxis] * normals - towards
    glint = weather.sun_strength * np.clip(mirrored @ sun, 0, 1) ** 40
    fresnel = (1 - facing) ** 5
    paint, glass = materials == Material.PAINT, materials == Material.GLASS
    gloss = (paint * (0.1 + 0.5 * fresnel) + glass * (0.16 + 0.7 * fresnel))[:, np.newaxis]
    colour = own * light * (1 - gloss) + weather.mirrored_sky(mirrored[:, 2]) * gloss
    colour += (glint * (0.5 * paint + 0.2 * glass))[:, np.newaxis]
    colour += own * ((materials == Material.LIGHT) * (0.9 if weather.lights_on else 0.15))[:, np.newaxis]
    brake_lights = (materials == Material.BRAKE_LIGHT)[:, np.newaxis]
    colour += own * brake_lights * (1.1 if braking else (0.45 if weather.lights_on else 0.0))
    colour += brake_lights * np.array(_GLARE, np.float32) * float(braking)
    pixels = np.empty((len(chosen), 4), np.float32)
    pixels[:, :3] = np.clip(colour * 255, 0, 255)
    pixels[:, 3] = 255
    lit: list[tuple[float, float, float, float]] = pixels.tolist()
    return lit
