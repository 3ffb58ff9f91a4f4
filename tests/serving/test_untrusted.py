"""Images that are made to harm: each is refused or served in no time, by the preprocessing in a process of its own."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from ssd_triton.common.model_names import PREPROCESS
from ssd_triton.config import Config
from ssd_triton.measuring.attack.files import HOSTILE_FILES, noise
from ssd_triton.measuring.fuzz.corpus import make_corpus
from ssd_triton.measuring.fuzz.decoder import DecoderProcess
from ssd_triton.measuring.fuzz.mutation import mutate
from ssd_triton.measuring.fuzz.report import fuzz_markdown, write_report
from ssd_triton.measuring.fuzz.run import fuzz_decoder
from ssd_triton.measuring.request_cases import encode

HANG_S = 5.0
MIB = 1 << 20


@pytest.fixture(scope="module")
def model_folder(config: Config) -> Path:
    return config.model_repository / PREPROCESS


@pytest.fixture(scope="module")
def decoder(model_folder: Path) -> Iterator[DecoderProcess]:
    with DecoderProcess(model_folder, HANG_S) as running:
        yield running


@pytest.mark.parametrize("case", HOSTILE_FILES)
def test_attacks_take_neither_time_nor_memory(decoder: DecoderProcess, case: str) -> None:
    hostile = HOSTILE_FILES[case]
    data = hostile.make()
    before = decoder.decode(encode(noise(), "PNG"))
    answer = decoder.decode(data)
    assert answer.outcome == ("refused" if hostile.reason else "decoded"), answer.reason
    assert hostile.reason in answer.reason
    assert answer.time_s < HANG_S
    assert answer.peak_bytes - before.peak_bytes < 3 * len(data) + 32 * MIB


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF"])
@pytest.mark.parametrize("prefix", [b"", b"data:image/any;base64,"])
def test_base64_is_named(decoder: DecoderProcess, kind: str, prefix: bytes) -> None:
    answer = decoder.decode(prefix + base64.b64encode(encode(noise(), kind)))
    assert answer.outcome == "refused"
    assert "an image in base64, expected the bytes of the file" in answer.reason


# --- The fuzzer -------------------------------------------------------------------------------------------------------


def test_the_corpus_has_every_format_and_is_decoded(decoder: DecoderProcess) -> None:
    corpus = make_corpus()
    assert corpus == make_corpus()
    assert {name.split()[0] for name in corpus} == {"JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM"}
    assert sum(map(len, corpus.values())) < 500_000
    refused = {name: answer.reason for name, data in corpus.items() if (answer := decoder.decode(data)).reason}
    several = {"GIF animation", "PNG animation", "WEBP animation", "TIFF of two pictures"}
    # Pillow writes uncompressed YCbCr, and does not read it.
    assert set(refused) == {*several, "TIFF F", "PPM PFM", "TIFF YCbCr"}


def test_mutations_can_be_repeated() -> None:
    corpus = make_corpus()
    assert [mutate(3, index, corpus) for index in range(50)] == [mutate(3, index, corpus) for index in range(50)]
    changed = [mutate(3, index, corpus)[1] not in corpus.values() for index in range(500)]
    assert sum(changed) > 450


def test_a_short_run_has_no_findings(model_folder: Path, tmp_path: Path) -> None:
    result = fuzz_decoder(model_folder, tmp_path, inputs=1000, seed=1, timeout_s=HANG_S)
    assert result.findings == []
    assert result.inputs == 1000
    kinds = {outcome for _, outcome in result.outcomes}
    assert kinds == {"decoded", "refused"}
    assert "| 1,000 inputs |" in fuzz_markdown(result)
    assert [path.name for path in write_report(result, tmp_path, seed=1)] == ["report.md", "report.json", "fuzz.png"]
    with Image.open(tmp_path / "fuzz.png") as picture:
        assert picture.width > 1000


BAD_DECODING = """
import os, signal, time
import numpy as np
class RefusedInputError(ValueError): pass
class DecodingLimits:
    from_parameters = staticmethod(dict)
kept = []
def decode(data, limits):
    if data == b"crash": os.kill(os.getpid(), signal.SIGSEGV)
    if data == b"hang": time.sleep(60)
    if data == b"raise": raise KeyError("a bug")
    if data == b"lines": raise RefusedInputError("two\\nlines")
    if data == b"shape": return np.zeros((3, 300, 300), np.uint8), (8, 8)
    if data == b"grow": kept.append(bytearray(os.urandom(1 << 20)))
    return np.zeros((300, 300, 3), np.uint8), (8, 8)
"""


@pytest.fixture
def bad_model(tmp_path: Path, model_folder: Path) -> Path:
    folder = tmp_path / PREPROCESS
    (folder / "1").mkdir(parents=True)
    (folder / "1/decoding.py").write_text(BAD_DECODING)
    (folder / "config.pbtxt").write_text((model_folder / "config.pbtxt").read_text())
    return folder


def test_every_kind_of_finding_is_found(bad_model: Path, tmp_path: Path) -> None:
    """With a model that crashes, hangs and forgets, on purpose: inputs are kept, and the run goes on."""
    inputs = [b"fine", b"crash", b"fine", b"hang", b"raise", b"lines", b"shape", b"fine"]
    result = fuzz_decoder(
        bad_model, tmp_path, inputs=8, seed=0, timeout_s=1.0, input_of=lambda index: ("x", inputs[index])
    )
    assert {kind: result.outcomes["x", kind] for kind in ("decoded", "crash", "hang", "exception")} == {
        "decoded": 3,
        "crash": 1,
        "hang": 1,
        "exception": 3,
    }
    words = ["code -11", "no answer within 1 s", "KeyError: 'a bug'", "no short line", "(3, 300, 300)"]
    assert all(word in finding for word, finding in zip(words, result.findings, strict=True)), result.findings
    assert (tmp_path / "findings/seed0-1.bin").read_bytes() == b"crash"


def test_growth_of_memory_is_found(bad_model: Path, tmp_path: Path) -> None:
    result = fuzz_decoder(bad_model, tmp_path, inputs=40, seed=0, timeout_s=5.0, input_of=lambda index: ("x", b"grow"))
    [finding] = result.findings
    assert "resident memory has grown by" in finding
