"""Runs verbs: exit codes, signals, and output streams.

Results go to stdout; logs and progress bars to stderr. Exit 0: done; 1: failed, with one line on stderr; 2: wrong
usage; 130: interrupted.
"""

from __future__ import annotations

import difflib
import errno
import logging
import os
import sys
from collections.abc import Callable, Sequence

from ssd_triton import __version__
from ssd_triton.commands.verbs import VERBS
from ssd_triton.common.errors import UserError
from ssd_triton.common.files import printable_name
from ssd_triton.common.interrupts import interrupt_on_signals

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_EXTRAS = {
    "PIL": "video",
    "av": "video",
    "cv2": "video",
    "matplotlib": "video",
    "scipy": "video",
    "onnx": "export",
    "onnxscript": "export",
    "pooch": "export",
    "safetensors": "export",
    "torch": "export",
    "onnxruntime": "server",
    "psutil": "server",
    "pytriton": "server",
    "pycocotools": "eval",
    "pyarrow": "parquet",
    "filelock": "container",
    "polygraphy": "container",
    "starlette": "view",
    "uvicorn": "view",
}
"""The extra that installs a module, for modules that not every verb needs."""


def run_command(argv: Sequence[str]) -> int:
    """Run ``ssd-triton`` with arguments, and return its exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"ssd-triton {__version__}")
        return 0
    if argv[0] not in VERBS:
        nearest = difflib.get_close_matches(argv[0], VERBS, n=1)
        hint = f"did you mean '{nearest[0]}'?" if nearest else "'ssd-triton --help' lists all verbs"
        print(f"ssd-triton: error: unknown verb '{argv[0]}': {hint}", file=sys.stderr)
        return 2
    return run_verb(argv[0], argv[1:])


def overview() -> str:
    """Return the overview of all verbs by group."""
    width = max(map(len, VERBS))
    lines = ["usage: ssd-triton VERB ...", "", "SSD300 object detection on NVIDIA's Triton Inference Server."]
    group = ""
    for verb in VERBS.values():
        if verb.group != group:
            group = verb.group
            lines += ["", f"{group}:"]
        lines.append(f"  {verb.name:{width}}  {verb.summary}")
    return "\n".join([*lines, "", "'ssd-triton VERB --help' has options, defaults and an example."])


def run_verb(name: str, argv: Sequence[str], *, script: str | None = None) -> int:
    """Run a verb, and return its exit code.

    Args:
        name: The verb.
        argv: Its arguments.
        script: Path of the script that was run instead of ``ssd-triton VERB``; None without a script.
    """

    def parse_and_run() -> int:
        from ssd_triton.commands.parser import parse_verb

        module, args, config = parse_verb(name, argv, script=script)
        return module.run(args, config)

    return exit_code(parse_and_run, script or f"ssd-triton {name}")


def exit_code(run: Callable[[], int], program: str) -> int:
    """Run a verb, and return its exit code, or the code for the error that it raises.

    SIGTERM interrupts as Ctrl-C does, so that servers, shared memory and files are cleaned up on both.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    interrupt_on_signals()
    try:
        return run()
    except UserError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        print(f"{program}: error: {_missing(error)}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has closed it: not a failure, but nothing more can be printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        what = printable_name(str(error.filename or "a file"))
        if error.errno == errno.ENAMETOOLONG:
            reason = f"{what}: {error.strerror}, expected a name that the disk takes; give a shorter one"
        elif error.errno in _NO_ROOM:
            reason = f"cannot write {what} ({error.strerror}): make room and run it again"
        else:
            raise
        print(f"{program}: error: {reason}", file=sys.stderr)
    return 1


def _missing(error: ModuleNotFoundError) -> str:
    """Return a message that says what to install for a missing module.

    Raises:
        ModuleNotFoundError: The missing module belongs to this package.
    """
    module = (error.name or "").partition(".")[0]
    if module in ("", "ssd_triton"):
        raise error
    if module in _EXTRAS:
        return f"{module} is not installed: pip install 'ssd-triton[{_EXTRAS[module]}]'"
    return f"{module} is not installed: type 'source .venv/bin/activate' (after 'make setup')"
