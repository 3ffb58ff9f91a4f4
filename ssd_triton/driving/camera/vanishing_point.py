"""The vanishing point of lane lines, from the frames of a drive along a straight road.

On a straight road without lane changes, lane lines are parallel to the ego's heading: their images meet in the image of
the heading, in the row of the horizon. LSD finds straight segments (Grompone von Gioi et al., "LSD: a Line Segment
Detector", IPOL 2012, in OpenCV's implementation), and RANSAC over the segments of all frames finds the point in which
most of their length meets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ssd_triton.common.arrays import Float64Array, FloatArray, UInt8Array
from ssd_triton.driving.camera.model import Camera, CameraError, ImagePoint

_SEARCHED_BELOW = 0.5
"""Share of the image's height above which segments are ignored: mostly sky, trees and buildings."""
_SHORTEST = 0.05
"""Least length of a segment, in image heights."""
_SLOPES_DEG = (12.0, 80.0)
"""Range of a segment's angle to the rows: shadows and bumpers are flatter, posts steeper."""
_END_STD = 0.7 / 1000
"""Standard deviation of a segment's ends, in image heights: LSD's accuracy, about half a pixel in common formats."""
_FRAME_STD = 5.0 / 1000
"""Standard deviation of the vanishing point from frame to frame, in image heights: about 0.2° of the car's pitching and
swaying at usual fields of view."""
_LARGEST_DEVIATIONS = 2.5
_LARGEST_ANGLE_RAD = np.radians(2.0)
"""A segment meets a point when its line passes the point within this many standard deviations, and within this angle:
otherwise short segments would meet any point."""

_HYPOTHESES = 2000
_REFINEMENTS = 10
_RESAMPLES = 200
_SEED = 20240917
"""Seed of RANSAC and the bootstrap: the same clip gives the same result."""

_MIN_FRAMES = 3
_MIN_SUPPORTED = 0.25
"""Least share of the frames with segments towards the vanishing point on both sides of it."""
_MIN_LENGTH_SHARE = 0.2
"""Least share of all segments' length that meets in the vanishing point. Four real drives had 33 to 95 %, noise and
random lines at most 13 %."""


@dataclass(frozen=True, eq=False)
class VanishingPoint:
    """The point in which lane lines meet.

    Attributes:
        point: The point in the image of the same camera without lens distortion.
        std_px: Standard deviation of its x and y, by a bootstrap over runs of frames. The true error is larger: all
            frames of a clip share the lens, and often a bend or slope of the road.
        frames: Number of frames used.
        supporting_frames: Number of frames with segments towards the point on both sides of it.
        segments_px: FP32 [n, 4], the segments that meet in it, x and y of both ends, without lens distortion.
        frame_indices: INT64 [n], the frame of each segment, counted from 0 among the frames used.
    """

    point: ImagePoint
    std_px: tuple[float, float]
    frames: int
    supporting_frames: int
    segments_px: FloatArray
    frame_indices: npt.NDArray[np.int64]


def find_segments(image_rgb: UInt8Array, camera: Camera) -> FloatArray:
    """Find straight segments in the lower half of an image that could be lane lines.

    Args:
        image_rgb: UINT8 [H, W, 3], RGB, of the camera's size.
        camera: Only its intrinsics and distortion are used.

    Returns:
        FP32 [n, 4], x and y of both ends in pixels, without lens distortion.
    """
    height_px = image_rgb.shape[0]
    top_px = round(height_px * _SEARCHED_BELOW)
    grey = cv2.cvtColor(image_rgb[top_px:], cv2.COLOR_RGB2GRAY)
    found, *_ = cv2.createLineSegmentDetector(cv2.LSD_REFINE_STD).detect(grey)
    if found is None:
        return np.zeros((0, 4), np.float32)
    # OpenCV has the first pixel's centre at (0, 0).
    ends_px = found.reshape(-1, 2) + np.array([0.5, top_px + 0.5], np.float32)
    segments_px = camera.undistorted(ends_px).reshape(-1, 4)
    across, down = np.abs(segments_px[:, 2:] - segments_px[:, :2]).T
    slope_deg = np.degrees(np.arctan2(down, across))
    low_deg, high_deg = _SLOPES_DEG
    long_enough = np.hypot(across, down) >= _SHORTEST * height_px
    kept: FloatArray = segments_px[long_enough & (low_deg <= slope_deg) & (slope_deg <= high_deg)]
    return kept


