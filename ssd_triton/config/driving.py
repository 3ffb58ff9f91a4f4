"""The camera, tracks and braking of the demonstration, and the simulated world that they are tried in."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from ssd_triton.config.section import Fraction, Score, Seconds, Section


class CameraConfig(Section):
    """A camera above a flat road, without roll: a camera file, or without one, the numbers below."""

    file: Path | None = None
    """camera file of 'ssd-triton calibrate' or of cameras/; it replaces the numbers"""
    horizontal_fov_deg: float | None = Field(default=None, gt=0, lt=180)
    """angle between the left and the right edge of the image; none: 60° along the longer side, a guess"""
    height_m: float = Field(default=1.3, gt=0, le=100)
    """height of the lens above the road"""
    pitch_deg: float | None = Field(default=None, gt=-45, lt=45)
    """pitch of the camera; positive looks down; none: 0, and 'demo' estimates pitch and yaw from the drive"""
    yaw_deg: float = Field(default=0, gt=-45, lt=45)
    """yaw of the camera beside a given pitch; positive looks to the right of the car's heading"""


class BrakingConfig(Section):
    """When to warn and when to brake. A demonstration, not a safety system."""

    ego_speed_kmh: float = Field(default=50, ge=0, le=400)
    """speed of the own car"""
    classes: tuple[str, ...] = ("person", "bicycle", "car", "motorcycle", "bus", "truck")
    """classes to warn of and brake for, by names of labels_path"""
    corridor_half_width_m: float = Field(default=1.1, gt=0, le=50)
    """half a car and a margin: what reaches into it is in the way"""
    front_overhang_m: float = Field(default=1.5, ge=0, le=20)
    """distance from the camera to the front bumper"""
    deceleration_mps2: float = Field(default=5.0, ge=0.1, le=50)
    """required deceleration that calls for BRAKE; UN R152: at least 5 m/s² of braking demand"""
    reaction_time_s: float = Field(default=0.5, ge=0, le=60)
    """time from BRAKE until the brakes bite: dead time, half of the build-up, and a margin of 0.1 s; the latency from
    camera to decision and the time to confirm are added"""
    conflict_probability: float = Field(default=0.5, gt=0, lt=1)
    """probability with which that deceleration must be required: for WARN, warning_lead_time_s later; for BRAKE after
    it, 0.6 of this probability, now"""
    least_evidence: Score = 0.35
    """lowest mean score of an object's recent detections, 0 to 1, with 0 for frames that missed it"""
    warning_lead_time_s: float = Field(default=1.3, ge=0, le=60)
    """time by which WARN comes before BRAKE is due; noise makes one of them late and the other early"""
    warning_time_s: float = Field(default=0.8, ge=0, le=60)
    """shortest WARN before BRAKE; UN R152: at least 0.8 s with a car as target"""
    urgent_ratio: float = Field(default=1.3, ge=1, le=10)
    """multiple of deceleration_mps2 that calls for BRAKE without that much WARN"""
    braking_ratio: float = Field(default=0.5, gt=0, le=1)
    """part of deceleration_mps2 that calls for BRAKE without WARN when the object in front brakes hard itself, since
    that is known late"""
    ttc_brake_s: float = Field(default=1.0, ge=0, le=60)
    """time to collision, after reaction and latency, that calls for BRAKE without a known own speed"""
    warn_confirm_frames: int = Field(default=3, ge=1, le=1000)
    """frames in a row that must call for WARN"""
    brake_confirm_frames: int = Field(default=2, ge=1, le=1000)
    """frames in a row that must call for BRAKE: fewer, since it calls for more in each of them and cannot wait"""
    confirm_time_s: float = Field(default=0.05, ge=0, le=60)
    """time that those frames must span"""
    hold_time_s: float = Field(default=2.0, ge=0, le=60)
    """time for which WARN and BRAKE last after the last frame that calls for them"""
    release_ratio: float = Field(default=0.7, gt=0, le=1)
    """part of the deceleration that reaches a state, below which the state is left"""


class ObjectSizeConfig(Section):
    """Usual size of a class, and its relative spread (standard deviation)."""

    height_m: float = Field(gt=0, le=20)
    """height"""
    width_m: float = Field(gt=0, le=20)
    """width"""
    length_m: float = Field(gt=0, le=50)
    """length"""
    overhang_m: float = Field(ge=0, le=20)
    """distance from the near face to where wheels touch the road"""
    height_spread: float = Field(gt=0, lt=1)
    """relative standard deviation of the height"""
    width_spread: float = Field(gt=0, lt=1)
    """relative standard deviation of the width"""


# Rounded from the mean sizes of the KITTI and nuScenes labels, which detectors on them take as anchors (Lang et al.,
# PointPillars, 2019; Zhu et al., CBGS, 2019): car 1.56 and 1.72 m high, 1.6 and 1.95 m wide; person 1.73 and 1.77 m;
# bus 3.47 m, truck 2.84 m; cars are lower and narrower here, since both sets count vans and off-road cars, or have many
# of them. People include children. Labels of two-wheelers there include the rider, whom COCO's classes leave out: those
# sizes are our estimates, as are all overhangs and spreads. Spreads include what a detector takes for the outline, for
# seconds on end. In the order of the fields above.
_SIZES = {
    "person": (1.7, 0.6, 0.6, 0.3, 0.2, 0.3),
    "bicycle": (1.1, 0.6, 1.7, 0.3, 0.15, 0.3),
    "car": (1.5, 1.7, 4.4, 0.7, 0.1, 0.1),
    "motorcycle": (1.2, 0.8, 2.1, 0.3, 0.15, 0.2),
    "bus": (3.2, 2.6, 11.0, 2.5, 0.12, 0.08),
    "truck": (2.9, 2.4, 7.0, 1.0, 0.2, 0.1),
}
_OBJECT_SIZES = {
    name: ObjectSizeConfig(**dict(zip(ObjectSizeConfig.model_fields, values, strict=True)))
    for name, values in _SIZES.items()
}


