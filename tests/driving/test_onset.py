"""The test for the onset of braking: what it sees, when, and what it must not take for braking."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

import numpy as np
import pytest

from ssd_triton.common.detections import Detections
from ssd_triton.common.units import KMH_PER_MPS
from ssd_triton.config import Config
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.observation import observe
from ssd_triton.driving.braking.onset import NO_ONSET, Onset, OnsetTest
from tests.simulation.helpers import CAMERA

CERTAIN_STD, HARD_MPS2 = 3.5, 1.5
EGO_MPS = 50 / KMH_PER_MPS
FRAME_S = 0.05
LASTING_STD, KEPT_A_FRAME, FRAME_STD = 0.017, 0.85, 0.007
"""Errors of the bundled detector's widths and heights of a car in front, as parts of them, in rendered traffic: one
that lasts, the part of it that is left in the next frame, and one of each frame."""
Motion = Callable[[float], float]


def certainties(
    config: Config,
    labels: tuple[str, ...],
    range_m: Motion,
    *,
    seed: int = 0,
    widening: Motion = lambda _: 1.0,
    ego_mps: Motion = lambda _: EGO_MPS,
    known: bool = True,
    until_s: float = 5.0,
    noise_px: float = 2.0,
    errs_like_detector: bool = False,
) -> list[tuple[float, Onset]]:
    """Onsets by time of a car straight ahead, from boxes with noise in each side, or with the detector's errors."""
    tracking, rng, test = config.tracking, np.random.default_rng(seed), OnsetTest()
    if not errs_like_detector:
        tracking = tracking.with_box_noise(2.0, 0.0)
    size = tracking.object_sizes["car"]
    onsets, lasting = [], np.zeros(2)
    for time_s in np.arange(0, until_s, FRAME_S).tolist():
        ranged_m, (wider, higher) = range_m(time_s), (1.0, 1.0)
        if errs_like_detector:
            changed = math.sqrt(1 - KEPT_A_FRAME**2) * rng.normal(0, LASTING_STD, 2)
            lasting = KEPT_A_FRAME * lasting + changed
            wider, higher = 1 + lasting + rng.normal(0, FRAME_STD, 2)
        half_px = CAMERA.fx_px * size.width_m * widening(time_s) * wider / ranged_m / 2
        bottom_px = CAMERA.cy_px + CAMERA.fy_px * CAMERA.height_m / ranged_m
        top_px = bottom_px - CAMERA.fy_px * size.height_m * higher / ranged_m
        box = np.array([[CAMERA.cx_px - half_px, top_px, CAMERA.cx_px + half_px, bottom_px]])
        if not errs_like_detector:
            box += rng.normal(0, noise_px, box.shape)
        found = Detections(
            box.astype(np.float32), np.array([0.9], np.float32), np.array([labels.index("car")], np.int32)
        )
        [seen] = observe(found, labels, CAMERA, tracking, [labels.index("car")])
        test.predict(FRAME_S, EgoMotion(ego_mps(time_s)) if known else EgoMotion())
        test.update(seen, size)
        onsets.append((time_s, test.onset()))
    return onsets


def is_hard(onset: Onset) -> bool:
    """Whether it makes a difference."""
    return onset.certainty > CERTAIN_STD and onset.braking_mps2 > HARD_MPS2


def braking_since(start_s: float, deceleration_mps2: float, gap_m: float = 13.5) -> Motion:
    """Range of a car that drives at the ego's speed until it brakes."""
    return lambda time_s: gap_m - deceleration_mps2 * max(time_s - start_s, 0.0) ** 2 / 2


@pytest.mark.parametrize(("deceleration_mps2", "within_s"), [(6.0, 0.7), (4.0, 0.9)])
def test_braking_is_seen_early(
    config: Config, labels: tuple[str, ...], deceleration_mps2: float, within_s: float
) -> None:
    delays_s = []
    for seed in range(20):
        onsets = certainties(config, labels, braking_since(3.0, deceleration_mps2), seed=seed)
        delays_s.append(next(time_s for time_s, onset in onsets if is_hard(onset)) - 3.0)
    assert min(delays_s) > 0
    assert max(delays_s) <= within_s


