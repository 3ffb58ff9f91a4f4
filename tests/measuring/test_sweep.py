"""Sweeps of perf_analyzer: their files, and what a report makes of results."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import text_format

from ssd_triton.common.files import ROOT
from ssd_triton.common.journal import JournalError
from ssd_triton.config import Config
from ssd_triton.measuring.sweeps.comparison import compare
from ssd_triton.measuring.sweeps.errors import SweepError
from ssd_triton.measuring.sweeps.measurements import FACTS, MEASUREMENTS, Measurement, SweepFolder, read_measurements
from ssd_triton.measuring.sweeps.plots import all_pictures
from ssd_triton.measuring.sweeps.point_summary import summarize
from ssd_triton.measuring.sweeps.report import write_comparison, write_report
from ssd_triton.measuring.sweeps.server_statistics import Stage
from ssd_triton.measuring.sweeps.sweep_file import DEFAULT_SETTING, ModelTuning, Point, load_sweep, points
from ssd_triton.measuring.sweeps.sweep_plan import make_plan
from ssd_triton.measuring.sweeps.tuning import tuned_repository
from ssd_triton.serving.repository.model_config import load_model_config
from tests.conftest import assert_one_line_error
from tests.measuring.helpers import SMALL

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]
SWEEPS = sorted((ROOT / "perf" / "sweeps").glob("*.yml"))


def a_point(variant: str = "onnx_int8", model: str = "ssd", concurrency: int = 1, batch: int = 1) -> Point:
    return Point(variant, DEFAULT_SETTING, model, batch, "grpc", "none", concurrency)


def rounds(point: Point, rates: list[float], stages: tuple[Stage, ...] = ()) -> list[Measurement]:
    """Rounds with these images a second, and latencies that belong to them."""
    return [
        Measurement(
            point, number, "ok", "", None, rate, 1e3 / rate, 1e3 / rate, 1.1e3 / rate, 1.2e3 / rate, stages=stages
        )
        for number, rate in enumerate(rates, start=1)
    ]


def write_results(folder: Path, rows: list[Measurement]) -> Path:
    with SweepFolder(folder, {}) as results:
        results.write_facts({"description": "made up"})
        for row in rows:
            results.add(row)
    return folder


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_is_valid_and_its_settings_fit_the_repository(path: Path, config: Config, tmp_path: Path) -> None:
    sweep = load_sweep(path)
    assert len({str(point) for point in points(sweep, "onnx_int8")}) == len(points(sweep, "onnx_int8")) >= 6
    for number, setting in enumerate(sweep.settings.values()):
        tuned_repository(config.model_repository, setting, tmp_path / str(number))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("rounds: 1", "round: 1"), ("round", "did you mean 'rounds'")),
        (("{model: ssd,", "{modle: ssd,"), ("loads.0.modle",)),
        (("concurrency: [1]", "concurrency: [0]"), ("loads.0.concurrency.0", "greater than or equal to 1")),
        (("model: ssd,", "model: sdd,"), ("loads.0.model", "'ssd_frames'")),
        (("images: 1,", "images: 1, seconds: 2,"), ("window", "either images or seconds")),
        (("concurrency: [1]", "concurrency: [1], shared_memory: [cuda]"), ("cuda needs target gpu",)),
        (("[onnx_fp32]", "[onnx_fp64]"), ("variants: got 'onnx_fp64'", "onnx_int8")),
        (("target: cpu", "target: gpu"), ("needs a GPU", "--url")),
        (("rounds: 1", "images: nowhere"), ("got 0 images in nowhere",)),
        (("rounds: 1", "settings: {odd: {ssd_preprocess: {parameters: {threads: '1'}}}}"), ("decode_threads",)),
        (("rounds: 1", "settings: {odd: {ssd_decode: {instances: 2}}}"), ("no model 'ssd_decode'",)),
    ],
)
def test_what_is_wrong_with_a_sweep_is_one_line(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], words: tuple[str, ...]
) -> None:
    monkeypatch.setattr("ssd_triton.measuring.sweeps.sweep_plan.find_gpus", lambda: ())
    (tmp_path / "mine.yml").write_text(SMALL.replace(*change), encoding="utf-8")
    with pytest.raises(SweepError) as caught:
        make_plan(load_sweep(tmp_path / "mine.yml"), config)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_the_commands_print_their_errors(run_main: RunScript, tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text(SMALL.replace("rounds", "round"), encoding="utf-8")
    assert_one_line_error(run_main("perf/sweep.py", "mine.yml"), "mine.yml", "did you mean 'rounds'")
    assert_one_line_error(run_main("perf/report.py", "nowhere"), "no results", "ssd-triton sweep")


def test_a_setting_changes_what_it_names_and_nothing_else(config: Config, tmp_path: Path) -> None:
    setting = {
        "ssd_detector": ModelTuning(
            instances=2, dynamic_batching=False, accelerator_parameters={"num_of_threads": "1"}
        ),
        "ssd_preprocess": ModelTuning(
            max_queue_delay_us=300, preferred_batch_sizes=(4, 8), parameters={"decode_threads": "3"}
        ),
    }
    made = tuned_repository(config.model_repository, setting, tmp_path / "made")
    int8 = load_model_config(made / "ssd_detector" / "configs" / "onnx_int8.pbtxt")
    assert int8.instance_group[0].count == 2
    assert not int8.HasField("dynamic_batching")
    [accelerator] = int8.optimization.execution_accelerators.cpu_execution_accelerator
    assert dict(accelerator.parameters) == {"num_of_threads": "1"}
    preprocess = load_model_config(made / "ssd_preprocess" / "config.pbtxt")
    assert preprocess.dynamic_batching.max_queue_delay_microseconds == 300
    assert list(preprocess.dynamic_batching.preferred_batch_size) == [4, 8]
    assert preprocess.parameters["decode_threads"].string_value == "3"
    postprocess = made / "ssd_postprocess" / "config.pbtxt"
    untouched = load_model_config(config.model_repository / "ssd_postprocess" / "config.pbtxt")
    assert postprocess.read_text(encoding="utf-8") == text_format.MessageToString(untouched)
    assert (made / "ssd_postprocess" / "1").resolve() == config.model_repository / "ssd_postprocess" / "1"


# --- results and report -----------------------------------------------------------------------------------------------


def test_what_a_crash_left_of_a_line_is_dropped_and_failures_are_tried_again(tmp_path: Path) -> None:
    good = rounds(a_point(), [5.0])[0]
    failed = replace(good, round=2, status="failed", note="gone")
    write_results(tmp_path, [good, failed])
    with (tmp_path / MEASUREMENTS).open("a", encoding="utf-8") as file:
        file.write('{"point": {"vari')
    with SweepFolder(tmp_path, {}) as results:
        assert results.measurements == [good]
        assert read_measurements(tmp_path) == [good, failed]
        results.add(replace(good, round=2))
    assert read_measurements(tmp_path) == [good, replace(good, round=2)]


def test_a_full_disk_is_one_line() -> None:
    with pytest.raises(JournalError, match=r"cannot write .*--output"), SweepFolder(Path("/dev/full/x"), {}):
        pass


def test_the_report_keeps_unstable_measurements_out_and_says_so(tmp_path: Path) -> None:
    fast, slow, odd = a_point(concurrency=4), a_point("pytorch_fp32"), a_point(concurrency=64)
    stages = (
        Stage("ssd", 10, 1, 100, 0, 0, 0, 0, 0),
        Stage("ssd_detector", 10, 2, 80, 20, 1, 58, 1, 30),
        Stage("ssd_preprocess", 10, 1, 10, 0, 0, 10, 0, 10),
    )
    rows = rounds(fast, [10.0, 10.2, 9.9], stages) + rounds(slow, [5.0, 5.1, 4.9], stages)
    rows += [Measurement(odd, 1, "unstable", "no stable measurement within 8 windows")]
    bare = Point("onnx_int8", DEFAULT_SETTING, "bare", 1, "none", "none", 1)
    text = write_report(
        write_results(tmp_path, [*rows, *rounds(bare, [11.0, 11.1, 10.9])]), accuracy={"onnx_int8": 0.08}
    )
    assert "Left out: onnx_int8 ssd b1 c64 grpc, no figure in 1 rounds (unstable" in text
    assert "| `onnx_int8` | 1 | 11.00 | – | 10.00 | – | 91% | – |" in text
    assert "| `onnx_int8` | best | 11.00 | – | 10.00 | – | 91% | – |" in text
    most = "`onnx_int8`: the model of `ssd` that works most is `ssd_detector`, with 0.30 instances at work on average"
    assert f"{most} and 75% of the models' working time." in text
    written = {path.name for path in tmp_path.iterdir()}
    assert written >= {"table.csv", "summary.md", "report.html", "images_per_s.png", "latency.png", "time.png"}
    assert written >= {"overhead.png", "accuracy.png", FACTS} and "settings.png" not in written
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "time.png" in page and "settings.png" not in page
    header, *lines = (tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()
    assert header.startswith("variant,setting,model,batch") and len(lines) == 4


def test_settings_are_compared_load_by_load(tmp_path: Path) -> None:
    """Loads of the same number in flight were once drawn over each other."""
    from matplotlib.figure import Figure

    many = a_point(concurrency=8)
    loads = [many, replace(many, batch=64), replace(many, rate_share=0.5), replace(many, variant="onnx_fp32")]
    points = [replace(load, setting=setting) for setting in ("one", "two") for load in loads]
    rows = [row for number, point in enumerate(points, start=1) for row in rounds(point, [number, number])]
    words = ["ssd, 8 in flight", "ssd, batch 64, 8 in flight", "ssd, 50% of the highest rate"]
    names = [*(f"onnx_int8, {load}" for load in words), "onnx_fp32, ssd, 8 in flight"]
    text = write_report(write_results(tmp_path, rows))
    for number, name in enumerate(names, start=1):
        assert f"| one | {name} | {number}.00 ± 0% | 1.00 |" in text
        assert f"| two | {name} | {number + 4}.00 ± 0% | {(number + 4) / number:.2f} |" in text
    figure = Figure()
    all_pictures(summarize(rows), {}, {})["settings.png"][0](figure)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert [bar.get_width() for bar in axes.patches] == list(range(1, 9))


def test_the_bottleneck_is_the_member_without_idle_instances(tmp_path: Path) -> None:
    """Four of 16 instances at work are more than 0.95 of one, and far from being the limit."""
    stages = (
        Stage("ssd_detector", 10, 1, 1, 0, 0, 1, 0, 0.095, instances=1),
        Stage("ssd_preprocess", 10, 1, 1, 0, 0, 1, 0, 0.4, instances=16),
    )
    text = write_report(write_results(tmp_path, rounds(a_point(), [10_000.0, 10_000.0], stages)))
    assert "the bottleneck of `ssd` is `ssd_detector`, with 0.95 of 1 instances at work" in text
    assert "`ssd_preprocess` | 0.0 | 1.0 | 1.0 | 4.00 of 16 |" in text


def test_a_report_elsewhere_leaves_the_results_as_they_are(run_main: RunScript, tmp_path: Path) -> None:
    results = write_results(tmp_path / "results", rounds(a_point(), [10.0, 10.1]))
    write_report(results, accuracy={"onnx_int8": 0.08})
    before = {path.name: path.read_bytes() for path in results.iterdir()}
    assert run_main("perf/report.py", "results", "--output", "elsewhere").returncode == 0
    assert {path.name: path.read_bytes() for path in results.iterdir()} == before
    # The accuracy is that of the report before.
    assert (tmp_path / "elsewhere" / "accuracy.png").is_file()
    assert "accuracy.png" in (tmp_path / "elsewhere" / "report.html").read_text(encoding="utf-8")
    write_report(results)
    assert "accuracy.png" in (results / "report.html").read_text(encoding="utf-8")


def test_a_rate_that_was_not_kept_has_no_figure(tmp_path: Path) -> None:
    kept, missed = replace(a_point(), rate_share=0.5), replace(a_point(), rate_share=0.9)
    rows = [replace(row, request_rate=10.0) for row in rounds(kept, [9.9, 8.1])]
    rows += [replace(row, request_rate=18.0) for row in rounds(missed, [9.9, 17.0])]
    text = write_report(write_results(tmp_path, [*rows, *rounds(a_point(), [20.0, 20.0])]))
    assert f"{missed}: 1 of 2 rounds count (failed: 10 images/s were sent instead of 18)." in text
    assert f"{kept}:" not in text


def test_a_regression_is_named_only_outside_the_noise(tmp_path: Path) -> None:
    quiet, noisy = a_point(concurrency=1), a_point(concurrency=2)
    before = summarize(rounds(quiet, [10.0, 10.1, 9.9]) + rounds(noisy, [10.0, 13.0, 8.0]))
    same = compare(before, before)
    assert {change.verdict for change in same} == {"same"}
    worse = summarize(rounds(quiet, [3.0, 3.05, 2.95]) + rounds(noisy, [9.0, 12.0, 7.0]))
    verdicts = {(one.point, one.metric): one.verdict for one in compare(before, worse)}
    assert verdicts[quiet, "images_per_s"] == verdicts[quiet, "p95_ms"] == "worse"
    assert verdicts[noisy, "images_per_s"] == "same"
    assert {one.verdict for one in compare(worse, before) if one.point == quiet} == {"better"}
    assert "are worse." in write_comparison(tmp_path, compare(before, worse))
    assert (tmp_path / "comparison.png").stat().st_size > 1000


def test_comparison_needs_rounds_and_something_in_common() -> None:
    single = summarize(rounds(a_point(), [5.0]))
    with pytest.raises(SweepError, match="single round"):
        compare(single, single)
    with pytest.raises(SweepError, match="no measurement in common"):
        compare(single, summarize(rounds(a_point("onnx_fp32"), [5.0])))


def test_the_band_is_three_standard_errors_of_the_median() -> None:
    [summary] = summarize(rounds(a_point(), [10.0, 10.0 * math.e**0.1, 10.0 * math.e**-0.1]))
    band = summary.figures["images_per_s"].band
    assert band == pytest.approx(3 * 0.1 * math.sqrt(math.pi / 2) / math.sqrt(3))
    assert json.loads(json.dumps(summary.figures["images_per_s"].value)) == pytest.approx(10.0)
