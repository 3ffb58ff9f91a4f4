"""The evaluation of braking: what is counted, what is judged, what is written, and what is refused."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest

from ssd_triton.common.detections import Detections
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.camera import Camera
from ssd_triton.simulation import SimulationError, find_scenario, simulate
from ssd_triton.simulation.judging.evaluate import Setup, evaluate, false_warning_share, false_warnings
from ssd_triton.simulation.judging.report import describe_setup, results_table, write_report
from tests.conftest import assert_one_line_error, assert_wrong_usage

CAMERA = Camera.from_fov((640, 360), horizontal_fov_deg=60, height_m=1.3)


@pytest.fixture
def setup(config, labels) -> Setup:  # type: ignore[no-untyped-def]  # noqa: ANN001
    return Setup(config, labels, CAMERA.scaled_to(1280, 720), fps=20.0, latency_s=0.1)


@pytest.mark.parametrize(
    ("names", "options", "word"),
    [
        ([], {}, "nothing to drive"),
        (["ccrs-10"], {"seeds": 0}, "0 seeds"),
        (["ccrs-10"], {"jobs": 0}, "0 jobs"),
        (["ccrs-10"], {"pitch_offsets_deg": (float("nan"),)}, "nan"),
        (["ccrs-10", "ccrs-10"], {}, "twice"),
    ],
)
def test_refusals(setup, names, options, word):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    with pytest.raises(SimulationError, match=word):
        evaluate(setup, [find_scenario(name) for name in names], **{"seeds": 1, **options})


def test_false_warnings_are_counted_until_something_closes_in(setup):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Where nobody may brake, every warning is false; behind a car that brakes later, those before it does."""
    safe, warn = State.SAFE, State.WARN
    counts = {}
    for name in ("oncoming", "ccrb-40m-2mps2", "ccrs-40"):
        run = simulate(
            find_scenario(name), setup.camera, setup.config.simulation, setup.labels, front_overhang_m=1.5, fps=2,
            controller=lambda time_s, detections, ego: warn if int(time_s) % 2 else safe,
        )  # fmt: skip
        counts[name] = sum(false_warnings(run, 1.5))
    # Eight seconds, warned of in every other one; the lead car brakes from 2.0 s on.
    assert counts == {"oncoming": 8, "ccrb-40m-2mps2": 2, "ccrs-40": 0}


@pytest.mark.slow
def test_processes_change_nothing(setup):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    rows = [find_scenario("ccrs-20"), find_scenario("curve-right-oncoming")]
    alone = evaluate(setup, rows, seeds=2, pitch_offsets_deg=(0.0, 0.5))
    assert [len(row.outcomes) for row in alone] == [2, 4]
    assert evaluate(setup, rows, seeds=2, pitch_offsets_deg=(0.0, 0.5), jobs=2) == alone


@pytest.mark.slow
def test_a_blind_detector_fails_and_is_reported(setup, tmp_path):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    blind = replace(setup, camera=CAMERA, fps=5.0)
    scenarios = [find_scenario(name) for name in ("ccrs-40", "cpnc-50-40", "curve-left-oncoming")]
    seen = []

    def detect(image_rgb):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        seen.append(image_rgb.shape)
        return Detections.empty()

    rows = evaluate(blind, scenarios, seeds=1, detect=detect)
    assert set(seen) == {(360, 640, 3)}
    assert [row.verdict for row in rows] == ["FAILED (1 of 1)", "reported", "passed"]
    assert rows[0].impacts_kmh == pytest.approx([40], abs=0.01)
    assert rows[2].false_brakes == {0.0: 0}
    assert false_warning_share(rows) == 0
    written = write_report(tmp_path, "braking", "Blind", rows, describe_setup(blind, "blind"))
    assert (tmp_path / "braking.failed-ccrs-40.png") in written
    assert all(path.stat().st_size > 0 for path in written)
    with (tmp_path / "braking.csv").open(encoding="utf-8") as file:
        assert [line["scenario"] for line in csv.DictReader(file)] == [row.scenario.name for row in rows]
    record = json.loads((tmp_path / "braking.json").read_text(encoding="utf-8"))
    assert record["rows"][0]["worst_impact_kmh"] == pytest.approx(40, abs=0.01)
    assert "| ccrs-40 |" in results_table(rows)


@pytest.mark.slow
def test_command(run_script, tmp_path):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    tool = "tools/evaluate_braking.py"
    result = run_script(tool, "--scenario", "ccrs-40", "--seeds", 1, "--jobs", 1, "--output", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "| passed |" in result.stdout
    assert_one_line_error(run_script(tool, "--scenario", "ccrs-41"), "ccrs-41", "did you mean", "ccrs-4")
    assert_wrong_usage(run_script(tool, "--seeds", 0), "argument --seeds", "got '0'")
