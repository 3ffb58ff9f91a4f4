"""WARN and BRAKE in the loop of the demo, and what is written about them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd_triton.common.detections import Detections
from ssd_triton.config import Config
from ssd_triton.driving.braking.ego import EgoMotion, RecordedEgo
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.demo.summary import DemoSummary
from tests.driving.demo import CAMERA, Detector, evenly, events_of, run, write_clip

CAR = 3


def car_at(range_m: float) -> Detections:
    """A car in the corridor, as the camera sees its back."""
    corners = [CAMERA.image_point(range_m, side_m, up_m) for side_m, up_m in ((-0.9, 1.5), (0.9, 0.0))]
    box = [side for corner in corners if corner is not None for side in corner]
    return Detections(np.array([box], np.float32), np.array([0.9], np.float32), np.array([CAR], np.int32))


def approach(config: Config, labels: tuple[str, ...], folder: Path, **keywords: object) -> DemoSummary:
    """15 m/s towards a standing car 60 m away, for 2.8 s."""
    clip = write_clip(folder / "clip.mp4", evenly(70))
    detector = Detector(lambda index: car_at(60 - 15 * index / 25))
    return run(config, labels, clip, detector, **keywords)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def approached(tmp_path_factory: pytest.TempPathFactory, config: Config, labels: tuple[str, ...]) -> DemoSummary:
    return approach(config, labels, tmp_path_factory.mktemp("approach"))


def test_an_approach_warns_before_it_brakes(approached: DemoSummary, config: Config) -> None:
    first = approached.first_s
    assert first[State.BRAKE] - first[State.WARN] >= config.braking.warning_time_s - 1e-6
    assert f"WARN at {first[State.WARN]:.2f} s, BRAKE at {first[State.BRAKE]:.2f} s" in str(approached)


def test_events_hold_every_change_and_every_decision(approached: DemoSummary) -> None:
    events = events_of(approached)
    changes = [(item["state_before"], item["state"]) for item in events if item["event"] == "state"]
    assert changes == [(None, "NO_DATA"), ("NO_DATA", "SAFE"), ("SAFE", "WARN"), ("WARN", "BRAKE")]
    urgent = [item for item in events if item["state"] in {"WARN", "BRAKE"}]
    assert len(urgent) == approached.state_counts[State.WARN] + approached.state_counts[State.BRAKE]
    assert [item["time_s"] for item in urgent] == pytest.approx([item["frame"] / 25 for item in urgent], abs=1e-4)  # type: ignore[operator]


def test_events_hold_the_evidence(approached: DemoSummary) -> None:
    brake = next(item for item in events_of(approached) if item["state"] == "BRAKE")
    obstacle = brake["obstacle"]
    assert isinstance(obstacle, dict)
    true_range_m = 60 - 15 * float(str(brake["time_s"]))
    assert obstacle["range_m"] == pytest.approx(true_range_m, abs=2.0)
    assert obstacle["closing_speed_mps"] == pytest.approx(15, abs=2.0)
    assert obstacle["class_name"] == "car"
    assert obstacle["in_corridor"]
    assert brake["ego_speed_kmh"] == pytest.approx(54.0)
    assert brake["latency_s"] == pytest.approx(0.1)
    assert not brake["latency_is_measured"]
    assert "car #1 at" in str(brake["reason"])


def test_the_timeline_shows_the_states_and_the_curves(approached: DemoSummary) -> None:
    with Image.open(approached.outputs.timeline) as picture:
        image = np.asarray(picture.convert("RGB")).astype(int)
    assert image.shape[0] > 600
    assert image.shape[1] > 800
    red, green, blue = np.moveaxis(image, 2, 0)
    # Bands of SAFE, WARN and BRAKE, and the blue curves.
    bands = {"safe": (green > red + 15) & (green > blue + 5), "warn": (red > 240) & (green > 215) & (blue < 205)}
    bands["brake"] = (red > 240) & (green < 210) & (blue < 210)
    for name, band in bands.items():
        assert band.mean() > 0.02, name
    assert ((blue > 150) & (red < 60) & (green < 140)).sum() > 500


def test_the_speed_may_come_from_a_record(tmp_path: Path, config: Config, labels: tuple[str, ...]) -> None:
    """The car stands: nothing to warn of, though the boxes grow; before the record begins, nothing is known."""
    record = RecordedEgo([0.1, 3.0], [EgoMotion(0.0), EgoMotion(0.0)], max_gap_s=5.0)
    summary = approach(config, labels, tmp_path, ego=record)
    assert set(summary.first_s) == {State.NO_DATA, State.SAFE}
    assert events_of(summary)[0]["ego_speed_kmh"] is None
    assert events_of(summary)[1]["ego_speed_kmh"] in {None, 0.0}
    # The frames at 0, 0.04 and 0.08 s.
    assert summary.speedless_frames == 3
    assert "no speed     3" in str(summary)
