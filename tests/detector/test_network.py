"""Default boxes, encoding, the network's form, and the loading of weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from ssd_triton.common.errors import WeightsError
from ssd_triton.config import BACKBONE_NAMES, Config
from ssd_triton.detector.network.boxes import decode, default_boxes_cxcywh, encode, to_cxcywh, to_xyxy
from ssd_triton.detector.network.ssd import SSD300, ServedDetector, fold_batch_norms, predict
from ssd_triton.detector.weights.file import WeightsFile


@pytest.mark.parametrize(
    ("index", "cxcywh_px"),
    [
        (0, (4, 4, 21, 21)),  # first map: smaller square, first cell
        (1, (12, 4, 21, 21)),  # columns run fastest
        (38, (4, 12, 21, 21)),
        (1444, (4, 4, 945**0.5, 945**0.5)),  # then the larger square: sqrt(21 * 45)
        (2888, (4, 4, 21 * 2**0.5, 21 / 2**0.5)),  # then the wide box
        (4332, (4, 4, 21 / 2**0.5, 21 * 2**0.5)),  # then the tall one
        (5776, (8, 8, 45, 45)),  # second map
        (8728, (150, 150, 261, 261)),  # last map
        (8729, (150, 150, (261 * 315) ** 0.5, (261 * 315) ** 0.5)),
        (8730, (150, 150, 300, 261 / 2**0.5)),  # clamped to the image
        (8731, (150, 150, 261 / 2**0.5, 300)),
    ],
)
def test_default_boxes(index: int, cxcywh_px: tuple[float, ...]) -> None:
    assert default_boxes_cxcywh()[index] * 300 == pytest.approx(cxcywh_px, rel=1e-5)


def test_there_are_8732_default_boxes() -> None:
    boxes = default_boxes_cxcywh()
    assert boxes.shape == (8732, 4)
    assert boxes.dtype == np.float32


def test_decode_by_hand() -> None:
    default = np.array([[0.5, 0.5, 0.2, 0.4]], np.float32)
    offsets = np.array([[1.0, -2.0, np.log(2) / 0.2, 0.0]], np.float32)
    # Centre moves by 0.1 * 1 * 0.2 and 0.1 * -2 * 0.4; the width doubles.
    assert decode(offsets, default)[0] == pytest.approx([0.52 - 0.2, 0.42 - 0.2, 0.52 + 0.2, 0.42 + 0.2], rel=1e-5)


def test_encode_is_the_inverse_of_decode() -> None:
    random = np.random.default_rng(1)
    defaults = default_boxes_cxcywh()
    offsets = random.normal(0, 1, defaults.shape).astype(np.float32)
    np.testing.assert_allclose(encode(decode(offsets, defaults), defaults), offsets, atol=2e-3)
    np.testing.assert_allclose(to_cxcywh(to_xyxy(defaults)), defaults, atol=1e-6)


@pytest.mark.parametrize("backbone", BACKBONE_NAMES)
def test_every_backbone_gives_8732_predictions(backbone: str) -> None:
    # Shapes alone: nothing is computed.
    with torch.inference_mode(), torch.device("meta"):
        loc, conf = SSD300(backbone, num_labels=3).eval()(torch.empty(1, 3, 300, 300))
    assert loc.shape == (1, 4, 8732)
    assert conf.shape == (1, 3, 8732)


def test_size_and_names_are_those_of_the_published_network() -> None:
    network = SSD300()
    assert sum(parameter.numel() for parameter in network.parameters()) == 22_894_902
    names = set(network.state_dict())
    assert {
        "feature_extractor.feature_extractor.0.weight",
        "feature_extractor.feature_extractor.6.5.bn3.running_var",
        "feature_extractor.feature_extractor.6.0.downsample.0.weight",
        "additional_blocks.4.4.bias",
        "loc.5.weight",
        "conf.0.bias",
    } <= names


def test_predictions_are_laid_out_as_the_default_boxes() -> None:
    """A bias on one box shape of one head must show in that shape's cells and nowhere else."""
    network = SSD300("resnet18", num_labels=3).eval()
    with torch.no_grad():
        for head in [*network.loc, *network.conf]:
            assert isinstance(head, nn.Conv2d)
            head.weight.zero_()
            assert head.bias is not None
            head.bias.zero_()
        bias = network.conf[1].bias
        assert isinstance(bias, Tensor)
        bias[2 * 6 + 4] = 1.0  # label 2, fifth of six box shapes, second map
        _, conf = network(torch.randn(1, 3, 300, 300))
    expected = torch.zeros(1, 3, 8732)
    start = 38 * 38 * 4 + 4 * 19 * 19
    expected[0, 2, start : start + 19 * 19] = 1
    assert torch.equal(conf, expected)