def find_vanishing_point(
    segments_by_frame: list[FloatArray],
    size_px: tuple[int, int],
    *,
    hypotheses: int = _HYPOTHESES,
    resamples: int = _RESAMPLES,
) -> VanishingPoint:
    """Find the point in which most of the segments' length meets.

    Args:
        segments_by_frame: Result of :func:`find_segments` for each frame.
        size_px: Width and height of the image; the point must lie inside.
        hypotheses: Number of intersections that RANSAC tries.
        resamples: Number of resamples of the bootstrap.

    Raises:
        CameraError: There are too few frames, or too few segments meet anywhere.
    """
    frames, height_px = len(segments_by_frame), size_px[1]
    if frames < _MIN_FRAMES:
        raise _no_lanes(f"got {frames} frames, expected {_MIN_FRAMES} or more")
    segments = np.concatenate(segments_by_frame).astype(np.float64)
    frame_of = np.repeat(np.arange(frames), [len(found) for found in segments_by_frame])
    rng = np.random.default_rng(_SEED)
    point = _best_hypothesis(segments, size_px, hypotheses, rng)
    if point is None:
        raise _no_lanes(f"no segments in {frames} frames that could meet")
    for _ in range(_REFINEMENTS):
        point = _refined(segments[_meets(segments, point, height_px)], point, height_px)
    meeting = _meets(segments, point, height_px)
    supporting = _supporting_frames(segments[meeting], frame_of[meeting])
    share = _lengths(segments[meeting]).sum() / _lengths(segments).sum()
    if supporting < max(_MIN_FRAMES, _MIN_SUPPORTED * frames) or share < _MIN_LENGTH_SHARE:
        raise _no_lanes(f"lines that meet in one point in {supporting} of {frames} frames, {share:.0%} of all segments")
    std_x_px, std_y_px = _bootstrap_std(
        segments[meeting], frame_of[meeting], point, height_px, resamples=resamples, rng=rng
    )
    return VanishingPoint(
        point=ImagePoint(float(point[0]), float(point[1])),
        std_px=(std_x_px, std_y_px),
        frames=frames,
        supporting_frames=supporting,
        segments_px=segments[meeting].astype(np.float32),
        frame_indices=frame_of[meeting],
    )


def _best_hypothesis(
    segments: Float64Array, size_px: tuple[int, int], hypotheses: int, rng: np.random.Generator
) -> Float64Array | None:
    """The intersection of a left-leaning and a right-leaning segment in which most length meets."""
    rising = _rising(segments)
    left, right = np.flatnonzero(rising), np.flatnonzero(~rising)
    if not len(left) or not len(right):
        return None
    lengths = _lengths(segments)
    left_lines, right_lines = (
        _through_ends(segments[rng.choice(side, hypotheses, p=lengths[side] / lengths[side].sum())])
        for side in (left, right)
    )
    crossings = np.cross(left_lines, right_lines)
    points = crossings[:, :2] / crossings[:, 2:]
    points = points[((points > 0) & (points < size_px)).all(axis=1)]
    if not len(points):
        return None
    scores = [lengths[_meets(segments, point, size_px[1])].sum() for point in points]
    best: Float64Array = points[int(np.argmax(scores))]
    return best


def _refined(segments: Float64Array, point: Float64Array, height_px: int) -> Float64Array:
    """The point nearest to the segments' lines, by one step of weighted least squares."""
    normals, middles, deviation_px = _lines_seen_from(segments, point, height_px)
    weights = 1 / deviation_px
    right_side = (normals * middles).sum(axis=1) * weights
    refined: Float64Array = np.linalg.lstsq(normals * weights[:, np.newaxis], right_side, rcond=None)[0]
    return refined


