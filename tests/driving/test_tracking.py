"""From boxes to objects: sides, ranges, tracks by time; by values worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ssd_triton.common.boxes import iou_matrix
from ssd_triton.common.detections import Detections
from ssd_triton.config import Config
from ssd_triton.driving.braking.box_model import raw_ranges
from ssd_triton.driving.braking.corridor import Corridor
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.observation import Observation, observe
from ssd_triton.driving.braking.pipeline import BrakingPipeline
from ssd_triton.driving.braking.ranging import RangeFilter
from ssd_triton.driving.braking.scale import ScaleFilter
from ssd_triton.driving.camera import Camera
from tests.driving.boxes import RoadUser, detections_of

CAMERA = Camera.from_fov((1000, 600), horizontal_fov_deg=90, height_m=1.25)
"""Its focal length is 500 px and its horizon row 300."""

Box = tuple[float, float, float, float]


def make_detections(labels: tuple[str, ...], *items: tuple[str, float, Box]) -> Detections:
    """Of class names, scores and boxes."""
    return Detections(
        np.array([box for _, _, box in items], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in items], np.float32),
        np.array([labels.index(name) for name, _, _ in items], np.int32),
    )


def seen(config: Config, labels: tuple[str, ...], *items: tuple[str, float, Box]) -> list[Observation]:
    return observe(make_detections(labels, *items), labels, CAMERA, config.tracking, [1, 3, 8])


# --- Observations -----------------------------------------------------------------------------------------------------


def test_nothing_is_seen(config: Config, labels: tuple[str, ...]) -> None:
    assert observe(Detections.empty(), labels, CAMERA, config.tracking, [1, 3]) == []


def test_iou_of_no_boxes() -> None:
    assert iou_matrix(np.zeros((0, 4)), np.zeros((3, 4))).shape == (0, 3)


@pytest.mark.parametrize(
    ("items", "kept"),
    [
        ([("dog", 0.9, (10, 10, 90, 90))], []),
        ([("car", 0.9, (10, 10, 10, 90))], []),
        ([("car", 0.1, (10, 10, 90, 90))], []),
        # NMS is by class: a car that is found as a truck too is one object, a person in front of it another.
        ([("car", 0.9, (10, 10, 90, 90)), ("truck", 0.8, (11, 10, 90, 90))], ["car"]),
        ([("truck", 0.9, (10, 10, 90, 90)), ("car", 0.8, (11, 10, 90, 90))], ["truck"]),
        ([("car", 0.9, (10, 10, 90, 90)), ("person", 0.8, (11, 10, 90, 90))], ["car", "person"]),
        ([("car", 0.9, (10, 10, 90, 90)), ("car", 0.8, (60, 10, 140, 90))], ["car", "car"]),
    ],
)
def test_what_counts(
    config: Config, labels: tuple[str, ...], items: list[tuple[str, float, Box]], kept: list[str]
) -> None:
    assert [item.class_name for item in seen(config, labels, *items)] == kept


@pytest.mark.parametrize(
    ("box", "cut"),
    [
        ((100, 200, 300, 400), (False, False, False, False)),
        ((0, 200, 300, 400), (True, False, False, False)),
        ((-30, 5, 300, 400), (True, True, False, False)),
        ((100, 200, 995, 400), (False, False, True, False)),
        ((100, 200, 300, 598), (False, False, False, True)),
        ((100, 200, 300, 640), (False, False, False, True)),
    ],
)
def test_sides_that_the_image_cuts(
    config: Config, labels: tuple[str, ...], box: Box, cut: tuple[bool, bool, bool, bool]
) -> None:
    [item] = seen(config, labels, ("car", 0.9, box))
    assert item.cut == cut
    assert item.known == tuple(not side for side in cut)


def test_a_nearer_box_hides_sides(config: Config, labels: tuple[str, ...]) -> None:
    near, far = seen(config, labels, ("car", 0.9, (500, 300, 700, 450)), ("car", 0.8, (450, 310, 520, 360)))
    assert near.hidden == (False, False, False, False)
    assert far.hidden == (False, False, True, False)


def test_directions_take_pitch_and_yaw_into_account(config: Config, labels: tuple[str, ...]) -> None:
    turned = Camera.from_fov((1000, 600), 90, height_m=1.25, pitch_deg=6, yaw_deg=-4)
    corners = [turned.image_point(20.0, y, up) for y in (-0.5, 0.5) for up in (0.0, 1.5)]
    xs, ys = zip(*[corner for corner in corners if corner is not None], strict=True)
    found = make_detections(labels, ("car", 0.9, (min(xs), min(ys), max(xs), max(ys))))
    [item] = observe(found, labels, turned, config.tracking, [3])
    assert item.directions == pytest.approx([-0.5 / 20, -0.25 / 20, 0.5 / 20, 1.25 / 20], abs=5e-4)


# --- Ranges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "ground_m", "size_m"),
    [
        # 50 px below the horizon: 1.25 m · 500 px / 50 px, and 60 px high: 1.5 m · 500 px / 60 px. The wheels are 0.7 m
        # behind the near face, the outline half as much.
        ((450, 290, 550, 350), 12.5 - 0.7, 12.5 - 0.35),
        # Cut off below: the width of 85 px tells, 1.7 m · 500 px / 85 px.
        ((400, 290, 485, 600), None, 10.0 - 0.35),
        # Cut off below and at a side.
        ((0, 290, 490, 600), None, None),
        # Above the horizon.
        ((450, 230, 550, 290), None, 12.5 - 0.35),
    ],
)
def test_raw_ranges(
    config: Config, labels: tuple[str, ...], box: Box, ground_m: float | None, size_m: float | None
) -> None:
    [item] = seen(config, labels, ("car", 0.9, box))
    raw = raw_ranges(item, config.tracking.object_sizes["car"], CAMERA.height_m)
    assert raw.from_ground_m == (None if ground_m is None else pytest.approx(ground_m))
    assert raw.from_size_m == (None if size_m is None else pytest.approx(size_m))


@pytest.mark.parametrize("pitch_error_deg", [-0.5, 0.0, 0.5])
@pytest.mark.parametrize("range_m", [10.0, 30.0, 50.0])
def test_size_mends_a_wrong_pitch(
    config: Config, labels: tuple[str, ...], range_m: float, pitch_error_deg: float
) -> None:
    """The ground contact alone would be wrong by 8 to 60 %; the filtered one is not, and does not claim to be exact."""
    car = RoadUser(range_m, size_m=(1.8, 1.5, 4.4))
    found = detections_of(CAMERA.with_pitch(pitch_error_deg), labels, car)
    [item] = observe(found, labels, CAMERA, config.tracking.with_box_noise(2, 0), [3])
    size = config.tracking.object_sizes["car"].model_copy(update={"overhang_m": 0.0})
    ranging = RangeFilter(item, EgoMotion(), size, CAMERA, config.tracking)
    for _ in range(20):
        ranging.predict(0.05, EgoMotion())
        ranging.update(item)
    assert ranging.range_m == pytest.approx(range_m, rel=0.07)
    assert abs(ranging.range_m - range_m) < 2 * ranging.range_std_m
    assert ranging.range_std_m > 0.02 * range_m


@pytest.mark.parametrize("ego_known", [True, False])
def test_closing_speed_and_both_times_to_collision(config: Config, labels: tuple[str, ...], ego_known: bool) -> None:
    """A stationary car, from 40 m on, at 10 m/s: 2 s before the camera reaches it."""
    rng = np.random.default_rng(1)
    tracking = config.tracking.with_box_noise(1, 0)
    motion = EgoMotion(10.0) if ego_known else EgoMotion()
    ranging = scale = None
    for frame in range(41):
        found = detections_of(CAMERA, labels, RoadUser(40.0 - 10.0 * 0.05 * frame), noise_px=1.0, rng=rng)
        [item] = observe(found, labels, CAMERA, tracking, [3])
        if ranging is None or scale is None:
            size = tracking.object_sizes["car"].model_copy(update={"overhang_m": 0.0})
            ranging = RangeFilter(item, motion, size, CAMERA, tracking)
            scale = ScaleFilter(item, use_width=True)
        else:
            ranging.predict(0.05, motion)
            scale.predict(0.05)
            ranging.update(item)
            scale.update(item)
    assert ranging is not None and scale is not None
    assert ranging.range_m == pytest.approx(20.0, rel=0.06)
    assert ranging.closing_speed_mps == pytest.approx(10.0, abs=3 * ranging.closing_speed_std_mps)
    assert 1 / ranging.closing_rate_per_s == pytest.approx(2.0, rel=0.2)
    assert 1 / scale.rate_per_s == pytest.approx(2.0, rel=0.2)


def test_the_ego_brakes_is_not_the_object_speeding_up(config: Config, labels: tuple[str, ...]) -> None:
    [item] = seen(config, labels, ("car", 0.9, (450, 290, 550, 350)))
    size = config.tracking.object_sizes["car"]
    ranging = RangeFilter(item, EgoMotion(20.0), size, CAMERA, config.tracking)
    before = ranging.closing_speed_mps
    ranging.predict(0.1, EgoMotion(19.0))
    # Less what the hypotheses exchange.
    assert ranging.closing_speed_mps == pytest.approx(before - 1.0, abs=0.1)


def test_without_its_own_speed_nothing_is_known_to_stand(config: Config, labels: tuple[str, ...]) -> None:
    [item] = seen(config, labels, ("person", 0.9, (450, 290, 550, 350)))
    ranging = RangeFilter(item, EgoMotion(20.0), config.tracking.object_sizes["person"], CAMERA, config.tracking)
    assert ranging.standing > 0.5
    for _ in range(2):
        ranging.predict(0.1, EgoMotion())
    assert ranging.standing == 0.0


def test_filters_together_do_what_each_does_alone(config: Config, labels: tuple[str, ...]) -> None:
    """One of them has a box whose sides are all at the image's border, and so no measurement."""
    boxes = [(450, 290, 550, 350), (100, 250, 220, 400), (0, 0, 960, 540)]
    first = [seen(config, labels, ("car", 0.9, box))[0] for box in boxes]
    size, ego = config.tracking.object_sizes["car"], EgoMotion(10.0)
    alone, together = ([RangeFilter(item, ego, size, CAMERA, config.tracking) for item in first] for _ in range(2))
    for _ in range(3):
        RangeFilter.predict_all(together, 0.1, ego)
        RangeFilter.update_all(together, first)
        for ranging, item in zip(alone, first, strict=True):
            ranging.predict(0.1, ego)
            ranging.update(item)
    for one, other in zip(alone, together, strict=True):
        assert one.range_m == pytest.approx(other.range_m)
        assert one.closing_speed_std_mps == pytest.approx(other.closing_speed_std_mps)
        assert one.unmeasured_s == other.unmeasured_s


