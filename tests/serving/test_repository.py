"""The model repository: configurations that chain, artefacts that match them, and no tie to this project."""

from __future__ import annotations

import ast
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ssd_triton.common.errors import ConfigError, WeightsError
from ssd_triton.common.files import ROOT
from ssd_triton.config import Config
from ssd_triton.detector.postprocessing.reference import OUTPUTS
from ssd_triton.detector.variants import VARIANTS
from ssd_triton.serving.repository.build import artefacts, ensure_built
from ssd_triton.serving.repository.generated import outdated_files
from ssd_triton.serving.repository.repository import ModelRepository

REPOSITORY = ROOT / "model_repository"
MODELS = ("ssd", "ssd_frames", "ssd_preprocess", "ssd_preprocess_frames", "ssd_detector", "ssd_postprocess")
ENSEMBLES = ("ssd", "ssd_frames")
MODEL_REPOSITORY = ModelRepository(REPOSITORY)
VARIANT_NAMES = MODEL_REPOSITORY.variants
NUMPY_DTYPES = {"TYPE_UINT8": np.uint8, "TYPE_INT32": np.int32, "TYPE_FP32": np.float32}


def load(model: str) -> Any:
    return MODEL_REPOSITORY.configuration(model)


def tensors(declared: Any) -> dict[str, tuple[int, list[int]]]:
    return {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in declared}


def test_every_folder_is_a_model_of_its_name() -> None:
    assert sorted(path.name for path in REPOSITORY.iterdir()) == sorted(MODELS)
    for model in MODELS:
        assert load(model).name == model
        assert (REPOSITORY / model / "1").is_dir()


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_ensembles_chain(ensemble: str) -> None:
    """Each step's inputs exist by then, with the dtype and dims that the step declares."""
    config = load(ensemble)
    available = tensors(config.input)
    for step in config.ensemble_scheduling.step:
        model = load(step.model_name)
        inputs, outputs = tensors(model.input), tensors(model.output)
        optional = {tensor.name for tensor in model.input if tensor.optional}
        assert set(step.input_map) <= set(inputs)
        assert set(inputs) - set(step.input_map) <= optional
        for name, source in step.input_map.items():
            assert available[source] == inputs[name], f"{step.model_name}.{name}"
        for name, target in step.output_map.items():
            available[target] = outputs[name]
    assert tensors(config.output).items() <= available.items()


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_ensembles_promise_the_same_detections(ensemble: str) -> None:
    assert tensors(load(ensemble).output) == tensors(load("ssd_postprocess").output)


def test_batching() -> None:
    assert {load(model).max_batch_size for model in MODELS} == {64}
    for model in set(MODELS) - set(ENSEMBLES):
        assert load(model).HasField("dynamic_batching"), model


def test_queues_are_limited() -> None:
    """Not below what the sweeps keep under way, and a client's own deadline counts."""
    detectors = {variant: MODEL_REPOSITORY.detector(variant) for variant in VARIANT_NAMES}
    others = {name: load(name) for name in ("ssd_preprocess", "ssd_postprocess")}
    others["torchscript"] = MODEL_REPOSITORY.configuration("ssd_postprocess", "tensorrt_fp16")
    for name, model in {**others, **detectors}.items():
        policy = model.dynamic_batching.default_queue_policy
        expected = {"ssd_postprocess": 128, "torchscript": 128, "onnx_fp32": 16, "onnx_int8": 16}.get(name, 64)
        assert policy.max_queue_size == expected, name
        assert policy.timeout_action == policy.REJECT
        assert policy.allow_timeout_override
        assert policy.default_timeout_microseconds == 600_000_000


def test_default_configuration_is_a_variant(config: Config) -> None:
    assert load("ssd_detector") == MODEL_REPOSITORY.detector(config.variant)


def test_variants_differ_in_nothing_that_callers_see() -> None:
    for variant in VARIANT_NAMES:
        model = MODEL_REPOSITORY.detector(variant)
        assert model.name == "ssd_detector"
        assert tensors(model.input) == tensors(load("ssd_detector").input)
        assert tensors(model.output) == tensors(load("ssd_detector").output)
        assert model.default_model_filename == VARIANTS[variant].file
        assert model.backend == VARIANTS[variant].backend
        assert model.max_batch_size == load("ssd_detector").max_batch_size


def test_post_processing_is_where_the_detector_is() -> None:
    """TorchScript for every variant that may run on a GPU, with all that callers see the same."""
    default = load("ssd_postprocess")
    for variant in VARIANT_NAMES:
        detector, own = MODEL_REPOSITORY.detector(variant), MODEL_REPOSITORY.configuration("ssd_postprocess", variant)
        assert tensors(own.input) == tensors(default.input)
        assert tensors(own.output) == tensors(default.output)
        assert [tensor.name for tensor in own.output] == list(OUTPUTS)
        assert own.max_batch_size == default.max_batch_size
        kinds = {group.kind for group in detector.instance_group}
        on_gpu = kinds != {default.instance_group[0].KIND_CPU}
        assert on_gpu == ("gpu" in VARIANTS[variant].precisions)
        assert own.backend == ("pytorch" if on_gpu else "onnxruntime")
        assert MODEL_REPOSITORY.postprocess_file(variant).name == ("model.pt" if on_gpu else "model.onnx")
        if on_gpu:
            assert {group.kind for group in own.instance_group} == {own.instance_group[0].KIND_AUTO}
            for one in (own, detector):
                assert one.parameters["FORCE_CPU_ONLY_INPUT_TENSORS"].string_value == "no"
            assert own.parameters["DISABLE_OPTIMIZED_EXECUTION"].string_value == "true"


