"""Download NVIDIA's published SSD300-ResNet50 checkpoint (about 90 MB) from NGC, without an account.

NVIDIA publishes no digest: the SHA-256 of the first download is recorded beside the file and required from then on;
--sha256 requires a given one. The same file has a second address:
https://api.ngc.nvidia.com/v2/models/nvidia/dle/ssd__pyt_ckpt/versions/20.06.0_amp/files/nvidia_ssdpyt_amp_200703.pt
(https://github.com/NVIDIA/DeepLearningExamples/issues/1211).
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.common.files import ROOT, relative_to_cwd
from ssd_triton.config import Config
from ssd_triton.detector.weights.fetch import NVIDIA_URL, fetch


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    output = ROOT / "weights" / "downloads" / NVIDIA_URL.rpartition("/")[2]
    parser.add_argument("--url", default=NVIDIA_URL, help="HTTPS address of the file")
    parser.add_argument("--output", type=Path, default=output, metavar="FILE", help="where it is put")
    parser.add_argument("--sha256", type=_sha256, metavar="HEX", help="demand this digest; None: the recorded one")
    parser.add_argument("--timeout-s", type=_seconds, default=30.0, help="wait for a connection, and for each piece")
    parser.add_argument("--retries", type=_count, default=5, help="attempts after the first one")


def main() -> int:
    """Fetch the checkpoint and print what to put into ``config.yml``."""
    args, _ = runner.parse(str(__doc__), "python tools/fetch_weights.py", add_arguments)
    weights = fetch(args.url, args.output, sha256=args.sha256, timeout_s=args.timeout_s, retries=args.retries)
    path, base = weights.path.resolve(), args.config.resolve().parent
    size_bytes = path.stat().st_size
    print(f"file        {relative_to_cwd(weights.path)}")
    print(f"size        {size_bytes} bytes ({size_bytes / 1e6:.1f} MB)")
    print(f"SHA-256     {weights.sha256}")
    print(f"config.yml  weights_path: {path.relative_to(base) if path.is_relative_to(base) else path}")
    return 0


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected 64 hexadecimal digits")
    return text.lower()


def _seconds(text: str) -> float:
    seconds = float(text)
    # A socket's time-out has an upper bound, too; a day is far below it.
    if not 0 < seconds <= 86400:
        raise argparse.ArgumentTypeError(f"got {text}, expected more than 0 and at most 86400 seconds")
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if not 0 <= count <= 100:
        raise argparse.ArgumentTypeError(f"got {text}, expected 0 to 100")
    return count


if __name__ == "__main__":
    runner.run(main)
