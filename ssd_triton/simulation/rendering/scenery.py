"""The roadside: trees, houses, hedges and lamp posts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from ssd_triton.common.arrays import Float64Array, UInt8Array
from ssd_triton.simulation.motion import Pose, road_pose
from ssd_triton.simulation.rendering.mesh import Sprite
from ssd_triton.simulation.rendering.view import View
from ssd_triton.simulation.rendering.weather import Weather
from ssd_triton.simulation.scenario import Road

_FARTHEST_M = 200.0
_LEAST_PX = 5.0
"""Items that are smaller in the image are not drawn: the line of trees behind them would hide them."""
_NEAREST_M = 1.0
_HAZE_STEP_M = 10.0
_TREE_PX = 320


@dataclass(frozen=True)
class Tree:
    """A flat picture of a tree that always faces the camera."""

    pose: Pose
    along_m: float
    height_m: float
    kind: int


@dataclass(frozen=True)
class Block:
    """A house or hedge: a box with pictures on the walls towards the road and the camera, and a roof.

    Attributes:
        pose: Pose of the middle of its footprint.
        along_m: Position of the middle along the road.
        size_m: Length along the road, depth across it, height of the walls.
        roof_m: Height of the gable; 0 for a flat roof.
        side: 1 to the right of the road, -1 to the left.
        kind: Index of its picture.
    """

    pose: Pose
    along_m: float
    size_m: tuple[float, float, float]
    roof_m: float
    side: int
    kind: int


@dataclass(frozen=True)
class Lamp:
    """A lamp post with an arm towards the road."""

    pose: Pose
    along_m: float
    height_m: float
    side: int


Item = Tree | Block | Lamp


class Scenery:
    """The roadside of one world.

    Args:
        road: The road.
        weather: Light and air.
        seed: Seed of everything.
        length_m: Length of the road along which to place items.
    """

    def __init__(self, road: Road, weather: Weather, seed: int, length_m: float) -> None:
        rng = np.random.default_rng([seed, 3])
        self._weather = weather
        self._trees = [_tree_picture(weather, rng) for _ in range(5)]
        self._walls = [_house_picture(weather, rng) for _ in range(5)] + [_hedge_picture(weather, rng)]
        self._roof = np.array((0.34, 0.17, 0.12)) * rng.uniform(0.6, 1.2) + rng.uniform(0, 0.1)
        self.items = _place(road, rng, length_m)

    @lru_cache(maxsize=2048)  # noqa: B019
    def _picture(self, kind: tuple[str, int], shrink: int, distance: int, shade: float) -> UInt8Array:
        """A picture of a tree or a wall, reduced in size, with the haze of a distance in steps of 10 m."""
        picture = (self._trees if kind[0] == "tree" else self._walls)[kind[1]]
        for _ in range(shrink):
            smaller = (max(picture.shape[1] // 2, 1), max(picture.shape[0] // 2, 1))
            picture = cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA)
        colours = cv2.convertScaleAbs(picture[..., :3], alpha=shade)
        hazed = self._weather.haze(colours, _HAZE_STEP_M * distance, picture[..., 3])
        return np.dstack([hazed, picture[..., 3]])

    def near(self, ego_along_m: float) -> list[Item]:
        """Items that may be visible from a position along the road."""
        return [item for item in self.items if -15 < item.along_m - ego_along_m < _FARTHEST_M]

    def draw(self, item: Item, image_rgb: UInt8Array, view: View) -> None:
        """Draw an item, in place."""
        if isinstance(item, Tree):
            self._draw_tree(item, image_rgb, view)
        elif isinstance(item, Block):
            self._draw_block(item, image_rgb, view)
        else:
            self._draw_lamp(item, image_rgb, view)

    def _draw_tree(self, tree: Tree, image_rgb: UInt8Array, view: View) -> None:
        foot_m = view.ego.to_local(np.array([[tree.pose.x_m, tree.pose.y_m, 0.0]]))
        if foot_m[0, 0] < 2.0:
            return
        points = np.repeat(foot_m, 2, axis=0)
        points[1, 2] = tree.height_m
        (x_px, bottom_px), (_, top_px) = view.camera.image_points(points.astype(np.float32)).tolist()
        height_px = width_px = bottom_px - top_px
        if height_px < _LEAST_PX or x_px + width_px < 0 or x_px - width_px > view.camera.width_px:
            return
        corners = np.array(
            [[x_px - width_px / 2, top_px], [x_px + width_px / 2, top_px], [x_px - width_px / 2, bottom_px]]
        )
        picture = self._picture(("tree", tree.kind), _halvings(_TREE_PX, height_px), _haze_step(foot_m[0, 0]), 1.0)
        _lay_picture(image_rgb, picture, corners, view)

    def _draw_block(self, block: Block, image_rgb: UInt8Array, view: View) -> None:
        length, depth, height = block.size_m
        near_y = -block.side * depth / 2
        picture = self._walls[block.kind]
        rear = -length / 2
        faces: list[tuple[Float64Array, float]] = [
            (np.array([[rear, near_y, height], [rear, -near_y, height], [rear, near_y, 0], [rear, -near_y, 0]]), 0.82),
            (np.array([[rear, near_y, height], [-rear, near_y, height], [rear, near_y, 0], [-rear, near_y, 0]]), 1.0),
        ]
        if block.roof_m:
            ridge = height + block.roof_m
            slope = np.array(
                [
                    [rear, near_y * 1.08, height - 0.1],
                    [-rear, near_y * 1.08, height - 0.1],
                    [-rear, 0, ridge],
                    [rear, 0, ridge],
                ]
            )
            gable = np.array([[rear, near_y, height], [rear, -near_y, height], [rear, 0, ridge]])
            self._fill(image_rgb, block.pose.to_world(gable), view, picture[8, 8, :3] / 255 * 0.82)
            self._fill(image_rgb, block.pose.to_world(slope), view, self._roof * self._weather.ambient * 1.5)
        for face, shade in faces:
            self._draw_wall(image_rgb, block, face, view, shade)

    def _draw_wall(self, image_rgb: UInt8Array, block: Block, face_m: Float64Array, view: View, shade: float) -> None:
        """Draw a picture on a wall [top left, top right, bottom left, bottom right], cut off near the camera."""
        points_m = view.ego.to_local(block.pose.to_world(face_m))
        ahead = points_m[[0, 1], 0]
        if ahead.max() < _NEAREST_M + 0.2:
            return
        source = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        for near, far in ((0, 1), (1, 0)):
            if ahead[near] < _NEAREST_M:
                part = (_NEAREST_M - ahead[near]) / (ahead[far] - ahead[near])
                for row in (0, 2):
                    points_m[near + row] += part * (points_m[far + row] - points_m[near + row])
                source[[near, near + 2], 0] = abs(near - part)
        points_px = view.camera.image_points(points_m.astype(np.float32))
        left, top, right, bottom = view.window(points_px, 1.0)
        tall_px = float(np.abs(points_px[2:, 1] - points_px[:2, 1]).max())
        wide_px = abs(points_px[1, 0] - points_px[0, 0])
        if min(right - left, bottom - top) < 2 or wide_px < 1 or tall_px < _LEAST_PX:
            return
        shrink = _halvings(self._walls[block.kind].shape[0], tall_px)
        picture = self._picture(("wall", block.kind), shrink, _haze_step(points_m[:, 0].min()), shade)
        scale = np.array([picture.shape[1], picture.shape[0]])
        corners = ((source * scale).astype(np.float32), (points_px - (left, top)).astype(np.float32))
        transform = cv2.getPerspectiveTransform(*corners)
        rgba = cv2.warpPerspective(picture, transform, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
        Sprite(left, top, rgba).draw(image_rgb)

    def _fill(self, image_rgb: UInt8Array, face_m: Float64Array, view: View, colour: Float64Array) -> None:
        """Fill a face in the world's axes with a colour."""
        points_m, points_px = view.project(face_m)
        distance_m = float(points_m[:, 0].min())
        if distance_m < _NEAREST_M or not np.isfinite(points_px).all():
            return
        shade = self._hazed(colour, distance_m)
        cv2.fillPoly(image_rgb, [np.round((points_px - 0.5) * 16).astype(np.int32)], shade, cv2.LINE_AA, 4)

    def _hazed(self, colour: Float64Array, distance_m: float) -> tuple[float, float, float]:
        """A colour in [0, 1] with the haze of a distance, 0 to 255."""
        left = math.exp(-distance_m / self._weather.visibility_m)
        mixed = np.clip(colour, 0, 1) * left + np.array(self._weather.horizon) * (1 - left)
        red, green, blue = (mixed * 255).tolist()
        return red, green, blue

    def _draw_lamp(self, lamp: Lamp, image_rgb: UInt8Array, view: View) -> None:
        arm_y = -lamp.side * 1.6
        local = np.array(
            [[0, 0, 0], [0, 0, lamp.height_m], [0, arm_y, lamp.height_m + 0.25], [0, arm_y * 0.7, lamp.height_m + 0.2]]
        )
        points_m, points_px = view.project(lamp.pose.to_world(local))
        distance_m = float(points_m[:, 0].min())
        if distance_m < 2.0:
            return
        fixed = np.round((points_px - 0.5) * 16).astype(np.int32)
        colour = self._hazed(np.array([0.42, 0.43, 0.44]) * self._weather.ambient, distance_m)
        thick_px = max(round(0.09 * view.camera.fx_px / distance_m), 1)
        cv2.polylines(image_rgb, [fixed[:2]], False, colour, thick_px, cv2.LINE_AA, 4)
        cv2.polylines(image_rgb, [fixed[1:3]], False, colour, max(thick_px * 2 // 3, 1), cv2.LINE_AA, 4)
        bright = (255.0, 236.0, 190.0) if self._weather.lights_on else colour
        cv2.polylines(image_rgb, [fixed[2:]], False, bright, thick_px + 1, cv2.LINE_AA, 4)


def _place(road: Road, rng: np.random.Generator, length_m: float) -> list[Item]:
    """Place items on both sides of the road, with random densities of buildings, trees and lamps."""
    items: list[Item] = []
    built_up, wooded, lamps = rng.uniform(0, 0.9), rng.uniform(0.3, 1.0), rng.random() < 0.7
    edges = {
        -1: road.lane_width_m * (0.5 + road.lanes_left) + road.parking_left_m,
        1: road.lane_width_m * (0.5 + road.lanes_right) + road.parking_right_m,
    }
    for side, edge_m in edges.items():
        along_m = rng.uniform(-10, 5)
        while along_m < length_m + _FARTHEST_M:
            offset_m = side * (edge_m + rng.uniform(4.0, 6.5))
            if rng.random() < built_up * 0.6:
                size = (rng.uniform(9, 16), rng.uniform(7, 10), rng.uniform(3.2, 8.5))
                roof_m = 0.0 if rng.random() < 0.2 else rng.uniform(2, 3.5)
                middle = road_pose(road, along_m + size[0] / 2, offset_m + side * size[1] / 2)
                items.append(Block(middle, along_m + size[0] / 2, size, roof_m, side, int(rng.integers(5))))
                along_m += size[0] + rng.uniform(2, 8)
            elif rng.random() < wooded:
                far_m = offset_m + side * rng.uniform(0, 8)
                items.append(Tree(road_pose(road, along_m, far_m), along_m, rng.uniform(4.5, 12), int(rng.integers(5))))
                along_m += rng.uniform(3, 9)
            elif rng.random() < 0.4:
                size = (rng.uniform(6, 14), 0.8, rng.uniform(0.9, 1.7))
                middle = road_pose(road, along_m + size[0] / 2, offset_m)
                items.append(Block(middle, along_m + size[0] / 2, size, 0.0, side, 5))
                along_m += size[0] + 1
            else:
                along_m += rng.uniform(4, 14)
        if lamps:
            start_m = rng.uniform(0, 30)
            for along in np.arange(start_m, length_m + _FARTHEST_M, 32.0).tolist():
                items.append(Lamp(road_pose(road, along, side * (edge_m + 0.8)), along, 7.0, side))
    return items


def _tree_picture(weather: Weather, rng: np.random.Generator) -> UInt8Array:
    """A tree, UINT8 [h, w, 4], colours premultiplied by opacity."""
    size = _TREE_PX
    picture = np.zeros((size, size, 4), np.float32)
    green = np.array([0.16, 0.24, 0.07]) * rng.uniform(0.7, 1.3) + np.array([0.1, 0.03, 0.0]) * rng.random()
    bark = np.array([0.2, 0.16, 0.12])
    light = weather.ambient + 0.45 * weather.sun_strength * np.array(weather.sun_colour)
    crown = np.array([size / 2, size * rng.uniform(0.36, 0.42)])
    reach = np.array([size * rng.uniform(0.28, 0.42), size * rng.uniform(0.32, 0.36)])

    def limb(start: Float64Array, end: Float64Array, thick: float) -> None:
        colour = (*(bark * light * rng.uniform(0.7, 1.1) * 255), 255.0)
        cv2.line(
            picture, start.astype(int).tolist(), end.astype(int).tolist(), colour, max(round(thick), 1), cv2.LINE_AA
        )

    foot = np.array([size / 2, size - 1.0])
    fork = crown + np.array([rng.normal(0, 5), reach[1] * 0.6])
    limb(foot, fork, size * 0.035)
    for _ in range(9):
        limb(fork, crown + rng.uniform(-0.5, 0.5, 2) * reach, size * 0.012)
    centres = rng.normal(0, 0.42, (26, 2))
    lean = -0.4 if weather.sun[1] < 0 else 0.4
    blobs: list[tuple[float, Float64Array, float]] = []
    for centre in centres:
        spread = rng.normal(0, 0.17, (56, 2)) + centre
        spread = spread[np.hypot(*spread.T) < 1.02]
        blobs += [(float(place[1]), place, float(place[1] - lean * place[0])) for place in spread]
    blobs.sort(key=lambda blob: -blob[0] + rng.normal(0, 0.3))
    for _, place, depth in blobs:
        lit = np.clip(0.75 - 0.45 * depth + rng.normal(0, 0.16), 0.25, 1.5)
        colour = (*np.clip(green * light * lit * 255 * 1.25, 0, 255), 255.0)
        at = (crown + place * reach).astype(int).tolist()
        axes = (int(rng.integers(2, 6)), int(rng.integers(2, 5)))
        cv2.ellipse(picture, at, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _house_picture(weather: Weather, rng: np.random.Generator) -> UInt8Array:
    """A wall with windows and a door, UINT8 [h, w, 4]."""
    height, width = 224, 352
    wall = np.array([(0.72, 0.67, 0.56), (0.78, 0.77, 0.74), (0.5, 0.3, 0.23), (0.62, 0.56, 0.46), (0.45, 0.45, 0.47)])
    light = weather.ambient + 0.4 * weather.sun_strength * np.array(weather.sun_colour)
    colour = wall[int(rng.integers(len(wall)))] * rng.uniform(0.8, 1.1)
    picture = np.ones((height, width, 3)) * colour * (1 + 0.03 * rng.standard_normal((height, width, 1)))
    picture[height - 22 :] *= 0.7
    floors, bays = int(rng.integers(1, 4)), int(rng.integers(3, 6))
    frame = np.array((0.85, 0.85, 0.83)) if rng.random() < 0.7 else np.array((0.2, 0.17, 0.15))
    door = int(rng.integers(bays))
    for floor in range(floors):
        for bay in range(bays):
            left, wide = round(width * (bay + 0.28) / bays), round(width * 0.44 / bays)
            top, tall = round(height * (floor + 0.2) / floors), round(height * 0.5 / floors)
            is_door = floor == floors - 1 and bay == door
            bottom = height if is_door else top + tall
            picture[top - 2 : bottom + 2, left - 3 : left + wide + 3] = frame
            glass = (
                np.linspace(0.8, 0.25, bottom - top)[:, np.newaxis, np.newaxis]
                * (0.4 * np.array(weather.zenith) + 0.35 * np.array(weather.horizon))
                * rng.uniform(0.2, 0.8)
            )
            lit = weather.lights_on and rng.random() < 0.35
            pane = np.array((0.95, 0.75, 0.42)) if lit else glass + 0.04
            picture[top:bottom, left : left + wide] = rng.uniform(0.08, 0.35, 3) if is_door else pane
            if not is_door:
                picture[top:bottom, left + wide // 2 - 1 : left + wide // 2 + 1] = frame
    shaded = np.clip(picture * light * 255, 0, 255)
    return np.dstack([shaded, np.full((height, width), 255.0)]).astype(np.uint8)


def _hedge_picture(weather: Weather, rng: np.random.Generator) -> UInt8Array:
    """A hedge, UINT8 [h, w, 4]."""
    light = weather.ambient + 0.4 * weather.sun_strength * np.array(weather.sun_colour)
    leaves = cv2.GaussianBlur(rng.standard_normal((64, 352)).astype(np.float32), (5, 5), 1.2) * 1.3
    shade = np.linspace(1.25, 0.6, 64)[:, np.newaxis] * (1 + 0.6 * leaves)
    picture = np.clip(shade[..., np.newaxis] * np.array([0.14, 0.21, 0.07]) * light * 255, 0, 255)
    return np.dstack([picture, np.full((64, 352), 255.0)]).astype(np.uint8)


def _halvings(size_px: int, shown_px: float) -> int:
    """Number of times to halve a picture before drawing it at a size, to avoid flicker."""
    return max(int(math.log2(max(size_px / max(shown_px, 1.0), 1.0))), 0)


def _haze_step(distance_m: float) -> int:
    return max(round(float(distance_m) / _HAZE_STEP_M), 0)


def _lay_picture(image_rgb: UInt8Array, picture: UInt8Array, corners_px: Float64Array, view: View) -> None:
    """Draw a picture over a frame, its top left, top right and bottom left corners at given points."""
    left, top, right, bottom = view.window(corners_px.astype(np.float32), 1.0)
    if min(right - left, bottom - top) < 1:
        return
    rows, columns = picture.shape[:2]
    source = np.array([[0, 0], [columns, 0], [0, rows]], np.float32)
    transform = cv2.getAffineTransform(source, (corners_px - (left, top)).astype(np.float32))
    rgba = cv2.warpAffine(picture, transform, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    Sprite(left, top, rgba).draw(image_rgb)