def test_decoders_are_many_where_the_detector_is_on_a_gpu() -> None:
    """For the variants whose post-processing is there, too, and with the same limits on what is decoded."""
    default = load("ssd_preprocess")
    for variant in VARIANT_NAMES:
        own = type(default)()
        own.CopyFrom(MODEL_REPOSITORY.configuration("ssd_preprocess", variant))
        if "gpu" in VARIANTS[variant].precisions:
            assert (own.instance_group[0].count, own.parameters["decode_threads"].string_value) == (16, "1")
            own.instance_group[0].count = default.instance_group[0].count
            own.parameters["decode_threads"].string_value = default.parameters["decode_threads"].string_value
            if not VARIANTS[variant].is_fused:
                # There the GPU decodes for the ensemble; beside the one process, its members are idle.
                assert own.parameters["decode_on_gpu"].string_value == "yes"
                del own.parameters["decode_on_gpu"]
                own.instance_group[0].kind = default.instance_group[0].kind
        assert own == default


def test_every_variant_of_the_table_is_there_and_no_other() -> None:
    assert sorted(VARIANTS) == list(VARIANT_NAMES)


def test_the_tree_has_no_links() -> None:
    """Object stores and Windows lose them."""
    assert [path for path in (*REPOSITORY.rglob("*"), *(ROOT / "backends").rglob("*")) if path.is_symlink()] == []


def test_what_is_committed_is_what_the_build_writes(labels: tuple[str, ...]) -> None:
    assert outdated_files(ModelRepository(REPOSITORY), labels) == {}


def test_unknown_variant_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown variant 'onnx_fp8'; .* has: .*onnx_fp32"):
        MODEL_REPOSITORY.detector("onnx_fp8")


def test_labels_name_every_class(labels: tuple[str, ...]) -> None:
    outputs = {tensor.name: tensor for tensor in load("ssd_detector").output}
    assert outputs["conf"].dims[0] == len(labels) == 81
    assert outputs["conf"].label_filename == "labels.txt"
    assert (labels[1], labels[3], labels[80]) == ("person", "car", "toothbrush")


@pytest.mark.parametrize("model", ["ssd_detector", "ssd_postprocess"])
def test_artefacts_match_their_configuration(config: Config, model: str) -> None:
    ensure_built(config, lambda line: None, only=["onnx_int8"])
    declared = load(model)
    filename = declared.default_model_filename or "model.onnx"
    graph = onnx.load(REPOSITORY / model / "1" / filename, load_external_data=False).graph
    for kind in ("input", "output"):
        got = {
            tensor.name: (
                onnx.helper.tensor_dtype_to_np_dtype(tensor.type.tensor_type.elem_type),
                [axis.dim_value for axis in tensor.type.tensor_type.shape.dim[1:]],
            )
            for tensor in getattr(graph, kind)
        }
        names = declared.DESCRIPTOR.fields_by_name[kind].message_type.fields_by_name["data_type"].enum_type
        expected = {
            tensor.name: (np.dtype(NUMPY_DTYPES[names.values_by_number[tensor.data_type].name]), list(tensor.dims))
            for tensor in getattr(declared, kind)
        }
        assert got == expected


def test_onnx_files_load_in_old_runtimes(config: Config) -> None:
    """ONNX Runtime 1.19, which Triton 24.10 holds, reads IR version 10 and no newer."""
    ensure_built(config, lambda line: None, only=["onnx_int8"])
    for path in REPOSITORY.glob("*/1/*.onnx"):
        model = onnx.load(path, load_external_data=False)
        assert model.ir_version <= 10
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]


ENGINE = ("engine.py", "gpu_frames.py", "images.py", "kernels.py", "network.py", "pixels.py", "plan.py", "slots.py")
"""A process of its own, which needs PyTorch, and what instances load for frames in a GPU's memory."""


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("*/1/*.py")), ids=lambda p: p.parts[-3])
def test_models_import_nothing_of_this_project(path: Path) -> None:
    """They run in any container; the backends run on the embedded server, where the project is installed."""
    beside = {other.stem for other in path.parent.glob("*.py")}
    if path.name == "gpu_frames.py":  # it uses the engine's resizing
        beside |= {other.stem for other in REPOSITORY.glob("ssd/1/*.py")}
    on_gpu = {"torch", "cuda", "nvidia"} if path.name in ENGINE else set()
    allowed = {"numpy", "PIL", "triton_python_backend_utils", *on_gpu, *beside, *sys.stdlib_module_names}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        assert {name.split(".")[0] for name in names} <= allowed