# --- Corridor ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ego", "curvature_per_m"),
    [
        (EgoMotion(), 0.0),
        (EgoMotion(10.0), 0.0),
        (EgoMotion(None, 0.5), 0.0),
        # ISO 8855: a positive yaw rate turns to the left, which is a negative curvature.
        (EgoMotion(10.0, 0.1), -0.01),
        (EgoMotion(10.0, -0.1), 0.01),
        (EgoMotion(1.0, 0.1), 0.0),
        (EgoMotion(3.0, 30.0), -0.2),
    ],
)
def test_curvature(ego: EgoMotion, curvature_per_m: float) -> None:
    assert Corridor.ahead_of(ego, 1.1).curvature_per_m == pytest.approx(curvature_per_m)


@pytest.mark.parametrize(
    ("curvature_per_m", "forward_m", "lateral_m", "offset_m"),
    [
        (0.0, 30.0, 1.5, 1.5),
        # A circle of 50 m to the right passes (30, 10) and (40, 20); 1 m nearer to its centre is 1 m to the right.
        (0.02, 30.0, 10.0, 0.0),
        (0.02, 40.0, 20.0, 0.0),
        (0.02, 0.0, 1.0, 1.0),
        (0.02, 30.0 * 0.98, 50 - 40 * 0.98, 1.0),
        (-0.02, 30.0, -10.0, 0.0),
        (-0.02, 30.0 * 0.98, -(50 - 40 * 0.98), -1.0),
    ],
)
def test_offset_from_a_bend(curvature_per_m: float, forward_m: float, lateral_m: float, offset_m: float) -> None:
    corridor = Corridor(1.1, curvature_per_m)
    assert corridor.offset_m(forward_m, lateral_m) == pytest.approx(offset_m, abs=1e-9)
    assert corridor.lateral_m(forward_m, offset_m) == pytest.approx(lateral_m, abs=1e-9)


