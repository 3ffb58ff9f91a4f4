"""Runs the fuzzer, counts outcomes, and keeps the inputs of findings."""

from __future__ import annotations

import collections
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ssd_triton.client import ClientError, DetectorClient, RequestRefusedError
from ssd_triton.common.files import atomic_output
from ssd_triton.common.in_flight import submit_ahead
from ssd_triton.common.progress import progress
from ssd_triton.measuring.fuzz.corpus import make_corpus
from ssd_triton.measuring.fuzz.decoder import DecodeResult, DecoderProcess
from ssd_triton.measuring.fuzz.mutation import mutate

MAX_GROWTH_FRACTION = 0.05
"""Largest relative growth of resident memory, from the second tenth of a run to the last one."""
MAX_GROWTH_BYTES = 16 << 20
"""Growth below this is not a finding, since allocators keep some memory."""
MAX_PEAK_BYTES = 2 << 30
"""Largest peak memory: an image of max_pixels takes about 1 GB in PIL's widest modes."""
_SAMPLES = 2000


@dataclass
class FuzzResult:
    """Counts and findings of a run.

    Attributes:
        inputs: Number of inputs.
        outcomes: Inputs by format (the first word of a file's name in the corpus) and outcome.
        reasons: Refusals by their first words.
        times_s: Time of each input.
        resident_bytes: Samples of resident memory, spread over the run.
        peak_bytes: Highest resident memory.
        findings: Findings, one line each; their inputs are kept.
    """

    inputs: int = 0
    outcomes: collections.Counter[tuple[str, str]] = field(default_factory=collections.Counter)
    reasons: collections.Counter[str] = field(default_factory=collections.Counter)
    times_s: list[float] = field(default_factory=list)
    resident_bytes: list[int] = field(default_factory=list)
    peak_bytes: int = 0
    findings: list[str] = field(default_factory=list)

    def growth_bytes(self) -> int:
        """Growth of resident memory from the second tenth of the run to the last one."""
        tenth = len(self.resident_bytes) // 10
        if tenth == 0:
            return 0
        early = statistics.median(self.resident_bytes[tenth : 2 * tenth])
        return int(statistics.median(self.resident_bytes[-tenth:]) - early)


def fuzz_decoder(
    model_folder: Path,
    output: Path,
    *,
    inputs: int,
    seed: int,
    timeout_s: float,
    input_of: Callable[[int], tuple[str, bytes]] | None = None,
) -> FuzzResult:
    """Decode mutated images in a separate process.

    Args:
        model_folder: Folder ``ssd_preprocess`` of a model repository.
        output: Folder for the inputs of findings.
        inputs: Number of inputs.
        seed: Seed of the mutations.
        timeout_s: Time limit for an input.
        input_of: Returns file name and bytes of an input by its number; None takes mutations of the corpus.

    Raises:
        ServerError: Triton's python backend is not installed.
    """
    result = FuzzResult()
    make_input = input_of or _mutations(seed)
    every = max(1, inputs // _SAMPLES)
    with DecoderProcess(model_folder, timeout_s) as decoder:
        for index in progress(range(inputs), total=inputs, description="fuzz", unit="inputs"):
            name, data = make_input(index)
            answer = decoder.decode(data)
            _count(result, name, answer)
            if answer.outcome not in ("decoded", "refused"):
                _keep(result, output, f"seed{seed}-{index}", data, f"{answer.outcome}: {answer.reason}")
            elif answer.peak_bytes > MAX_PEAK_BYTES >= result.peak_bytes:
                _keep(result, output, f"seed{seed}-{index}", data, f"took {answer.peak_bytes >> 20} MiB")
            result.peak_bytes = max(result.peak_bytes, answer.peak_bytes)
            if answer.resident_bytes and index % every == 0:
                result.resident_bytes.append(answer.resident_bytes)
    growth = result.growth_bytes()
    if result.resident_bytes and growth > max(MAX_GROWTH_BYTES, MAX_GROWTH_FRACTION * result.resident_bytes[-1]):
        result.findings.append(f"resident memory has grown by {growth >> 20} MiB")
    return result


def fuzz_server(client: DetectorClient, output: Path, *, inputs: int, seed: int) -> FuzzResult:
    """Send mutated images to a real server's ``ssd_preprocess``; every answer must be an image or a refusal.

    Args:
        client: A client of a ready server.
        output: Folder for the inputs of findings.
        inputs: Number of inputs.
        seed: Seed of the mutations.
    """
    result = FuzzResult()
    make_input = _mutations(seed)
    numbered = ((index, *make_input(index)) for index in range(inputs))
    answers = submit_ahead(numbered, lambda one: client.submit_preprocess(one[2]), client.in_flight)
    for (index, name, data), future in progress(answers, total=inputs, description="server", unit="inputs"):
        try:
            future.result()
            answer = DecodeResult("decoded", "", 0, 0, 0)
        except RequestRefusedError as error:
            answer = DecodeResult("refused", str(error), 0, 0, 0)
        except ClientError as error:
            answer = DecodeResult("exception", str(error), 0, 0, 0)
            _keep(result, output, f"server-seed{seed}-{index}", data, answer.reason)
        _count(result, name, answer)
    if not client.is_ready():
        result.findings.append("the server is not ready any longer")
    return result


def _mutations(seed: int) -> Callable[[int], tuple[str, bytes]]:
    corpus = make_corpus()
    return lambda index: mutate(seed, index, corpus)


def _count(result: FuzzResult, name: str, answer: DecodeResult) -> None:
    result.inputs += 1
    result.outcomes[name.split(maxsplit=1)[0], answer.outcome] += 1
    result.times_s.append(answer.time_s)
    if answer.outcome == "refused":
        result.reasons[" ".join(answer.reason.removeprefix("batch element 0: ").split()[:5])] += 1


def _keep(result: FuzzResult, output: Path, name: str, data: bytes, reason: str) -> None:
    path = output / "findings" / f"{name}.bin"
    with atomic_output(path) as temporary:
        temporary.write_bytes(data)
    with atomic_output(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps({"bytes": len(data), "reason": reason}, indent=1) + "\n", encoding="utf-8")
    result.findings.append(f"{path}: {reason.strip().splitlines()[-1]}")