def test_configurations_name_no_path() -> None:
    for path in REPOSITORY.rglob("*.pbtxt"):
        text = path.read_text(encoding="utf-8")
        assert "ssd_triton" not in text
        assert str(ROOT) not in text
        assert "EXECUTION_ENV_PATH" not in text


# --- building ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(config: Config, tmp_path: Path) -> Config:
    """A copy of the built repository that a test may change, with one variant of the detector."""
    ensure_built(config, lambda line: None, only=["onnx_fp32"])
    others = shutil.ignore_patterns("pytorch_*", "onnx_int8*", "tensorrt_*", "*.plan", "*.pt", "*.pt.json")
    shutil.copytree(REPOSITORY, tmp_path / "model_repository", ignore=others)
    return config.model_copy(update={"model_repository": tmp_path / "model_repository"})


def reasons(config: Config) -> dict[str, str | None]:
    return {artefact.path.name: artefact.stale_because() for artefact in artefacts(config)}


def replace(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")


def test_a_built_repository_is_current(copied: Config) -> None:
    assert set(reasons(copied).values()) == {None}


def test_changed_thresholds_rebuild_the_postprocessing_only(copied: Config) -> None:
    replace(copied.model_repository / "ssd_postprocess/config.pbtxt", '"0.05"', '"0.1"')
    assert reasons(copied) == {"model.onnx": "changed: score_thresh", "onnx_fp32.onnx": None}
    lines: list[str] = []
    ensure_built(copied, lines.append)
    assert [line.split()[0] for line in lines] == ["building", "built", "current"]
    assert set(reasons(copied).values()) == {None}


def test_a_file_that_is_not_what_was_built_is_rebuilt(copied: Config) -> None:
    path = copied.model_repository / "ssd_postprocess/1/model.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    assert reasons(copied)["model.onnx"] == "not the file that was built"
    path.unlink()
    assert reasons(copied)["model.onnx"] == "missing"


@pytest.mark.parametrize("record", [None, "", "[]", '{"inputs": 3}'])
def test_a_lost_record_rebuilds(copied: Config, record: str | None) -> None:
    path = copied.model_repository / "ssd_postprocess/1/model.onnx.json"
    path.unlink()
    if record is not None:
        path.write_text(record, encoding="utf-8")
    assert reasons(copied)["model.onnx"] == "no record of what it was built from"


def test_other_weights_rebuild_the_detector_only(copied: Config, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(copied.weights_path.read_bytes() + b" ")
    changed = copied.model_copy(update={"weights_path": other})
    assert reasons(changed) == {"model.onnx": None, "onnx_fp32.onnx": "changed: weights_sha256"}


def test_a_failed_build_leaves_the_old_artefact(copied: Config, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in (copied.model_repository / "ssd_detector/1").iterdir()}
    broken = copied.model_copy(update={"weights_path": tmp_path / "none.pt"})
    (tmp_path / "none.pt").write_bytes(b"no weights")
    with pytest.raises(WeightsError):
        ensure_built(broken, lambda line: None)
    assert {path.name: path.read_bytes() for path in (copied.model_repository / "ssd_detector/1").iterdir()} == before


def test_record_says_what_and_with_what(config: Config) -> None:
    ensure_built(config, lambda line: None, only=["onnx_fp32"])
    record = json.loads((REPOSITORY / "ssd_detector/1/onnx_fp32.onnx.json").read_text(encoding="utf-8"))
    assert record["inputs"]["backbone"] == "resnet50"
    assert {"python", "torch", "onnx", "onnxscript"} <= record["versions"].keys()


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('"0.05"', '"1.5"', "score_thresh: input should be less than 1"),
        ('"0.05"', '"low"', "score_thresh: input should be a valid number"),
        ('scores" data_type: TYPE_FP32 dims: [ 2', 'scores" data_type: TYPE_FP32 dims: [ 1', r"\[100\], expected"),
        ("dynamic_batching {", "dynamic_batchin {", "dynamic_batchin"),
    ],
)  # fmt: skip
def test_bad_parameters_are_named(copied: Config, before: str, after: str, words: str) -> None:
    replace(copied.model_repository / "ssd_postprocess/config.pbtxt", before, after)
    with pytest.raises(ConfigError, match=words):
        ensure_built(copied, lambda line: None)


def test_weights_without_calibration_ranges_build_all_but_int8(config: Config, tmp_path: Path) -> None:
    shutil.copy(config.weights_path, tmp_path / "mine.safetensors")
    mine = config.model_copy(update={"weights_path": tmp_path / "mine.safetensors"})
    unavailable = {artefact.path.name: artefact.unavailable_because() for artefact in artefacts(mine)}
    reason = unavailable.pop("onnx_int8.onnx")
    assert reason is not None
    assert "mine.calibration.json; measure ranges for these weights with 'ssd-triton quantize" in reason
    assert reason.endswith("or choose a variant other than INT8")
    assert {name for name, why in unavailable.items() if why is None} >= {"onnx_fp32.onnx", "pytorch_fp16.pt"}