def test_a_bend_ends_where_the_circle_turns_back() -> None:
    assert Corridor(1.1, 0.02).lateral_m(51.0) is None


# --- Tracks -----------------------------------------------------------------------------------------------------------


class Follower:
    """A pipeline that is shown road users at given places."""

    def __init__(self, config: Config, labels: tuple[str, ...]) -> None:
        self._labels = labels
        self.pipeline = BrakingPipeline(CAMERA, labels, config.braking, config.tracking.with_box_noise(1, 0))

    def show(self, time_s: float, *users: RoadUser, score: float = 0.9) -> dict[int, str]:
        """Show a frame; gives the classes of the tracks by their numbers."""
        found = detections_of(CAMERA, self._labels, *users)
        found = replace(found, scores=np.full_like(found.scores, score))
        objects = self.pipeline.step(time_s, found, EgoMotion()).objects
        return {item.track_id: item.class_name for item in objects}


@pytest.fixture
def follower(config: Config, labels: tuple[str, ...]) -> Follower:
    return Follower(config, labels)


def test_a_track_counts_from_its_third_detection(follower: Follower) -> None:
    car = RoadUser(20.0)
    assert [follower.show(0.1 * n, car) for n in range(4)] == [{}, {}, {1: "car"}, {1: "car"}]


