"""The command line: verbs, their arguments, exit codes. Nothing else in the package imports from here."""

from __future__ import annotations

import sys
from typing import NoReturn


def main(verb: str | None = None) -> NoReturn:
    """Run a verb and exit with its code.

    Args:
        verb: Its name, for a script that is this verb; None takes it from the command line, for ``ssd-triton``.
    """
    from ssd_triton.commands import runner

    if verb is None:
        sys.exit(runner.run_command(sys.argv[1:]))
    sys.exit(runner.run_verb(verb, sys.argv[1:], script=sys.argv[0]))