def test_folding_batch_norms_changes_nothing(reference_detector: ServedDetector, config: Config) -> None:
    network = WeightsFile(config.weights_path).load_network(config.backbone, 81)
    folded = ServedDetector(network).eval()
    fold_batch_norms(folded)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    images = np.random.default_rng(2).integers(0, 256, (1, 300, 300, 3), np.uint8)
    for got, expected in zip(predict(folded, images), predict(reference_detector, images), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-3)


@pytest.fixture(scope="module")
def small_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return SSD300("resnet18", num_labels=3).state_dict()


@pytest.mark.parametrize("form", ["bare", "model", "module prefix", "fp16", "safetensors", "no counters"])
def test_weights_load_from_every_form(tmp_path: Path, small_state: dict[str, Tensor], form: str) -> None:
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    state = dict(small_state)
    if form == "fp16":
        state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    if form == "no counters":
        state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    if form == "module prefix":
        state = {f"module.{key}": value for key, value in state.items()}
    if form == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state if form == "bare" else {"model": state, "epoch": 64}, path)
    loaded = WeightsFile(path).load_network("resnet18", 3).state_dict()
    tolerance = 1e-3 if form == "fp16" else 0.0
    for key, value in small_state.items():
        assert loaded[key].dtype == value.dtype
        torch.testing.assert_close(loaded[key], value, rtol=tolerance, atol=tolerance)


def test_every_misfit_is_reported_at_once(tmp_path: Path, small_state: dict[str, Tensor]) -> None:
    state = dict(small_state)
    del state["loc.0.bias"]
    state["extra.weight"] = torch.zeros(1)
    state["conf.1.bias"] = torch.zeros(7)
    state["conf.2.bias"] = torch.full_like(state["conf.2.bias"], torch.inf)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(WeightsError) as error:
        WeightsFile(tmp_path / "w.pt").load_network("resnet18", 3)
    message = str(error.value)
    for words in (
        "1 missing: loc.0.bias",
        "1 unexpected: extra.weight",
        "1 of another shape: conf.1.bias (got [7], expected [18])",
        "1 not finite: conf.2.bias",
    ):
        assert words in message
    assert "\n" not in message


def test_another_backbone_is_reported(config: Config) -> None:
    with pytest.raises(WeightsError, match=r"does not fit the network.*Set backbone"):
        WeightsFile(config.weights_path).load_network("resnet34", 81)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.pt", None, "weights not found"),
        ("empty.pt", b"", "not a readable"),
        ("text.pt", b"<html>404</html>", "not a readable"),
        ("text.safetensors", b"<html>404</html>", "not a readable"),
    ],
)
def test_unreadable_weights(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=words):
        WeightsFile(path).read_state_dict()


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "touched",))  # type: ignore[return-value]

    torch.save({"model": Payload()}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="not a readable"):
        WeightsFile(tmp_path / "w.pt").read_state_dict()
    assert not (tmp_path / "touched").exists()


def test_saving_refuses_what_fp16_cannot_hold(tmp_path: Path) -> None:
    network = SSD300("resnet18", num_labels=3)
    stem = network.feature_extractor.feature_extractor[1]
    assert isinstance(stem, nn.BatchNorm2d)
    assert stem.running_var is not None
    stem.running_var[3] = 83_615
    with pytest.raises(WeightsError, match=r"feature_extractor\.1\.running_var"):
        WeightsFile(tmp_path / "w.safetensors").save_fp16(network, {})
    assert list(tmp_path.iterdir()) == []


def test_bundled_weights_are_those_of_the_model_card(config: Config) -> None:
    card = (config.weights_path.parent / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert WeightsFile(config.weights_path).sha256 in card
