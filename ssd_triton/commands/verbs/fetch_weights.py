"""Download NVIDIA's published SSD300-ResNet50 checkpoint (about 90 MB) from NGC, without an account.

NVIDIA publishes no digest. The SHA-256 of the first download is therefore recorded beside the file and required from
then on; --sha256 requires a given one. The same file has a second address:
https://api.ngc.nvidia.com/v2/models/nvidia/dle/ssd__pyt_ckpt/versions/20.06.0_amp/files/nvidia_ssdpyt_amp_200703.pt
(https://github.com/NVIDIA/DeepLearningExamples/issues/1211).
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ssd_triton.commands.options import SECONDS, Typed
from ssd_triton.common.files import ROOT, relative_to_cwd
from ssd_triton.config import Config
from ssd_triton.config.layers import PROJECT_FILE

EXAMPLE = "ssd-triton fetch-weights"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    from ssd_triton.detector.weights.fetch import NVIDIA_URL

    output = ROOT / "weights" / "downloads" / NVIDIA_URL.rpartition("/")[2]
    parser.add_argument("--url", default=NVIDIA_URL, help="HTTPS address of the file")
    parser.add_argument("--output", type=Path, default=output, help="file to write")
    parser.add_argument("--sha256", type=_sha256, help="SHA-256 that the file must have; by default the recorded one")
    parser.add_argument(
        "--timeout-s", type=SECONDS, default=30.0, help="longest wait for a connection, and for each piece"
    )
    parser.add_argument(
        "--retries", type=Typed(Annotated[int, Field(ge=0, le=100)]), default=5, help="attempts after the first one"
    )


def run(args: argparse.Namespace, config: Config) -> int:
    """Fetch the checkpoint and print how to use it."""
    from ssd_triton.detector.weights.fetch import fetch

    weights = fetch(args.url, args.output, sha256=args.sha256, timeout_s=args.timeout_s, retries=args.retries)
    path, base = weights.path.resolve(), (args.config or [PROJECT_FILE])[-1].resolve().parent
    size_bytes = path.stat().st_size
    print(f"file        {relative_to_cwd(weights.path)}")
    print(f"size        {size_bytes} bytes ({size_bytes / 1e6:.1f} MB)")
    print(f"SHA-256     {weights.sha256}")
    print(f"config.yml  weights_path: {path.relative_to(base) if path.is_relative_to(base) else path}")
    return 0


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError(f"got '{text}', expected 64 hexadecimal digits")
    return text.lower()
