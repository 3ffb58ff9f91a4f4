"""Fuzz the preprocessing with mutated images of every format that it takes.

The code of ssd_preprocess runs in its own process. A crash, a hang, an exception, or a large peak or growth of memory
is a finding, and its input is kept. With --url or --serve the inputs go to a real server instead, whose only valid
answers are an image or a refusal. The same --seed makes the same inputs. Exit code 1 when there is a finding.
"""

from __future__ import annotations

import argparse
import sys

from ssd_triton.commands.options import COUNT, POSITIVE, SECONDS, add_option
from ssd_triton.commands.shared import add_connection_options, add_output_option, asks_a_server
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.model_names import PREPROCESS
from ssd_triton.config import Config

EXAMPLE = "ssd-triton fuzz --inputs 200000"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    parser.add_argument("--inputs", type=POSITIVE, default=20_000, help="number of inputs")
    parser.add_argument("--seed", type=COUNT, default=0, help="seed of the mutations")
    parser.add_argument("--hang-s", type=SECONDS, default=5.0, help="time for an input beyond which it is a finding")
    add_option(parser, config, "--model-repository", "model_repository")
    add_output_option(parser, "reports/fuzz")
    add_connection_options(parser, config)


def run(args: argparse.Namespace, config: Config) -> int:
    """Fuzz and print the table."""
    from ssd_triton.measuring.fuzz.report import fuzz_markdown, write_report
    from ssd_triton.measuring.fuzz.run import fuzz_decoder, fuzz_server
    from ssd_triton.serving.connect import connect

    if asks_a_server(args):
        with connect(config, serve=args.serve) as client:
            result = fuzz_server(client, args.output, inputs=args.inputs, seed=args.seed)
    else:
        folder = config.model_repository / PREPROCESS
        result = fuzz_decoder(folder, args.output, inputs=args.inputs, seed=args.seed, timeout_s=args.hang_s)
    print(fuzz_markdown(result), end="")
    for path in write_report(result, args.output, seed=args.seed):
        print(relative_to_cwd(path))
    for finding in result.findings:
        print(f"finding: {finding}", file=sys.stderr)
    return 1 if result.findings else 0
