"""What every command line shares: configuration as defaults, exit codes, where output goes.

Results go to stdout; logs and progress bars to stderr. Exit 0: done; 1: failed, with one line on stderr; 2: wrong
usage; 130: interrupted.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ssd_triton.common.errors import UserError
from ssd_triton.common.files import ROOT

if TYPE_CHECKING:
    from ssd_triton.config import Config

AddArguments = Callable[[argparse.ArgumentParser, "Config"], None]
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, and keeps the line breaks of descriptions and examples."""


def parse(
    description: str, example: str, add_arguments: AddArguments, argv: Sequence[str] | None = None
) -> tuple[argparse.Namespace, Config]:
    """Parse a command line whose defaults come from ``config.yml``.

    ``--config`` is read first, so that ``--help`` shows the defaults that are in force.

    Args:
        description: What the command does; a script passes its own ``__doc__``.
        example: One or more runnable command lines, shown at the end of ``--help``.
        add_arguments: Adds the command's own arguments, given the parser and the configuration.
        argv: Arguments without the program's name; ``sys.argv[1:]`` when None.
    """
    # Pydantic comes with it, which a machine that only measures need not have.
    from ssd_triton.config import load_config

    config_option = argparse.ArgumentParser(add_help=False)
    config_option.add_argument("--config", type=Path, default=ROOT / "config.yml", metavar="FILE", help="defaults")
    known, _ = config_option.parse_known_args(argv)
    config = load_config(known.config)
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=HelpFormatter,
        parents=[config_option],
    )
    add_arguments(parser, config)
    return parser.parse_args(argv), config


def run(main: Callable[[], int]) -> NoReturn:
    """Run a script's ``main`` and exit with its code, or as the error it raised calls for.

    SIGTERM interrupts as Ctrl-C does, so that servers, shared memory and files are cleaned up on both. SIGINT stays
    ignored where the caller ignores it, as shells do for what a script puts in the background: SIGTERM ends it there.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = main()
    except UserError as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print(f"{Path(sys.argv[0]).name}: interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has gone: not a failure, but nothing more can be printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        what = error.filename or "a file"
        print(
            f"{Path(sys.argv[0]).name}: error: cannot write {what} ({error.strerror}): make room and run it again",
            file=sys.stderr,
        )
        code = 1
    sys.exit(code)