def test_a_single_detection_is_forgotten(follower: Follower) -> None:
    follower.show(0.0, RoadUser(20.0))
    follower.show(0.1)
    assert [follower.show(0.1 * n, RoadUser(20.0)) for n in (2, 3, 4)] == [{}, {}, {2: "car"}]


@pytest.mark.parametrize(("absent_s", "number"), [(0.4, 1), (0.8, 2)])
def test_a_track_outlives_a_short_absence(follower: Follower, absent_s: float, number: int) -> None:
    car = RoadUser(20.0)
    for frame in range(5):
        follower.show(0.1 * frame, car)
    for frame in range(1, round(absent_s / 0.1)):
        follower.show(0.4 + 0.1 * frame)
    back_s = 0.4 + absent_s
    tracks = [follower.show(back_s + 0.1 * frame, car) for frame in range(3)]
    assert list(tracks[-1]) == [number]


def test_low_scores_continue_tracks_and_start_none(follower: Follower) -> None:
    car, other = RoadUser(20.0), RoadUser(20.0, 5.0)
    for frame in range(3):
        follower.show(0.1 * frame, car)
    assert [follower.show(0.3 + 0.1 * frame, car, other, score=0.3) for frame in range(4)] == [{1: "car"}] * 4


def test_classes_are_voted_on(follower: Follower) -> None:
    car, truck = RoadUser(20.0), RoadUser(20.0, class_name="truck")
    names = [follower.show(0.1 * n, shown) for n, shown in enumerate([car, car, car, truck, truck, truck, truck])]
    assert names[-3:] == [{1: "car"}, {1: "car"}, {1: "truck"}]


