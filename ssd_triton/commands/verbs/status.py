"""Print the state of a running server: models, variant, queues, latency by member of the ensembles, memory.

Mean times come from Triton's own counters. They cover the time since the models were loaded or, with --watch, since the
previous output. Exit code 1 when the server or one of its models is not ready.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from ssd_triton.commands.options import SECONDS, add_option
from ssd_triton.commands.shared import add_tls_options
from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import Config

if TYPE_CHECKING:
    from ssd_triton.serving.status.collect import ServerStatus

EXAMPLE = "ssd-triton status --watch 2"
_CLEAR = "\x1b[2J\x1b[H"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    add_option(parser, config, "--url", "client.url")
    add_option(parser, config, "--protocol", "client.protocol")
    parser.add_argument(
        "--metrics-url", help="address of the metrics; by default server.metrics_port on the host of --url"
    )
    parser.add_argument("--no-metrics", action="store_true", help="no pending and refused requests, no memory")
    parser.add_argument("--timeout-s", type=SECONDS, default=5.0, help="deadline of each answer")
    add_option(
        parser,
        config,
        "--admin-key-file",
        "server.admin_key_file",
        description="file with the admin key, which also lists models that did not load",
        metavar="FILE",
    )
    parser.add_argument("--watch", type=SECONDS, help="interval between looks, until Ctrl-C; seconds")
    parser.add_argument("--json", action="store_true", help="a JSON object; with --watch one a line")
    parser.add_argument("--log", type=Path, help="log of Triton, whose refusals and failures are printed as JSON lines")
    add_tls_options(parser.add_argument_group("TLS"), config)


def run(args: argparse.Namespace, config: Config) -> int:
    """Print the state once, or repeatedly until Ctrl-C."""
    if args.log is not None:
        return _print_events(args.log)
    from ssd_triton.client.transport import make_transport
    from ssd_triton.serving.connect import configured_tls, default_metrics_url, default_url
    from ssd_triton.serving.server.protection import read_admin_key
    from ssd_triton.serving.status.collect import collect

    url = default_url(config)
    key = read_admin_key(config.server.admin_key_file) if config.server.admin_key_file else None
    tls = configured_tls(config)
    metrics_url = args.metrics_url or default_metrics_url(config)
    earlier: ServerStatus | None = None
    with closing(make_transport(config.client.protocol, url, args.timeout_s, tls=tls)) as transport:
        while True:
            status = collect(
                transport,
                url,
                metrics_url=None if args.no_metrics else metrics_url,
                timeout_s=args.timeout_s,
                admin_key=key,
            )
            _print_status(status, earlier, as_json=args.json, watched=args.watch is not None)
            if args.watch is None:
                return 0 if status.ready else 1
            earlier = status
            time.sleep(args.watch)


def _print_status(status: ServerStatus, earlier: ServerStatus | None, *, as_json: bool, watched: bool) -> None:
    from ssd_triton.serving.status.table import text, to_json

    if as_json:
        print(json.dumps(to_json(status), indent=None if watched else 1), flush=True)
        return
    print(_CLEAR if watched and sys.stdout.isatty() else "", end="")
    print(text(status, earlier), flush=True)
    for problem in status.problems:
        logging.info("%s", problem)


def _print_events(path: Path) -> int:
    from ssd_triton.serving.server.log_events import read_events

    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for event in read_events(lines):
                print(json.dumps(event))
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(
            f"{relative_to_cwd(path)}: got no log ({error.strerror}), expected the file that 'ssd-triton serve --log' "
            "writes; give another --log"
        ) from error
    return 0
