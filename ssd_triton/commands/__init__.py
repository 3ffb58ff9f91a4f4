"""The command line: verbs, their arguments, exit codes. No other part of the package imports this one."""

from __future__ import annotations

import sys
from typing import NoReturn


def main(verb: str | None = None) -> NoReturn:
    """Run a verb and exit with its code.

    Args:
        verb: Name of the verb, for a script that runs only this verb; None reads it from the command line.
    """
    from ssd_triton.commands import runner

    if verb is None:
        sys.exit(runner.run_command(sys.argv[1:]))
    sys.exit(runner.run_verb(verb, sys.argv[1:], script=sys.argv[0]))
