"""A camera's pitch and yaw from the drive itself, refined while it runs.

Two sources are combined: the vanishing point of lane lines (:mod:`ssd_triton.driving.camera.vanishing_point`) and the
heading by the picture's motion (:mod:`ssd_triton.driving.camera.flow`). Samples without motion are ignored. The field
of view and the height stay as given: they cannot be estimated from a drive.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ssd_triton.common.arrays import FloatArray, UInt8Array
from ssd_triton.driving.camera.flow import Sample
from ssd_triton.driving.camera.model import Camera, CameraError
from ssd_triton.driving.camera.mounting import look_towards
from ssd_triton.driving.camera.vanishing_point import VanishingPoint, find_segments, find_vanishing_point

_SAMPLES_BETWEEN = 5
"""Samples between two estimates: the first comes after about a second."""
_WINDOW = 15
"""Samples that an estimate uses. They span 3 s until the calibration is sure, and 15 s after that, when samples are
taken rarely. A drift is followed with this delay."""
_HYPOTHESES, _RESAMPLES = 300, 40
"""Hypotheses and resamples in the search for the vanishing point: a tenth of the effort of ``ssd-triton calibrate``."""

PRESUMED_STD_DEG = 3.0
"""Standard deviation of a dash-cam's pitch before anything is known: the clips at hand have 2 to 4° either way."""
SURE_STD_DEG = 0.6
"""A calibration is sure up to this standard deviation. An error of this size changes a range of 20 m by 16 % at a
height of 1.3 m."""
_LANES_STD_DEG, _MOTION_STD_DEG = 0.3, 0.7
"""Errors that all frames share: slopes and bends of the road and, for motion, also the car's own pitching. On four real
drives the two sources differ by 0.1 to 0.8°."""
_FEWEST_HEADINGS = 8
_CONTRADICTION_STD = 3.0
_NORMAL_MAD = 1.4826
"""Standard deviation over the median absolute deviation, for normal errors."""

_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
"""Clockwise rotations, in degrees, that may set a picture upright, and their codes in OpenCV."""
_SAMPLES_BETWEEN_TURNS = 20
"""Samples between two checks for a rotated picture, which take ten times as long as an estimate. Until the calibration
is sure, estimates with lane lines are checked as well."""
_TURNED_FOV_DEG = 60.0
"""Any value will do: straight lines stay straight."""
_TURN_IMAGES = 5
"""Images that must agree. In all drives at hand, lane lines of the upright picture are the longest that meet."""


@dataclass(frozen=True)
class _Estimate:
    """Pitch and yaw in degrees, and the pitch's standard deviation."""

    pitch_deg: float
    yaw_deg: float
    std_deg: float


def presumed(camera: Camera) -> Camera:
    """The same camera, marked as uncalibrated with an unknown pitch: the start of :class:`SelfCalibration`."""
    return _with_pitch_error(camera, PRESUMED_STD_DEG, calibrated=False)