def _meets(segments: Float64Array, point: Float64Array, height_px: int) -> npt.NDArray[np.bool_]:
    """Whether each segment points to a point and lies below it, BOOL [n]."""
    normals, middles, deviation_px = _lines_seen_from(segments, point, height_px)
    to_point = point - middles
    miss_px = np.abs((normals * to_point).sum(axis=1))
    near = miss_px < _LARGEST_DEVIATIONS * deviation_px
    directed = miss_px < np.sin(_LARGEST_ANGLE_RAD) * np.linalg.norm(to_point, axis=1)
    below = segments[:, [1, 3]].min(axis=1) > point[1]
    meets: npt.NDArray[np.bool_] = near & directed & below
    return meets


def _lines_seen_from(
    segments: Float64Array, point: Float64Array, height_px: int
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Unit normals [n, 2], middles [n, 2], and the lines' expected distance from a point in pixels [n]."""
    directions = segments[:, 2:] - segments[:, :2]
    lengths = _lengths(segments)
    normals = np.column_stack([-directions[:, 1], directions[:, 0]]) / lengths[:, np.newaxis]
    middles = (segments[:, :2] + segments[:, 2:]) / 2
    # The error of the ends, extrapolated from the segment to the point.
    levers = 2 * np.linalg.norm(middles - point, axis=1) / lengths
    return normals, middles, height_px * np.hypot(_FRAME_STD, _END_STD * levers)


def _bootstrap_std(
    segments: Float64Array,
    frame_of: npt.NDArray[np.int64],
    point: Float64Array,
    height_px: int,
    *,
    resamples: int,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Standard deviation of x and y over resampled runs of frames.

    Consecutive frames share the car's position in its lane: single frames would count as more independent than they
    are.
    """
    frames = np.unique(frame_of)
    of_frame = [np.flatnonzero(frame_of == frame) for frame in frames]
    run = math.ceil(math.sqrt(len(frames)))
    runs = math.ceil(len(frames) / run)
    points: list[Float64Array] = []
    while len(points) < resamples:
        starts = rng.integers(len(frames) - run + 1, size=runs)
        drawn = np.concatenate([of_frame[start + step] for start in starts for step in range(run)])
        rising = _rising(segments[drawn])
        if rising.any() and not rising.all():
            points.append(_refined(segments[drawn], point, height_px))
    std_x_px, std_y_px = np.std(points, axis=0).tolist()
    return std_x_px, std_y_px


def _supporting_frames(segments: Float64Array, frame_of: npt.NDArray[np.int64]) -> int:
    """Number of frames with both left-leaning and right-leaning segments."""
    rising = _rising(segments)
    return len(np.intersect1d(frame_of[rising], frame_of[~rising]))


def _rising(segments: Float64Array) -> npt.NDArray[np.bool_]:
    """Whether each segment rises to the right, like lines to the left of the car, BOOL [n]."""
    across, down = (segments[:, 2:] - segments[:, :2]).T
    rising: npt.NDArray[np.bool_] = across * down < 0
    return rising


def _lengths(segments: Float64Array) -> Float64Array:
    lengths: Float64Array = np.linalg.norm(segments[:, 2:] - segments[:, :2], axis=1)
    return lengths


def _through_ends(segments: Float64Array) -> Float64Array:
    """The segments' lines in homogeneous coordinates, FP64 [n, 3]."""
    ones = np.ones(len(segments))
    return np.cross(np.column_stack([segments[:, :2], ones]), np.column_stack([segments[:, 2:], ones]))


def _no_lanes(got: str) -> CameraError:
    return CameraError(
        f"no lane lines found: got {got}; expected a straight road with lines on both sides; give another clip, or "
        "use the method 'points' or 'horizon'"
    )