def test_tracks_that_cross_keep_their_numbers(config: Config, labels: tuple[str, ...]) -> None:
    """A pedestrian walks behind a parked car's edge and on; both keep their numbers."""
    car, follower, numbers = RoadUser(12.0, 1.8), Follower(config, labels), []
    for frame in range(60):
        walker = RoadUser(18.0, -4.0 + 1.5 * frame / 15, "person", (0.5, 1.75, 0.5))
        numbers.append(follower.show(frame / 15, walker, car))
    assert set(map(tuple, (sorted(item.items()) for item in numbers[3:]))) == {((1, "person"), (2, "car"))}


def test_frames_may_be_dropped(config: Config, labels: tuple[str, ...]) -> None:
    """Tracks are moved on by time: at 30 frames a second with half of them dropped at random, speeds stay right."""
    rng = np.random.default_rng(3)
    pipeline = BrakingPipeline(CAMERA, labels, config.braking, config.tracking.with_box_noise(0.5, 0))
    decision = None
    for frame in range(75):
        if rng.random() < 0.5:
            found = detections_of(CAMERA, labels, RoadUser(60.0 - 15.0 * frame / 30), noise_px=0.5, rng=rng)
            decision = pipeline.step(frame / 30, found, EgoMotion(15.0))
    assert decision is not None
    [item] = decision.objects
    assert item.closing_speed_mps == pytest.approx(15.0, abs=1.5)
    assert item.age_s > 2


def test_ranges_without_any_side_are_not_made_up(config: Config, labels: tuple[str, ...]) -> None:
    """A box that fills the image tells only that the object is nearer than the image's lower border."""
    pipeline = BrakingPipeline(CAMERA, labels, config.braking, config.tracking)
    for frame in range(4):
        found = make_detections(labels, ("truck", 0.9, (-5, -5, 1005, 605)))
        decision = pipeline.step(0.1 * frame, found, EgoMotion(0.0))
    [item] = decision.objects
    assert (item.range_from_ground_m, item.range_from_size_m) == (None, None)
    assert item.range_m <= 1.25 * 500 / 300 + 1e-6
    assert math.isfinite(item.range_std_m)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_that_a_detector_says_breaks_the_filters(config: Config, labels: tuple[str, ...], seed: int) -> None:
    """Boxes that jump, vanish, grow past the image and change class; times that jump; speeds that come and go."""
    rng, time_s = np.random.default_rng(seed), 0.0
    pipeline = BrakingPipeline(CAMERA, labels, config.braking, config.tracking)
    boxes = rng.uniform(0, 600, (6, 4))
    for _ in range(300):
        time_s += float(rng.choice([0.001, 0.05, 0.3, 1.5], p=[0.1, 0.7, 0.15, 0.05]))
        boxes = boxes * rng.normal(1, 0.02, (6, 4)) + rng.normal(0, 5, (6, 4))
        jump = rng.random(6) < 0.05
        boxes[jump] = rng.uniform(-300, 1300, (int(jump.sum()), 4))
        shown = np.sort(boxes.reshape(6, 2, 2), axis=1).reshape(6, 4)[rng.random(6) < 0.8]
        found = Detections(
            shown.astype(np.float32),
            rng.uniform(0.3, 1, len(shown)).astype(np.float32),
            rng.choice([1, 2, 3, 8], len(shown)).astype(np.int32),
        )
        ego = EgoMotion(*rng.uniform(0, 1, 2) * (30, 0.5)) if rng.random() < 0.8 else EgoMotion()
        for item in pipeline.step(time_s, found if rng.random() < 0.95 else None, ego).objects:
            figures = (
                item.range_m,
                item.range_std_m,
                item.closing_speed_mps,
                item.closing_speed_std_mps,
                item.offset_m,
            )
            assert all(math.isfinite(figure) for figure in figures), item
