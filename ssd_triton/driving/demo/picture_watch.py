"""What the picture shows in addition to detections: calibration of the camera, cuts, and whether the car moves."""

from __future__ import annotations

import math

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.camera import Camera
from ssd_triton.driving.camera.cuts import CutDetector
from ssd_triton.driving.camera.flow import MotionSampler, Sample
from ssd_triton.driving.camera.self_calibration import SelfCalibration

_DRIVES_MPS, _STANDS_MPS = 3.0, 0.3
"""Own speeds above which the car drives, and below which it is stationary."""
_STILL_SHARE = 0.1
"""Up to this share of moving corners, only other traffic moves."""
_CONTRADICTIONS = 3
"""Samples in a row that must contradict the speed."""


class PictureWatch:
    """Watches the frames of a source.

    Args:
        camera: For images of the size of the frames; the drive itself calibrates it unless it is ``calibrated``.
        assumed: What is guessed about it and cannot be estimated from a drive, in words; empty for nothing.

    Attributes:
        camera: The best camera so far.
        cuts: Number of cuts so far.
        doubt_of_speed: How the picture contradicts the own speed, in words; empty where it does not.
    """

    def __init__(self, camera: Camera, assumed: str = "") -> None:
        self.camera = camera
        self._assumed = assumed
        self.cuts = 0
        self.doubt_of_speed = ""
        self._cut_detector = CutDetector()
        self._sampler = MotionSampler(camera)
        self._calibration = None if camera.calibrated else SelfCalibration(camera, self._sampler.camera)
        self._contradictions = 0

    def look(self, time_s: float, image_rgb: UInt8Array, ego: EgoMotion) -> bool:
        """Process a frame; returns whether it begins another scene.

        Args:
            time_s: Time of the frame; frames come in order of time.
            image_rgb: UINT8 [H, W, 3], RGB.
            ego: The ego's motion by its sensors.
        """
        is_cut = self._cut_detector.is_cut(time_s, image_rgb)
        if is_cut:
            self.cuts += 1
            self._sampler.restart()
            if self._calibration is not None:
                self._calibration.restart()
                self.camera = self._calibration.camera
        sample = self._sampler.take(time_s, image_rgb, rarely=self.camera.calibrated)
        if sample is not None:
            self._check_speed(sample, ego)
            if self._calibration is not None and self._calibration.observe(sample):
                self.camera = self._calibration.camera
        return is_cut

    @property
    def calibration(self) -> tuple[str, ...]:
        """Pitch of the camera with its standard deviation and source, and what is assumed."""
        how = "given" if self._calibration is None else "estimated" if self._calibration.is_sure else "not sure"
        std_deg = math.degrees(self.camera.pitch_std_rad) if self._calibration is None else self._calibration.std_deg
        pitch = f"pitch {self.camera.pitch_deg:.1f} ± {std_deg:.1f}° {how}"
        return (pitch, self._assumed) if self._assumed else (pitch,)

    @property
    def doubt_of_camera(self) -> str:
        """Why the camera is not calibrated, in words; empty where it is."""
        if self._calibration is None or self._calibration.is_sure:
            return ""
        return self._calibration.missing

    def _check_speed(self, sample: Sample, ego: EgoMotion) -> None:
        """Compare the own speed with the motion of the picture."""
        moved, speed_mps = sample.motion.moved_share, ego.speed_mps
        doubt = ""
        if moved is not None and speed_mps is not None:
            if speed_mps > _DRIVES_MPS and moved < _STILL_SHARE:
                doubt = "the car drives by its own speed, but the picture does not move"
            elif speed_mps < _STANDS_MPS and sample.motion.is_moving:
                doubt = "the car stands by its own speed, but the picture moves"
        self._contradictions = self._contradictions + 1 if doubt else 0
        self.doubt_of_speed = doubt if self._contradictions >= _CONTRADICTIONS else ""
