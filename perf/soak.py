"""Send good and bad requests to a server for a while, check every answer, and watch what its processes hold.

The server is started for it. Images go through the ensembles ssd and, as frames in shared memory, ssd_frames, one after
another as quickly as they are answered; many more go straight to ssd_preprocess, over gRPC and HTTP. A tenth of all are
to be refused. Written are soak.md, soak.csv and soak.png. Exit code 1 when an answer was wrong, a process died, or
resident memory grew after warm-up.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import Config
from ssd_triton.evaluation.options import positive
from ssd_triton.serving.repository.ensure import ensure_built_if_possible
from ssd_triton.serving.server import EmbeddedServer


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("--minutes", type=float, default=30.0, help="how long requests are sent")
    parser.add_argument("--variant", default=config.variant, help="of the detector")
    parser.add_argument("--preprocess-per-s", type=float, default=75.0, help="requests a second to ssd_preprocess")
    parser.add_argument("--bad-fraction", type=float, default=0.1, help="of the requests, 0 to 1")
    parser.add_argument("--sample-s", type=float, default=5.0, help="seconds between samples")
    parser.add_argument("--warm-up-fraction", type=float, default=0.2, help="of the time, in which memory may grow")
    parser.add_argument("--max-growth", type=float, default=0.05, help="of resident memory after that, as a part of it")
    parser.add_argument("--seed", type=positive, default=1, help="of the order of the requests")
    parser.add_argument("--output", type=Path, default=Path("reports/soak"), help="folder of the report")


def main() -> int:
    """Run and report; exit code 1 when something was wrong, 130 when Ctrl-C ended it."""
    args, config = runner.parse(str(__doc__), "python perf/soak.py --minutes 30", add_arguments)
    from ssd_triton.measuring.soak.report import soak_markdown, write_report
    from ssd_triton.measuring.soak.run import SoakSettings, soak

    ensure_built_if_possible(config, args.variant, logging.info)
    settings = SoakSettings(
        seconds=args.minutes * 60,
        preprocess_per_s=args.preprocess_per_s,
        bad_fraction=args.bad_fraction,
        sample_s=args.sample_s,
        warm_up_fraction=args.warm_up_fraction,
        max_growth=args.max_growth,
        seed=args.seed,
    )
    ports = config.server.for_one_run()
    with EmbeddedServer(config.model_repository, args.variant, ports) as server:
        result = soak(server, settings)
    paths = write_report(args.output, result)
    print(soak_markdown(result), end="")
    for path in paths:
        logging.info("%s", relative_to_cwd(path))
    if result.failures():
        return 1
    return 130 if result.interrupted else 0


if __name__ == "__main__":
    runner.run(main)
