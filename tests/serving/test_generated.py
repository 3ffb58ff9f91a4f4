"""What the build writes into the repository: limits, thresholds and numbers of classes, from one source each."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ssd_triton.common.errors import ConfigError, UserError
from ssd_triton.common.files import ROOT
from ssd_triton.common.labels import load_labels
from ssd_triton.config import Config
from ssd_triton.detector.variants import VARIANTS
from ssd_triton.serving.repository.build import ensure_built
from ssd_triton.serving.repository.generated import outdated_files, write_files
from ssd_triton.serving.repository.repository import ModelRepository

ON_GPU = [name for name, variant in VARIANTS.items() if "gpu" in variant.precisions]
DETECTIONS = ("detection_boxes", "detection_scores", "detection_classes")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The repository as it is committed, without artefacts."""
    skip = shutil.ignore_patterns("*.onnx", "*.pt", "*.plan", "*.json")
    return Path(shutil.copytree(ROOT / "model_repository", tmp_path / "model_repository", ignore=skip))


def change(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")


def bring_up_to_date(tree: Path, labels: tuple[str, ...], *, relabel: bool = False) -> list[str]:
    """Write what is out of date; the names of those files."""
    texts = outdated_files(ModelRepository(tree), labels, relabel=relabel)
    write_files(texts)
    assert outdated_files(ModelRepository(tree), labels) == {}
    return sorted(str(path.relative_to(tree)) for path in texts)


def contents(tree: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}


# --- limits and thresholds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "name", "values"),
    [("ssd_preprocess", "max_pixels", ("50000000", "4000000")), ("ssd_postprocess", "score_thresh", ("0.05", "0.1"))],
)
def test_a_changed_limit_reaches_every_variant(
    tree: Path, labels: tuple[str, ...], model: str, name: str, values: tuple[str, str]
) -> None:
    before, after = values
    change(tree / model / "config.pbtxt", f'"{before}"', f'"{after}"')
    models = [model, "ssd_preprocess_frames"] if model == "ssd_preprocess" else [model]
    written = bring_up_to_date(tree, labels)
    # Limits also reach the models that do without members.
    alone = ["ssd", "ssd_frames"] if model == "ssd_preprocess" else []
    assert [path for path in written if "/configs/" in path] == sorted(
        [f"{one}/configs/{variant}.pbtxt" for one in models for variant in ON_GPU]
        + [f"{one}/configs/pytorch_fused_fp16.pbtxt" for one in alone]
    )
    repository = ModelRepository(tree)
    for one in models:
        for variant in VARIANTS:
            assert repository.configuration(one, variant).parameters[name].string_value == after


@pytest.mark.parametrize(
    ("file", "edit", "words"),
    [
        (
            "ssd_preprocess/configs/pytorch_fp32.pbtxt",
            ('string_value: "50000000"', 'string_value: "1"'),
            [
                r"parameters\.max_pixels\.string_value is 1, expected 50000000",
                r"as config\.pbtxt and gpu\.pbtxt and engine\.pbtxt says",
            ],
        ),
        (
            "ssd_postprocess/configs/tensorrt_int8.pbtxt",
            ('string_value: "0.05"', 'string_value: "0.5"'),
            [r"score_thresh\.string_value is 0\.5, expected 0\.05", "delete the file and run 'ssd-triton build"],
        ),
        (
            "ssd_detector/config.pbtxt",
            ("count: 1", "count: 7"),
            [r"instance_group\[0\]\.count is 7, expected 1 as configs/onnx_int8\.pbtxt says"],
        ),
        (
            "ssd_preprocess/1/structured_log.py",
            ("BURST_LINES = 100", "BURST_LINES = 9"),
            [r"structured_log\.py was edited by hand: its text differs"],
        ),
        (
            "ssd_preprocess/1/untrusted.py",
            ("MAX_SCANS = 100", "MAX_SCANS = 9"),
            [r"its text differs as ssd_triton/media/untrusted\.py says"],
        ),
    ],
)
def test_an_edited_copy_is_refused(
    tree: Path, labels: tuple[str, ...], file: str, edit: tuple[str, str], words: list[str]
) -> None:
    change(tree / file, *edit)
    edited = contents(tree)
    with pytest.raises(ConfigError) as error:
        outdated_files(ModelRepository(tree), labels)
    assert file in str(error.value)
    assert "\n" not in str(error.value)
    for word in words:
        assert re.search(word, str(error.value)), error.value
    assert contents(tree) == edited
    (tree / file).unlink()
    assert bring_up_to_date(tree, labels) == [file]


