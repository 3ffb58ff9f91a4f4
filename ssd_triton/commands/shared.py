"""Options that several verbs share: the server, the data set, the criteria for rendered images."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ssd_triton.commands.options import FRACTION, NUMBER, POSITIVE_NUMBER, Typed, add_option, given
from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import Config

if TYPE_CHECKING:
    from ssd_triton.evaluation.dataset import Dataset
    from ssd_triton.simulation.judging.visibility import Criteria

_COCO_IMAGES, _COCO_ANNOTATIONS = Path("val2017"), Path("annotations/instances_val2017.json")
"""Paths below ``coco.coco_data_path``, as COCO's own archives unpack."""

DataSet = tuple[Path, Path, float | None]
"""Images, annotations and weight of a :class:`ssd_triton.training.examples.Source`."""
_SET = ("IMAGES", "ANNOTATIONS")
_ANNOTATIONS = "annotations.json"
_LARGEST_SHIFT = 10.0


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device", default="auto", help="device of PyTorch: cpu, cuda, cuda:1, ...; auto: a GPU where there is one"
    )


def add_output_option(parser: argparse.ArgumentParser, folder: str) -> None:
    """Add ``--output`` of a verb whose results have no key of their own."""
    parser.add_argument("--output", type=Path, default=Path(folder), help="folder for the results")


def add_fps_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--fps`` of a simulated camera."""
    parser.add_argument("--fps", type=POSITIVE_NUMBER, default=20.0, help="frames a second")


def add_connection_options(parser: argparse.ArgumentParser, config: Config, *, in_flight: str | None = None) -> None:
    """Add the options that choose the server, for :func:`ssd_triton.serving.connect.connect`.

    Args:
        parser: Parser of the verb.
        config: The configuration in force.
        in_flight: Key of the configuration for ``--in-flight``; None takes ``client.in_flight``.
    """
    group = parser.add_argument_group("server")
    server = group.add_mutually_exclusive_group()
    server.add_argument(
        "--serve",
        nargs="?",
        const=config.variant,
        metavar="VARIANT",
        help=f"variant of the detector for a server that is started for this run; {config.variant} when none is named",
    )
    add_option(server, config, "--url", "client.url")
    add_option(group, config, "--protocol", "client.protocol")
    add_option(group, config, "--timeout-s", "client.timeout_s")
    add_option(group, config, "--in-flight", in_flight or "client.in_flight")
    add_tls_options(group, config)


def add_tls_options(group: argparse._ArgumentGroup, config: Config) -> None:
    """Add the options of a client's TLS."""
    add_option(group, config, "--ssl", "client.tls.enabled")
    add_option(group, config, "--ssl-root-certificates", "client.tls.root_certificates")
    add_option(group, config, "--ssl-certificate", "client.tls.certificate")
    add_option(group, config, "--ssl-private-key", "client.tls.private_key")


def asks_a_server(args: argparse.Namespace) -> bool:
    """Whether an option of the command line chooses a server; an address in a configuration file does not count."""
    return args.serve is not None or bool(given(args, ["client.url"]))


