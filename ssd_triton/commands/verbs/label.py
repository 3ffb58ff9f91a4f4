"""Label photographs with a detector, as annotations in COCO's format to train on.

The detector is a TorchScript or ONNX model, described by a small file (--detector), or the model of a server. Confident
boxes become objects; uncertain boxes get iscrowd: 1, which training ignores. --complete FILE keeps the annotations of
FILE unchanged, and adds the classes that FILE does not annotate (all but its annotated_category_ids).

Writes annotations.json, label.md, label.json and labels.jpg, a contact sheet. After an interruption, the same command
resumes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton.commands.options import add_option, name_and_value
from ssd_triton.commands.shared import add_connection_options, add_device_option, add_output_option
from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import Config

EXAMPLE = "ssd-triton label photos/ --detector picodet.yml --not-in coco/val --output reports/label"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    parser.add_argument("images", type=Path, metavar="IMAGES", help="folder of photographs")
    parser.add_argument("--detector", type=Path, metavar="FILE", help="description of a TorchScript or ONNX model")
    parser.add_argument("--complete", type=Path, metavar="FILE", help="annotations of these images, to complete")
    parser.add_argument(
        "--not-in",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="evaluation images: whatever has the name, the content or the looks of one is left out; repeat for more",
    )
    add_option(parser, config, "--object-score", "label.object_score")
    add_option(parser, config, "--ignore-score", "label.ignore_score")
    parser.add_argument(
        "--name-map",
        nargs="+",
        type=name_and_value,
        default=[],
        metavar="NAME=LABEL",
        help="labels for names of the detector and of FILE, beyond coco.name_map; NAME= leaves a class out",
    )
    add_option(parser, config, "--labels-path", "labels_path")
    parser.add_argument("--restart", action="store_true", help="drop what an earlier run has kept")
    add_device_option(parser)
    add_output_option(parser, "reports/label")
    add_connection_options(parser, config)


def run(args: argparse.Namespace, config: Config) -> int:
    """Label, and print the table."""
    settings = config.label
    if settings.ignore_score > settings.object_score:
        raise UserError(
            f"got --ignore-score {settings.ignore_score:g} above --object-score {settings.object_score:g}, expected at "
            "most that"
        )
    if args.detector is not None and args.serve is not None:
        raise UserError("got --detector and --serve, expected one of them: what should label?")
    from ssd_triton.common.labels import load_labels
    from ssd_triton.detector.device import choose_device
    from ssd_triton.serving.connect import connect
    from ssd_triton.training.class_map import ClassMap
    from ssd_triton.training.labelling.detectors import DescribedLabeller, ServedLabeller
    from ssd_triton.training.labelling.label import LabelRequest, label
    from ssd_triton.training.labelling.outcome import table

    labels = load_labels(config.labels_path)
    request = LabelRequest(
        images=args.images,
        complete=args.complete,
        excluded=args.not_in,
        classes=ClassMap(labels, labels, {**config.coco.name_map, **dict(args.name_map)}),
        output=args.output,
        restart=args.restart,
    )
    if args.detector is not None:
        outcome = label(DescribedLabeller(args.detector, str(choose_device(args.device))), request, settings)
    else:
        with connect(config, serve=args.serve) as client:
            outcome = label(ServedLabeller(client, labels), request, settings)
    print(table(outcome).markdown())
    print(f"{outcome.images} images labelled; {outcome.left_out_text()}")
    for path in outcome.written:
        print(relative_to_cwd(path))
    return 0