class SelfCalibration:
    """Estimates the mounting of a camera from samples of its drive.

    Args:
        guess: Intrinsics without lens distortion, and height; its pitch and yaw are the first guess.
        small: The same camera for the samples' images.

    Attributes:
        camera: The best camera so far; ``calibrated`` once the estimate is sure.
        std_deg: Standard deviation of the estimated pitch, without the car's own pitching.
        missing: Why the estimate is not sure, in words; empty when it is sure.
    """

    def __init__(self, guess: Camera, small: Camera) -> None:
        self._guess = replace(guess, calibrated=True, pitch_std_rad=Camera.pitch_std_rad)
        self._small = small
        self.restart()

    def restart(self) -> None:
        """Restart, as after a cut to another scene."""
        self.camera = presumed(self._guess)
        self.std_deg = PRESUMED_STD_DEG
        self.missing = "the drive has just begun"
        self._samples = self._turned_deg = 0
        self._segments: deque[FloatArray] = deque(maxlen=_WINDOW)
        self._headings_deg: deque[tuple[float, float]] = deque(maxlen=_WINDOW)
        self._images: deque[UInt8Array] = deque(maxlen=_TURN_IMAGES)

    @property
    def is_sure(self) -> bool:
        """Whether the standard deviation of the pitch is small enough to brake by ranges."""
        return self.camera.calibrated

    def observe(self, sample: Sample) -> bool:
        """Process a sample; every fifth one leads to a new estimate.

        Returns:
            Whether :attr:`camera` has changed.
        """
        if not sample.motion.is_moving:
            if not self._samples:
                unknown = sample.motion.is_moving is None
                self.missing = "nothing in the picture can be followed" if unknown else "the picture does not move"
            return False
        self._segments.append(find_segments(sample.image_rgb, self._small))
        if sample.motion.heading_deg is not None:
            self._headings_deg.append(sample.motion.heading_deg)
        if not self.is_sure:
            self._images.append(sample.image_rgb)
        self._samples += 1
        return self._samples % _SAMPLES_BETWEEN == 0 and self._estimate()

    def _estimate(self) -> bool:
        """Combine the samples so far; returns whether the camera has changed."""
        lanes, motion = self._by_lanes(), self._by_motion()
        if not self.is_sure and (lanes is not None or self._samples % _SAMPLES_BETWEEN_TURNS == _SAMPLES_BETWEEN):
            self._turned_deg = self._turn_deg()
        if self._turned_deg:
            self.missing = f"the picture seems to be turned: turn it by {self._turned_deg}° to the right"
            return False
        estimates = [item for item in (lanes, motion) if item is not None]
        best = _combined(estimates) if estimates else None
        sure = lanes is not None and best is not None and best.std_deg <= SURE_STD_DEG
        if self.is_sure and not sure:
            # Lane lines will reappear; the sure calibration stays until then.
            return False
        self.missing = "" if sure else "no lane lines that meet" if lanes is None else "lane lines and motion disagree"
        if best is None:
            return False
        self.std_deg = best.std_deg
        mounted = replace(self._guess, pitch_deg=best.pitch_deg, yaw_deg=best.yaw_deg)
        self.camera = _with_pitch_error(mounted, best.std_deg, calibrated=sure)
        return True

    def _by_lanes(self) -> _Estimate | None:
        found = _vanishing_point(list(self._segments), self._small)
        if found is None:
            return None
        camera = look_towards(self._small, *found.point)
        lower = look_towards(self._small, found.point.x_px, found.point.y_px + found.std_px[1])
        return _Estimate(
            camera.pitch_deg, camera.yaw_deg, math.hypot(lower.pitch_deg - camera.pitch_deg, _LANES_STD_DEG)
        )

    def _by_motion(self) -> _Estimate | None:
        if len(self._headings_deg) < _FEWEST_HEADINGS:
            return None
        pitches_deg = np.array(self._headings_deg)[:, 0]
        pitch_deg = float(np.median(pitches_deg))
        spread_deg = _NORMAL_MAD * float(np.median(np.abs(pitches_deg - pitch_deg)))
        # Neighbouring samples share a frame, so only half of them count. The yaw from motion includes the car's
        # turning, and is not used.
        std_deg = math.hypot(spread_deg / math.sqrt(len(pitches_deg) / 2), _MOTION_STD_DEG)
        return _Estimate(pitch_deg, self._guess.yaw_deg, std_deg)

    def _turn_deg(self) -> int:
        """The clockwise rotation after which most lane lines meet: 0 for an upright picture, and where none meet."""
        lengths = {0: _meeting_length(list(self._segments)[-_TURN_IMAGES:], self._small)}
        for turn_deg, code in _TURNS.items():
            turned = [np.ascontiguousarray(cv2.rotate(image_rgb, code)) for image_rgb in self._images]
            camera = Camera.from_fov((turned[0].shape[1], turned[0].shape[0]), _TURNED_FOV_DEG, self._guess.height_m)
            lengths[turn_deg] = _meeting_length([find_segments(image_rgb, camera) for image_rgb in turned], camera)
        return max(lengths, key=lengths.__getitem__)


def _vanishing_point(segments: list[FloatArray], camera: Camera) -> VanishingPoint | None:
    try:
        return find_vanishing_point(
            segments, (camera.width_px, camera.height_px), hypotheses=_HYPOTHESES, resamples=_RESAMPLES
        )
    except CameraError:
        return None


def _meeting_length(segments: list[FloatArray], camera: Camera) -> float:
    """Length of all segments that meet in one point, in pixels; 0 without such a point."""
    found = _vanishing_point(segments, camera)
    if found is None or found.supporting_frames < len(segments):
        return 0.0
    return float(np.linalg.norm(found.segments_px[:, 2:] - found.segments_px[:, :2], axis=1).sum())


def _combined(items: list[_Estimate]) -> _Estimate:
    """The mean weighted by certainty; contradictions widen it. The yaw is the surest one's."""
    weights = [item.std_deg**-2 for item in items]
    pitch_deg = sum(weight * item.pitch_deg for weight, item in zip(weights, items, strict=True)) / sum(weights)
    std_deg = sum(weights) ** -0.5
    apart_deg = max(item.pitch_deg for item in items) - min(item.pitch_deg for item in items)
    if apart_deg > _CONTRADICTION_STD * math.hypot(*(item.std_deg for item in items)):
        std_deg = max(std_deg, apart_deg / 2)
    return _Estimate(pitch_deg, min(items, key=lambda item: item.std_deg).yaw_deg, std_deg)


def _with_pitch_error(camera: Camera, std_deg: float, *, calibrated: bool) -> Camera:
    """The same camera, whose pitch has this error in addition to that of a calibrated one."""
    std_rad = math.hypot(math.radians(std_deg), Camera.pitch_std_rad)
    return replace(camera, pitch_std_rad=std_rad, calibrated=calibrated)