def test_a_lost_copy_is_written_again(tree: Path, labels: tuple[str, ...]) -> None:
    before = contents(tree)
    shutil.rmtree(tree / "ssd_postprocess/configs")
    (tree / "ssd_detector/config.pbtxt").unlink()
    assert len(bring_up_to_date(tree, labels)) == len(ON_GPU) + 1
    assert contents(tree) == before


def test_the_one_process_of_another_variant_is_kept_up_to_date(tree: Path, labels: tuple[str, ...]) -> None:
    """Once there is a file for it, which may begin as a copy of that of the fused variant."""
    copies = []
    for model in ("ssd", "ssd_frames"):
        configs = tree / model / "configs"
        copies.append(Path(shutil.copy(configs / "pytorch_fused_fp16.pbtxt", configs / "tensorrt_fp16.pbtxt")))
    assert bring_up_to_date(tree, labels) == sorted(str(path.relative_to(tree)) for path in copies)
    repository = ModelRepository(tree)
    for model in ("ssd", "ssd_frames"):
        detector = repository.configuration(model, "tensorrt_fp16").parameters["detector"].string_value
        assert detector == "ssd_detector/1/tensorrt_fp16.plan"
        assert repository.configuration(model, "tensorrt_int8").HasField("ensemble_scheduling")
    change(copies[0], '"2"', '"3"')
    with pytest.raises(ConfigError, match=r"ssd/configs/tensorrt_fp16\.pbtxt was edited by hand"):
        outdated_files(ModelRepository(tree), labels)


@pytest.mark.parametrize("file", ["ssd_preprocess/1/untrusted.py", "ssd_postprocess/configs/tensorrt_int8.pbtxt"])
def test_a_copy_with_another_s_digest_is_written_again(tree: Path, labels: tuple[str, ...], file: str) -> None:
    """Otherwise the next change of its source would find it edited by hand."""
    before = contents(tree)
    text = (tree / file).read_text(encoding="utf-8")
    (tree / file).write_text(re.sub(r"Digest: \w+", f"Digest: {'0' * 16}", text, count=1), encoding="utf-8")
    assert bring_up_to_date(tree, labels) == [file]
    assert contents(tree) == before


def test_a_configuration_of_the_user_s_must_have_the_same_thresholds(tree: Path, labels: tuple[str, ...]) -> None:
    own = tree / "ssd_postprocess/configs/onnx_fp32.pbtxt"
    shutil.copy(tree / "ssd_postprocess/config.pbtxt", own)
    assert outdated_files(ModelRepository(tree), labels) == {}
    change(own, '"0.05"', '"0.1"')
    with pytest.raises(ConfigError, match=r"onnx_fp32\.pbtxt: score_thresh is 0\.1, expected 0\.05 as in .*config\.pb"):
        outdated_files(ModelRepository(tree), labels)


@pytest.mark.slow
def test_changed_thresholds_rebuild_both_forms_of_the_post_processing(config: Config, tmp_path: Path) -> None:
    skip = shutil.ignore_patterns("onnx_int8*", "tensorrt_*", "*.plan")
    ensure_built(config, lambda line: None, only=["pytorch_fp32", "onnx_fp32"])
    tree = Path(shutil.copytree(ROOT / "model_repository", tmp_path / "model_repository", ignore=skip))
    changed = config.model_copy(update={"model_repository": tree})
    change(tree / "ssd_postprocess/config.pbtxt", '"0.05"', '"0.1"')
    lines: list[str] = []
    ensure_built(changed, lines.append, only=["pytorch_fp32", "onnx_fp32"])
    built = [Path(line.split()[1]).name for line in lines if line.startswith("built")]
    assert built == ["model.onnx", "model.pt"]
    record = json.loads((tree / "ssd_postprocess/1/model.pt.json").read_text(encoding="utf-8"))
    assert record["inputs"]["score_thresh"] == 0.1
    assert {"torch", "numpy"} <= record["versions"].keys()


