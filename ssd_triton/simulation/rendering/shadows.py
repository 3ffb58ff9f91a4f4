"""Shadows of road users on the road."""

from __future__ import annotations

import cv2
import numpy as np

from ssd_triton.common.arrays import Float64Array, UInt8Array
from ssd_triton.simulation.motion import TargetState
from ssd_triton.simulation.rendering.target_meshes import shape_points
from ssd_triton.simulation.rendering.view import View

_NEAREST_M = 0.6
_LONGEST = 5.0
"""Longest shadow of a low sun, in heights of the target."""


def draw_shadows(image_rgb: UInt8Array, state: TargetState, view: View) -> None:
    """Darken the ground where a target blocks the sun, and below it, where it blocks the sky; in place."""
    points_m = shape_points(state)
    weather, sun = view.weather, view.weather.sun
    direct = weather.sun_strength * sun[2]
    sky = float(weather.ambient.mean())
    if weather.sun_strength > 0.05:
        stretch = min(1 / max(sun[2], 1e-3), _LONGEST)
        cast = points_m[:, :2] - points_m[:, 2:] * np.array(sun[:2]) * stretch
        _darken(image_rgb, cast, view, sky / (sky + direct) * 0.9, 0.05)
    body = state.target.size
    grown = 0.12 if not body.is_person else 0.05
    local = np.array([[x, y] for x in (-1, 1) for y in (-1, 1)]) * (body.length_m / 2 + grown, body.width_m / 2 + grown)
    if body.is_person:
        local = local * 0.8
    strength = 0.45 if body.is_person else 0.22
    _darken(image_rgb, state.pose.to_world(local), view, strength, 0.16)


def _darken(image_rgb: UInt8Array, ground_m: Float64Array, view: View, left: float, soft_m: float) -> None:
    """Multiply the convex hull of points on the ground by the share of light that is left."""
    camera = view.camera
    local = view.ego.to_local(ground_m)
    distance_m = max(float(local[:, 0].min()), 2.0)
    if local[:, 0].max() < _NEAREST_M:
        return
    local[:, 0] = np.maximum(local[:, 0], _NEAREST_M)
    points_px = camera.image_points(np.column_stack([local, np.zeros(len(local))]).astype(np.float32))
    spread_px = float(np.clip(soft_m * camera.fy_px / distance_m, 0.6, 20))
    first, top, last, bottom = view.window(points_px, 3 * spread_px)
    top = max(top, int(camera.horizon_y_px) + 1)
    if last - first < 2 or bottom - top < 2:
        return
    mask = np.full((bottom - top, last - first), 255, np.uint8)
    hull = cv2.convexHull(points_px)[:, 0] - (first + 0.5, top + 0.5)
    corners = np.round(np.clip(hull, -20000, 20000) * 16).astype(np.int32)
    cv2.fillConvexPoly(mask, corners, round(255 * left), cv2.LINE_AA, 4)
    # Foreshortening makes a shadow's edge span fewer rows than columns.
    flat_px = max(spread_px * min(camera.height_m / distance_m, 1.0) * 2, 0.5)
    mask = cv2.GaussianBlur(mask, (0, 0), spread_px, sigmaY=flat_px)
    window = image_rgb[top:bottom, first:last]
    cv2.multiply(window, cv2.merge([mask] * 3), dst=window, scale=1 / 255)