class TrackingConfig(Section):
    """How detections become tracks with ranges and speeds."""

    high_score_thresh: Score = 0.5
    """lowest score of detections that start tracks, 0 to 1"""
    low_score_thresh: Score = 0.2
    """lowest score of detections that continue a track, 0 to 1"""
    match_iou_thresh: Score = 0.3
    """lowest IoU of a detection with the box that is expected, 0 to 1"""
    duplicate_iou_thresh: Score = 0.7
    """IoU above which two detections of related classes (car and truck) count as one object, 0 to 1"""
    confirm_hits: int = Field(default=3, ge=1, le=1000)
    """detections until a track counts"""
    max_coast_s: Seconds = 0.5
    """time without detections after which a track ends"""
    max_gap_s: Seconds = 1.0
    """time without any frame after which all tracks end"""
    box_noise_px: float = Field(default=2.0, gt=0, le=1000)
    """absolute part of the standard deviation of a box's sides; the relative part adds in quadrature"""
    box_noise_relative: float = Field(default=0.035, ge=0, lt=1)
    """relative part of that standard deviation, of the box's size; with the bundled detector, widths of cars in front
    err by 0.014 to 0.021 in rendered traffic and by 0.023 on KITTI, and an error lasts for several frames: hence more
    here"""
    onset_noise_relative: float = Field(default=0.02, ge=0, lt=1)
    """the same for the onset test, which hardly notices errors that last: it compares the boxes of two seconds"""
    border_fraction: float = Field(default=0.02, ge=0, lt=0.5)
    """distance from the border, as a part of the image, within which a side counts as cut off"""
    pitch_std_deg: float = Field(default=0.5, gt=0, le=45)
    """standard deviation of the camera's pitch about its calibration"""
    pitch_time_constant_s: Seconds = 2.0
    """time in which the pitch changes"""
    acceleration_std_mps2: float = Field(default=2.5, gt=0, le=50)
    """standard deviation of how moving objects brake and speed up"""
    acceleration_time_constant_s: Seconds = 4.0
    """time in which that acceleration changes: who brakes goes on for some seconds"""
    speed_drift_mps: float = Field(default=0.3, gt=0, le=50)
    """standard deviation of further changes of speed within a second"""
    lateral_acceleration_std_mps2: float = Field(default=0.5, gt=0, le=50)
    """standard deviation of the lateral acceleration"""
    object_sizes: dict[str, ObjectSizeConfig] = _OBJECT_SIZES
    """usual sizes by class, from labels of KITTI and nuScenes; those of two-wheelers, all overhangs and all spreads
    are estimates"""

    def with_box_noise(self, px: float, relative: float) -> TrackingConfig:
        """The same for a detector with another noise, such as ground truth with a known one."""
        return self.model_copy(
            update={"box_noise_px": px, "box_noise_relative": relative, "onset_noise_relative": relative}
        )


class EgoConfig(Section):
    """Outer size of the own car, a compact; its camera sits at braking.front_overhang_m."""

    length_m: float = Field(default=4.3, gt=0, le=20)
    """length"""
    width_m: float = Field(default=1.8, gt=0, le=5)
    """width"""


class BrakesConfig(Section):
    """How the own car's brakes follow a demand; UN R13-H annex 3: dead time and build-up of at most 0.6 s together."""

    dead_time_s: float = Field(default=0.2, ge=0, le=10)
    """time until deceleration begins"""
    build_up_s: float = Field(default=0.4, gt=0, le=10)
    """time in which deceleration rises to the demand"""
    max_deceleration_mps2: float = Field(default=8.8, gt=0, le=20)
    """deceleration on a dry road: peak braking coefficient 0.9 (UN R152 6.1), times 9.81 m/s²"""


class EgoPitchConfig(Section):
    """How the own car pitches on its springs when it brakes: about 1° in an emergency stop."""

    deg_per_mps2: float = Field(default=0.12, ge=0, le=5)
    """nose dive for each m/s² of deceleration"""
    frequency_hz: float = Field(default=1.3, gt=0, le=20)
    """natural frequency of the springs"""
    damping: float = Field(default=0.35, ge=0, le=2)
    """damping ratio of the springs"""


class DetectionNoiseConfig(Section):
    """Errors of simulated detections."""

    box_px: float = Field(default=2.0, ge=0, le=100)
    """standard deviation of each side of a box"""
    miss_rate: Fraction = 0.02
    """part of all detections that are missed"""
    min_visible_share: Fraction = 0.4
    """smallest visible part of a target that is detected"""
    min_height_px: float = Field(default=12, ge=0)
    """smallest height of a box that is detected"""


class FalseWarningConfig(Section):
    """How many of the drives on which nobody may brake may have a warning before ``evaluate-braking`` fails."""

    ground_truth: Fraction = 0.02
    """part of the drives with detections from the ground truth"""
    full_stack: Fraction = 0.1
    """part of the drives with rendered frames through the detector"""


class SimulationConfig(Section):
    """The simulated world: ``ssd-triton evaluate-braking``, ``render-scenario`` and ``render-dataset``."""

    step_s: float = Field(default=0.005, gt=0, le=0.1)
    """time step of the simulation; a frame is taken every so many steps"""
    ego: EgoConfig = EgoConfig()
    brakes: BrakesConfig = BrakesConfig()
    pitch: EgoPitchConfig = EgoPitchConfig()
    noise: DetectionNoiseConfig = DetectionNoiseConfig()
    false_warnings: FalseWarningConfig = FalseWarningConfig()