def test_the_number_of_detections_reaches_every_output(tree: Path, labels: tuple[str, ...]) -> None:
    path = tree / "ssd_postprocess/config.pbtxt"
    change(
        path,
        'key: "detections_per_img" value { string_value: "200"',
        'key: "detections_per_img" value { string_value: "50"',
    )
    bring_up_to_date(tree, labels)
    repository = ModelRepository(tree)
    for model in ("ssd", "ssd_frames", "ssd_postprocess"):
        for variant in VARIANTS:
            outputs = repository.configuration(model, variant).output
            assert {tensor.dims[0] for tensor in outputs if tensor.name in DETECTIONS} == {50}


# --- classes ----------------------------------------------------------------------------------------------------------


def test_other_classes_reach_every_configuration(tree: Path) -> None:
    labels = ("background", "cat", "dog")
    before = {path for path in tree.rglob("*.pbtxt") if re.search(r"\b81\b", path.read_text(encoding="utf-8"))}
    assert before
    written = bring_up_to_date(tree, labels)
    assert sorted(map(Path, written)) == sorted(
        [*(path.relative_to(tree) for path in before), Path("ssd_detector/labels.txt")]
    )
    assert load_labels(tree / "ssd_detector/labels.txt") == labels
    for path in tree.rglob("*.pbtxt"):
        assert not re.search(r"\b81\b", path.read_text(encoding="utf-8"))
    repository = ModelRepository(tree)
    assert repository.num_labels == 3
    for variant in VARIANTS:
        [conf] = [tensor for tensor in repository.detector(variant).output if tensor.name == "conf"]
        assert list(conf.dims) == [3, 8732]


def test_one_edited_number_of_classes_is_refused_unless_classes_are_named(tree: Path, labels: tuple[str, ...]) -> None:
    path = tree / "ssd_detector/configs/pytorch_fp32.pbtxt"
    change(path, "[ 81, 8732 ]", "[ 91, 8732 ]")
    with pytest.raises(ConfigError, match=r"pytorch_fp32\.pbtxt: conf has dims \[91, .* expected \[81, .*--labels"):
        outdated_files(ModelRepository(tree), labels)
    assert bring_up_to_date(tree, labels, relabel=True) == ["ssd_detector/configs/pytorch_fp32.pbtxt"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["cannot read the labels file", "No such file"]),
        (b"", ["got '' on the first of 1 lines", "'background'"]),
        (b"cat\ndog\n", ["got 'cat' on the first of 2 lines"]),
        (b"background\n", ["on the first of 1 lines"]),
        (b"background\ncat\n\ndog\n", ["got '' on line 3"]),
        (b"background\ncat\n cat\n", ["got ' cat' on line 3"]),
        (b"background\ncat\ndog\ncat\n", ["got 'cat' 2 times"]),
        (b"background\nca\xfft\n", ["byte 13 is not UTF-8"]),
        (b"background\n\x1b[31m\n", [r"got '\x1b[31m' on line 2"]),
        (b"background\ncat\n", ["has 2 classes, expected 81 as", "weights"]),
        (b"background\n" + b"".join(b"class %d\n" % n for n in range(90)), ["has 91 classes, expected 81 as"]),
    ],
)  # fmt: skip
def test_bad_labels_are_refused_before_anything_is_written(
    config: Config, tree: Path, tmp_path: Path, content: bytes | None, words: list[str]
) -> None:
    labels_path = tmp_path / "mine.txt"
    if content is not None:
        labels_path.write_bytes(content)
    before = contents(tree)
    own = config.model_copy(update={"model_repository": tree, "labels_path": labels_path})
    with pytest.raises(UserError) as error:
        ensure_built(own, lambda line: None, relabel=True)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)
    assert contents(tree) == before


@pytest.mark.parametrize("write", [lambda text: text.replace("\n", "\r\n"), lambda text: "\ufeff" + text])
def test_labels_from_windows_are_the_same(
    tree: Path, labels: tuple[str, ...], tmp_path: Path, write: Callable[[str], str]
) -> None:
    (tmp_path / "mine.txt").write_bytes(write("\n".join(labels) + "\n").encode())
    assert load_labels(tmp_path / "mine.txt") == labels
    assert outdated_files(ModelRepository(tree), load_labels(tmp_path / "mine.txt"), relabel=True) == {}
