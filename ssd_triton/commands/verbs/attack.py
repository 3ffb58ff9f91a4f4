"""Send hostile requests of all kinds to a server on this machine, beside good ones whose answers are checked.

The server must listen on loopback; --serve runs 'ssd-triton serve' for the attack. After a calm phase come expensive
images, shapes whose size overflows, compressed bodies, broken requests, cancelled calls, idle connections and mutated
images, in random order. Writes attack.md, attack.csv and attack.png, also after Ctrl-C. Exit code 1 when a good request
got a wrong answer or none, or the server exceeded a limit of latency, CPU time, memory or restarts.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ssd_triton.commands.options import COUNT, FRACTION, POSITIVE, POSITIVE_NUMBER, add_option
from ssd_triton.commands.shared import add_output_option
from ssd_triton.common.errors import ServerError
from ssd_triton.common.files import atomic_output, relative_to_cwd
from ssd_triton.config import Config

if TYPE_CHECKING:
    from ssd_triton.measuring.attack.sending import AttackedServer

_READY = re.compile(r"ready: .* gRPC \S+:(?P<grpc>\d+), HTTP \S+:(?P<http>\d+),")
"""Line that 'ssd-triton serve' prints once all models are ready."""
EXAMPLE = "ssd-triton attack --serve --minutes 30 --min-requests 20000"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    parser.add_argument("--minutes", type=POSITIVE_NUMBER, default=5.0, help="duration of the attack, minutes")
    parser.add_argument(
        "--calm-fraction",
        type=FRACTION,
        default=0.1,
        help="duration of the calm phase before, as a part of the attack's",
    )
    parser.add_argument("--attackers", type=POSITIVE, default=2, help="hostile requests in flight")
    parser.add_argument(
        "--good-per-s", type=POSITIVE_NUMBER, default=4.0, metavar="RATE", help="rate of good requests, at most"
    )
    parser.add_argument("--min-requests", type=COUNT, default=0, help="least number of hostile requests")
    parser.add_argument(
        "--kinds", nargs="+", default=["*"], metavar="PATTERN", help="kinds to send, such as '*JPEG*'; all by default"
    )
    parser.add_argument("--without", nargs="+", default=[], metavar="PATTERN", help="kinds to leave out")
    parser.add_argument("--list", action="store_true", help="list of all kinds, without an attack")
    parser.add_argument("--seed", type=COUNT, default=0, help="seed of the requests")
    add_output_option(parser, "reports/attack")
    group = parser.add_argument_group("server")
    group.add_argument("--serve", action="store_true", help="server for this run alone")
    group.add_argument(
        "--pid", type=POSITIVE, help="process of the server, or one that starts it again; who listens there by default"
    )
    add_option(group, config, "--variant", "variant")
    for name in ("host", "grpc_port", "http_port", "expose"):
        add_option(group, config, f"--{name.replace('_', '-')}", f"server.{name}")


def run(args: argparse.Namespace, config: Config) -> int:
    """Attack and report; return 1 when a check failed, 130 when Ctrl-C ended the attack."""
    from ssd_triton.measuring.attack.kinds import all_kinds
    from ssd_triton.measuring.attack.report import write_report
    from ssd_triton.measuring.attack.result import AttackSettings
    from ssd_triton.measuring.attack.run import attack
    from ssd_triton.measuring.attack.sending import AttackedServer

    if args.list:
        print("\n".join(kind.name for kind in all_kinds()))
        return 0
    settings = AttackSettings(
        seconds=args.minutes * 60,
        calm_s=args.minutes * 60 * args.calm_fraction,
        attackers=args.attackers,
        good_per_s=args.good_per_s,
        min_requests=args.min_requests,
        kinds=tuple(args.kinds),
        without=tuple(args.without),
        seed=args.seed,
    )
    target = AttackedServer(config.server.host, config.server.grpc_port, config.server.http_port)
    with _served(config, args.output) if args.serve else nullcontext((target, args.pid)) as (attacked, pid):
        result = attack(attacked, settings, pid)
    paths = write_report(args.output, result)
    print(paths[0].read_text(encoding="utf-8"), end="")
    for path in paths:
        logging.info("%s", relative_to_cwd(path))
    if result.ending is not None and "Ctrl-C" in result.ending:
        return 130
    return 0 if result.passed else 1


@contextmanager
def _served(config: Config, output: Path) -> Iterator[tuple[AttackedServer, int]]:
    """Run 'ssd-triton serve' on free loopback ports, and give its address and process id.

    Raises:
        ServerError: The server did not start.
    """
    from ssd_triton.common.interrupts import interrupts_deferred
    from ssd_triton.common.processes import end_group
    from ssd_triton.measuring.attack.sending import AttackedServer

    ports = dict.fromkeys(("grpc_port", "http_port", "metrics_port"), 0)
    server = config.server.model_copy(update={"host": "127.0.0.1", **ports})
    values = config.model_copy(update={"server": server}).model_dump(mode="json", exclude_defaults=True)
    log = output / "tritonserver.log"
    with atomic_output(output / "served.yml") as path:
        path.write_text(json.dumps(values) + "\n", encoding="utf-8")
    program = "import sys; sys.argv[0] = 'ssd-triton'; from ssd_triton.commands import main; main()"
    options = ["--config", str(output / "served.yml"), "--log", str(log)]
    # An interrupt before the block would leave an orphaned server.
    with interrupts_deferred():
        process = subprocess.Popen(
            [sys.executable, "-c", program, "serve", *options],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    try:
        found = next((match for line in process.stdout or () if (match := _READY.match(line))), None)
        if found is None:
            raise ServerError(f"'ssd-triton serve' did not start: see {relative_to_cwd(log)} and the lines above")
        yield AttackedServer("127.0.0.1", int(found["grpc"]), int(found["http"])), process.pid
    finally:
        end_group(process, config.server.shutdown_timeout_s + 5)
