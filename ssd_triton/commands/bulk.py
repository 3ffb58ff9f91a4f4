"""Bulk detection: ``ssd-triton detect`` with the options ``--manifest`` and ``--shard``."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Collection
from pathlib import Path

from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import Config


def add_bulk_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of bulk detection."""
    group = parser.add_argument_group("bulk")
    group.add_argument(
        "--manifest",
        type=Path,
        metavar="FILE",
        help="list of images instead of INPUT, relative to the list's folder: one path a line, or in a .jsonl one "
        'object with a "file"; results are JSON lines or Parquet, in parts, without pictures; a killed run resumes; '
        "exit code 0 once each line has a result, which may be a refusal",
    )
    group.add_argument(
        "--shard",
        type=_shard,
        metavar="N/COUNT",
        help="part of the list for this run: 3/16 takes the lines 3, 19, 35, ... (default: all lines)",
    )
    group.add_argument("--restart", action="store_true", help="drop the results of this shard first")


def run_bulk(
    args: argparse.Namespace, config: Config, labels: tuple[str, ...], class_ids: Collection[int] | None
) -> int:
    """Detect in a shard of a list; return exit code 0 when each of its lines has a result, even a refusal.

    Args:
        args: Arguments of the verb.
        config: The configuration in force.
        labels: Class names by id.
        class_ids: Classes to keep; None keeps all.

    Raises:
        UserError: An option does not apply to a list.
    """
    if args.inputs:
        raise UserError(f"got --manifest and '{args.inputs[0]}', expected one of them; add it to the list")
    if args.recursive or config.detect.crops:
        raise UserError("got --recursive or --crops with --manifest, expected files in the list and results alone")
    from ssd_triton.client.bulk import Bulk, Shard, detect_bulk
    from ssd_triton.evaluation.fingerprint import check_classes, served_models
    from ssd_triton.serving.connect import connect

    if config.detect.format not in ("json", "jsonl", "parquet"):
        raise UserError(f"got the format {config.detect.format} with --manifest, expected --format jsonl or parquet")
    bulk = Bulk(
        manifest=args.manifest,
        shard=Shard(*(args.shard or (1, 1))),
        output=config.detect.output,
        kind="parquet" if config.detect.format == "parquet" else "jsonl",
        part_images=config.detect.part_images,
        labels=labels,
        score_thresh=config.detect.score_thresh,
        class_ids=class_ids,
    )
    with connect(config, serve=args.serve, retry_s=config.client.retry_s) as client:
        models = served_models(client, "ssd")
        check_classes(models, len(bulk.labels))
        summary = detect_bulk(client, bulk, models, restart=args.restart)
    logging.info(
        "%d images, %d of them done before; refused in this run: %d", summary.images, summary.earlier, summary.refused
    )
    print(relative_to_cwd(bulk.output))
    return 0


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    number, shards = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= shards:
        raise argparse.ArgumentTypeError(f"got '{text}', expected N/COUNT such as 3/16, the first is 1/16")
    return number, shards