def add_dataset_options(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add ``--images``, ``--annotations`` and the options that select images."""
    root = config.coco.coco_data_path
    group = parser.add_argument_group("dataset")
    group.add_argument("--images", type=Path, default=root and root / _COCO_IMAGES, help="folder of images")
    group.add_argument(
        "--annotations",
        type=Path,
        default=root and root / _COCO_ANNOTATIONS,
        help="COCO annotations of the images, such as instances_val2017.json",
    )
    add_option(group, config, "--image-set", "coco.image_set")
    add_option(group, config, "--limit", "coco.limit")
    group.add_argument("--skip-missing", action="store_true", help="leave out images that are not in the folder")
    add_option(group, config, "--name-map", "coco.name_map", metavar="NAME=LABEL")


def dataset_of(args: argparse.Namespace, config: Config) -> Dataset:
    """Return the data set that the options of :func:`add_dataset_options` name, after checking that it is complete.

    Raises:
        EvaluationError: There is no such data set, it does not match the labels, images are missing, or a package that
            the evaluation needs is not installed.
    """
    from ssd_triton.common.labels import load_labels
    from ssd_triton.evaluation.dataset import DatasetSource, load_dataset, only_present
    from ssd_triton.evaluation.metrics import check_installed

    check_installed()
    if args.images is None or args.annotations is None:
        raise UserError(
            "got no dataset: give --images FOLDER and --annotations FILE, or set coco.coco_data_path to a folder with "
            f"{_COCO_IMAGES}/ and {_COCO_ANNOTATIONS}"
        )
    source = DatasetSource(args.images, args.annotations, config.coco.image_set, config.coco.limit)
    labels = load_labels(config.labels_path)
    return only_present(load_dataset(source, labels, config.coco.name_map), skip_missing=args.skip_missing)


def add_criteria_options(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options that say which objects count in rendered images."""
    group = parser.add_argument_group("rendered images")
    add_option(group, config, "--score-thresh", "detect.score_thresh")
    group.add_argument("--match-iou-thresh", type=FRACTION, default=0.5, help="lowest IoU of a box with what it finds")
    group.add_argument("--min-visibility", type=FRACTION, default=0.5, help="smallest visible part of a road user")
    group.add_argument(
        "--relevant-range-m", type=POSITIVE_NUMBER, default=40.0, help="range up to which objects matter"
    )
    group.add_argument(
        "--margin-m",
        type=NUMBER,
        default=2.0,
        help="lateral distance up to which objects matter, beyond braking.corridor_half_width_m",
    )


def criteria_of(args: argparse.Namespace, config: Config) -> Criteria:
    """Return the criteria from the options of :func:`add_criteria_options`."""
    from ssd_triton.simulation.judging.visibility import Criteria

    return Criteria(
        config.detect.score_thresh,
        args.match_iou_thresh,
        config.tracking.match_iou_thresh,
        args.min_visibility,
        args.relevant_range_m,
        config.braking.corridor_half_width_m + args.margin_m,
    )


def add_set_option(parser: argparse.ArgumentParser, option: str, description: str, *, required: bool = False) -> None:
    """Add an option for a data set to train or validate on, which may be given several times."""
    parser.add_argument(
        option, nargs="+", action="append", default=[], metavar=_SET, required=required, help=description
    )


def sets_of(option: str, values: Sequence[Sequence[str]]) -> list[DataSet]:
    """Return the data sets of an option of :func:`add_set_option`.

    Raises:
        UserError: A value is neither a folder, a file and optionally a weight above 0, nor a folder that holds both.
    """
    found: list[DataSet] = []
    for one in values:
        found += _sets_in(option, Path(one[0])) if len(one) == 1 else [_set_of(option, one)]
    return found


def _sets_in(option: str, folder: Path) -> list[DataSet]:
    """Return the set in a folder with ``images/`` and ``annotations.json``, or the sets in its subfolders."""
    own = folder / _ANNOTATIONS
    files = [own] if own.is_file() else sorted(folder.glob(f"*/{_ANNOTATIONS}"))
    if not files:
        raise UserError(
            f"{option}: got the folder {relative_to_cwd(folder)}, expected images/ and {_ANNOTATIONS} in it or in its "
            "folders; or give IMAGES ANNOTATIONS"
        )
    return [(file.parent / "images", file, None) for file in files]


def _set_of(option: str, values: Sequence[str]) -> DataSet:
    if len(values) > 3:
        raise UserError(
            f"{option}: got {len(values)} values, expected IMAGES ANNOTATIONS and perhaps a WEIGHT, or one FOLDER"
        )
    try:
        weight = Typed(float)(values[2]) if len(values) == 3 else None
    except argparse.ArgumentTypeError:
        weight = 0.0
    if weight is not None and weight <= 0:
        raise UserError(f"{option}: got the weight '{values[2]}', expected a number above 0")
    return Path(values[0]), Path(values[1]), weight


def add_shift_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--shift``, for :func:`shifts_of`."""
    parser.add_argument(
        "--shift",
        type=_shift,
        nargs="+",
        default=[],
        metavar="CLASS=LOGIT",
        help="shift of a class's logits in all averages, which moves where a score of 0.5 lies; 'car=-0.3' asks for "
        "more before it calls something a car",
    )


def shifts_of(args: argparse.Namespace, labels: Sequence[str]) -> dict[int, float]:
    """Return the logit shifts by class id.

    Raises:
        UserError: A class is unknown.
    """
    unknown = [name for name, _ in args.shift if name not in labels]
    if unknown:
        raise UserError(f"--shift: got the class '{unknown[0]}', expected names of --labels-path")
    return {labels.index(name): logit for name, logit in args.shift}


def _shift(text: str) -> tuple[str, float]:
    name, _, logit = text.rpartition("=")
    try:
        value = float(logit)
    except ValueError:
        value = math.nan
    if not name or not -_LARGEST_SHIFT <= value <= _LARGEST_SHIFT:
        raise argparse.ArgumentTypeError(f"got '{text}', expected CLASS=LOGIT with a logit of -10 to 10")
    return name, value
