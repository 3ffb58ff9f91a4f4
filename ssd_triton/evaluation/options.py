"""The options by which command lines name a dataset."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ssd_triton.config import IMAGE_SETS, Config
from ssd_triton.evaluation.dataset import Dataset, DatasetSource, load_dataset, only_present
from ssd_triton.evaluation.errors import EvaluationError
from ssd_triton.evaluation.metrics import check_installed

if TYPE_CHECKING:
    from ssd_triton.simulation.judging.visibility import Criteria

_IMAGES, _ANNOTATIONS = Path("val2017"), Path("annotations/instances_val2017.json")
"""Below ``coco_data_path``, as COCO's own archives unpack."""


def add_dataset_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add ``--images``, ``--annotations`` and what is chosen of them."""
    settings, root = config.coco, config.coco.coco_data_path
    group = parser.add_argument_group("dataset")
    group.add_argument("--images", type=Path, default=root and root / _IMAGES, metavar="FOLDER", help="of images")
    group.add_argument(
        "--annotations", type=Path, default=root and root / _ANNOTATIONS, metavar="FILE", help="instances_*.json"
    )
    group.add_argument(
        "--image-set",
        choices=IMAGE_SETS,
        default=settings.image_set,
        help="all images, or only annotated ones as DeepLearningExamples evaluates",
    )
    group.add_argument(
        "--limit",
        type=positive,
        default=settings.limit,
        metavar="N",
        help="so many of the set, spread evenly over the sorted ids; None takes all",
    )
    group.add_argument("--skip-missing", action="store_true", help="leave out images that are not in the folder")
    group.add_argument(
        "--name-map",
        nargs="+",
        type=_pair,
        default=list(settings.name_map.items()),
        metavar="NAME=LABEL",
        help="class names of the file that the labels call otherwise",
    )


def dataset_from(args: argparse.Namespace, labels: Sequence[str]) -> Dataset:
    """The dataset that the options name, with all its images there.

    Raises:
        EvaluationError: There is no such dataset, it does not match the labels, or images are absent; or what the
            evaluation needs is not installed.
    """
    check_installed()
    if args.images is None or args.annotations is None:
        raise EvaluationError(
            "got no dataset: give --images FOLDER and --annotations FILE, or set coco.coco_data_path in config.yml to "
            f"a folder with {_IMAGES}/ and {_ANNOTATIONS}"
        )
    source = DatasetSource(args.images, args.annotations, args.image_set, args.limit)
    return only_present(load_dataset(source, labels, dict(args.name_map)), skip_missing=args.skip_missing)


def add_criteria_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add what counts on rendered images."""
    group = parser.add_argument_group("rendered images")
    group.add_argument("--score-thresh", type=float, default=config.detect.score_thresh, help="0 to 1")
    group.add_argument("--match-iou-thresh", type=float, default=0.5, help="of a box with what it finds, at least")
    group.add_argument("--min-visibility", type=float, default=0.5, help="part of a road user that must be seen")
    group.add_argument("--relevant-range-m", type=float, default=40.0, help="relevant up to here, metres ahead")
    group.add_argument("--margin-m", type=float, default=2.0, help="and so far beside braking.corridor_half_width_m")


def criteria_of(args: argparse.Namespace, config: Config) -> Criteria:
    """What the options of :func:`add_criteria_arguments` say."""
    from ssd_triton.simulation.judging.visibility import Criteria

    return Criteria(
        args.score_thresh,
        args.match_iou_thresh,
        config.tracking.match_iou_thresh,
        args.min_visibility,
        args.relevant_range_m,
        config.braking.corridor_half_width_m + args.margin_m,
    )


def positive(text: str) -> int:
    """An argument that is a whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}, expected 1 or more")
    return value


def _pair(text: str) -> tuple[str, str]:
    name, separator, label = text.partition("=")
    if not (name and separator and label):
        raise argparse.ArgumentTypeError(f"got '{text}', expected NAME=LABEL")
    return name, label