def test_the_speed_and_the_braking_are_right_once_much_is_seen(config: Config, labels: tuple[str, ...]) -> None:
    final = certainties(config, labels, braking_since(3.0, 4.0), until_s=4.0, noise_px=0.1)[-1][1]
    assert final.braking_mps2 == pytest.approx(4.0, rel=0.1)
    assert final.speed_mps == pytest.approx(EGO_MPS - 4.0 * 0.95, rel=0.05)


@pytest.mark.parametrize("gap_m", [10.0, 13.5, 25.0])
def test_steady_following_is_no_braking(config: Config, labels: tuple[str, ...], gap_m: float) -> None:
    highest = [
        max(onset.certainty for _, onset in certainties(config, labels, lambda _: gap_m, seed=seed))
        for seed in range(20)
    ]
    assert np.median(highest) < 3.0
    assert sum(value > CERTAIN_STD for value in highest) <= 1


@pytest.mark.parametrize("gap_m", [8.0, 13.5])
def test_the_detector_s_errors_are_no_braking_and_hide_none(
    config: Config, labels: tuple[str, ...], gap_m: float
) -> None:
    """The onset test assumes less noise than the filters, because it hardly notices errors that last."""
    for seed in range(10):
        steady = certainties(config, labels, lambda _: gap_m, seed=seed, until_s=10.0, errs_like_detector=True)
        assert not any(is_hard(onset) for _, onset in steady)
        braking = braking_since(3.0, 6.0, gap_m)
        onsets = certainties(config, labels, braking, seed=seed, until_s=4.0, errs_like_detector=True)
        delay_s = next(time_s for time_s, onset in onsets if is_hard(onset)) - 3.0
        assert 0 < delay_s <= 0.75


@pytest.mark.parametrize("errs_like_detector", [True, False])
def test_a_car_that_turns_off_grows_wider_and_does_not_brake(
    config: Config, labels: tuple[str, ...], *, errs_like_detector: bool
) -> None:
    """Its side comes into view: 40 % wider within a second, at a height that errs by chance."""

    def wider(time_s: float) -> float:
        return 1 + 0.4 * min(max(time_s - 3.0, 0.0), 1.0) ** 2

    def brakes(seed: int) -> bool:
        onsets = certainties(
            config, labels, lambda _: 13.5, seed=seed, widening=wider, errs_like_detector=errs_like_detector
        )
        hard = [is_hard(onset) for _, onset in onsets]
        return any(map(operator.and_, hard, hard[1:]))  # two frames confirm BRAKE

    assert sum(map(brakes, range(30))) <= 3


def test_the_own_braking_is_not_the_others(config: Config, labels: tuple[str, ...]) -> None:
    """Towards a standing car, the ego brakes at 6 m/s² from 3 s on."""

    def speed(time_s: float) -> float:
        return EGO_MPS - 6.0 * max(time_s - 3.0, 0.0)

    def gap(time_s: float) -> float:
        braked_s = max(time_s - 3.0, 0.0)
        return 70.0 - EGO_MPS * time_s + 3.0 * braked_s**2

    onsets = certainties(config, labels, gap, ego_mps=speed, until_s=4.5)
    assert not any(is_hard(onset) for _, onset in onsets)


def test_without_the_own_speed_nothing_is_known(config: Config, labels: tuple[str, ...]) -> None:
    onsets = certainties(config, labels, braking_since(3.0, 6.0), known=False)
    assert {onset for _, onset in onsets} == {NO_ONSET}


def test_a_short_history_tells_nothing(config: Config, labels: tuple[str, ...]) -> None:
    assert OnsetTest().onset() == NO_ONSET
    early = certainties(config, labels, braking_since(0.0, 6.0), until_s=0.9)
    assert all(math.isclose(onset.certainty, 0.0) for _, onset in early)
