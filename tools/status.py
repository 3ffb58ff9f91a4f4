"""Print the state of a running server: models, variant, queues, latency by member of the ensembles, memory.

Mean times are of Triton's own counters: since the models were loaded, and with --watch between two looks. Exit code 1
when the server or one of its models is not ready.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from contextlib import closing
from pathlib import Path

from ssd_triton.client.tls import add_tls_arguments, tls_from
from ssd_triton.client.transport import make_transport
from ssd_triton.commands import runner
from ssd_triton.config import Config
from ssd_triton.serving.connect import default_url
from ssd_triton.serving.server.log_events import read_events
from ssd_triton.serving.server.protection import read_admin_key
from ssd_triton.serving.status.collect import ServerStatus, collect
from ssd_triton.serving.status.table import text, to_json

_CLEAR = "\x1b[2J\x1b[H"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("--url", default=config.client.url, help="host:port; by default server.host")
    parser.add_argument("--protocol", choices=("grpc", "http"), default=config.client.protocol, help="of that port")
    parser.add_argument("--metrics-url", help="of the metrics; None: server.metrics_port on the host of --url")
    parser.add_argument("--no-metrics", action="store_true", help="no pending and refused requests, no memory")
    parser.add_argument("--timeout-s", type=float, default=5.0, help="for each answer, seconds")
    parser.add_argument(
        "--admin-key-file", type=Path, default=config.server.admin_key_file, help="also lists models that did not load"
    )
    parser.add_argument("--watch", type=float, metavar="S", help="look again every so many seconds, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="a JSON object; with --watch one a line")
    parser.add_argument("--log", type=Path, help="Triton's log: print its refusals and failures as JSON lines instead")
    add_tls_arguments(parser.add_argument_group("TLS"), config.client.tls)


def main() -> int:
    """Look once, or until Ctrl-C."""
    args, config = runner.parse(str(__doc__), "python tools/status.py --watch 2", add_arguments)
    if args.log is not None:
        return _print_events(args.log)
    url = args.url or default_url(config, args.protocol)
    metrics_url = args.metrics_url or f"http://{url.rpartition(':')[0]}:{config.server.metrics_port}/metrics"
    key = read_admin_key(args.admin_key_file) if args.admin_key_file else None
    earlier: ServerStatus | None = None
    with closing(make_transport(args.protocol, url, args.timeout_s, tls=tls_from(args))) as transport:
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
    if as_json:
        print(json.dumps(to_json(status), indent=None if watched else 1), flush=True)
        return
    print(_CLEAR if watched and sys.stdout.isatty() else "", end="")
    print(text(status, earlier), flush=True)
    for problem in status.problems:
        logging.info("%s", problem)


def _print_events(path: Path) -> int:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for event in read_events(lines):
            print(json.dumps(event))
    return 0


if __name__ == "__main__":
    runner.run(main)
