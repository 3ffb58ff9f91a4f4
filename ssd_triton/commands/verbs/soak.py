"""Send good and bad requests to a server for a while, check every answer, and watch the memory of its processes.

The server is started for this. Images go through the ensemble ssd, and as frames in shared memory through ssd_frames,
each as soon as the previous one is answered; many more go straight to ssd_preprocess, over gRPC and HTTP. By default a
tenth of all requests must be refused. Writes soak.md, soak.csv and soak.png. Exit code 1 when an answer was wrong, a
process died, or resident memory grew after warm-up.
"""

from __future__ import annotations

import argparse
import logging

from ssd_triton.commands.options import COUNT, FRACTION, POSITIVE_NUMBER, SECONDS, add_option
from ssd_triton.commands.shared import add_output_option
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import Config

EXAMPLE = "ssd-triton soak --minutes 30"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "--minutes", type=POSITIVE_NUMBER, default=30.0, help="time for which requests are sent, minutes"
    )
    add_option(parser, config, "--variant", "variant")
    parser.add_argument(
        "--preprocess-per-s",
        type=POSITIVE_NUMBER,
        default=75.0,
        metavar="RATE",
        help="rate of requests to ssd_preprocess",
    )
    parser.add_argument("--bad-fraction", type=FRACTION, default=0.1, help="part of the requests that are bad, 0 to 1")
    parser.add_argument("--sample-s", type=SECONDS, default=5.0, help="interval between samples of memory")
    parser.add_argument(
        "--warm-up-fraction", type=FRACTION, default=0.2, help="part of the time in which memory may grow"
    )
    parser.add_argument(
        "--max-growth", type=FRACTION, default=0.05, help="largest relative growth of memory after that"
    )
    parser.add_argument("--seed", type=COUNT, default=1, help="seed of the order of the requests")
    add_output_option(parser, "reports/soak")


def run(args: argparse.Namespace, config: Config) -> int:
    """Run and report; return 1 when a check failed, 130 when Ctrl-C ended the run."""
    from ssd_triton.measuring.soak.report import soak_markdown, write_report
    from ssd_triton.measuring.soak.run import SoakSettings, soak
    from ssd_triton.serving.connect import serve_for_one_run

    settings = SoakSettings(
        seconds=args.minutes * 60,
        preprocess_per_s=args.preprocess_per_s,
        bad_fraction=args.bad_fraction,
        sample_s=args.sample_s,
        warm_up_fraction=args.warm_up_fraction,
        max_growth=args.max_growth,
        seed=args.seed,
    )
    with serve_for_one_run(config, config.variant) as server:
        result = soak(server, settings)
    paths = write_report(args.output, result)
    print(soak_markdown(result), end="")
    for path in paths:
        logging.info("%s", relative_to_cwd(path))
    if result.failures():
        return 1
    return 130 if result.interrupted else 0
