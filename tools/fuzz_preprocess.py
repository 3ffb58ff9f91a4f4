"""Fuzz the preprocessing with mutated images of every format that it takes.

The code of ssd_preprocess runs in a process of its own: a crash, a hang, an exception, a large peak or growth of memory
is a finding, whose input is kept. With --url or --serve the inputs go to a real server instead, which may answer each
with an image or a refusal and nothing else. The same --seed makes the same inputs. Exit code 1 when there is a finding.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.model_names import PREPROCESS
from ssd_triton.config import Config
from ssd_triton.measuring.fuzz.run import fuzz_decoder, fuzz_server
from ssd_triton.serving.connect import add_connection_arguments, connect


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("--inputs", type=int, default=20_000, metavar="N", help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    parser.add_argument("--hang-s", type=float, default=5.0, help="an input that takes longer is a finding, seconds")
    parser.add_argument("--model-repository", type=Path, default=config.model_repository, help="folder")
    parser.add_argument("--output", type=Path, default=Path("reports/fuzz"), help="folder for findings and the report")
    add_connection_arguments(parser, config)


def main() -> int:
    """Fuzz and print the table."""
    args, config = runner.parse(str(__doc__), "python tools/fuzz_preprocess.py --inputs 200000", add_arguments)
    from ssd_triton.measuring.fuzz.report import fuzz_markdown, write_report

    if args.url is not None or args.serve is not None:
        with connect(args, config) as client:
            result = fuzz_server(client, args.output, inputs=args.inputs, seed=args.seed)
    else:
        folder = args.model_repository.resolve() / PREPROCESS
        result = fuzz_decoder(folder, args.output, inputs=args.inputs, seed=args.seed, timeout_s=args.hang_s)
    print(fuzz_markdown(result), end="")
    for path in write_report(result, args.output, seed=args.seed):
        print(relative_to_cwd(path))
    for finding in result.findings:
        print(f"finding: {finding}", file=sys.stderr)
    return 1 if result.findings else 0


if __name__ == "__main__":
    runner.run(main)
