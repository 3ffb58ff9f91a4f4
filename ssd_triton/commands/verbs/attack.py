"""Send hostile requests of all kinds to a server of this machine, beside good ones whose answers are checked.

The server must listen on loopback; --serve starts one for this run. Images that cost much, shapes that wrap, compressed
bodies, broken requests, cancelled calls, idle connections and mutated images come by turns, after a calm phase. Writes
attack.md, attack.csv and attack.png, also after Ctrl-C. Exit code 1 when a good request got a wrong answer or none, or
the server broke a limit of latency, CPU time, memory or restarts.
"""

from __future__ import annotations

import argparse
import logging
from contextlib import ExitStack

from ssd_triton.commands.options import COUNT, FRACTION, POSITIVE, POSITIVE_NUMBER, add_option
from ssd_triton.commands.shared import add_output_option
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import Config

EXAMPLE = "ssd-triton attack --serve --minutes 30 --min-requests 20000"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this verb."""
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
    parser.add_argument("--list", action="store_true", help="list of all kinds, without an attack")
    parser.add_argument("--seed", type=COUNT, default=0, help="seed of the requests")
    add_output_option(parser, "reports/attack")
    group = parser.add_argument_group("server")
    group.add_argument("--serve", action="store_true", help="server for this run alone")
    group.add_argument(
        "--pid", type=POSITIVE, help="process of the server, or one that starts it again; who listens there by default"
    )
    add_option(group, config, "--variant", "variant")
    for name in ("host", "grpc_port", "http_port"):
        add_option(group, config, f"--{name.replace('_', '-')}", f"server.{name}")


def run(args: argparse.Namespace, config: Config) -> int:
    """Attack and report; exit code 1 when a check failed, 130 when Ctrl-C ended it."""
    from ssd_triton.measuring.attack.kinds import all_kinds
    from ssd_triton.measuring.attack.report import attack_markdown, write_report
    from ssd_triton.measuring.attack.result import AttackSettings
    from ssd_triton.measuring.attack.run import attack
    from ssd_triton.measuring.attack.sending import Target
    from ssd_triton.serving.connect import serve_for_one_run

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
        seed=args.seed,
    )
    target, pid = Target(config.server.host, config.server.grpc_port, config.server.http_port), args.pid
    with ExitStack() as stack:
        if args.serve:
            server = stack.enter_context(serve_for_one_run(config, config.variant))
            target, pid = Target(server.config.host, server.grpc_port, server.http_port), server.pid
        result = attack(target, settings, pid)
    paths = write_report(args.output, result)
    print(attack_markdown(result), end="")
    for path in paths:
        logging.info("%s", relative_to_cwd(path))
    if result.ending is not None and "Ctrl-C" in result.ending:
        return 130
    return 0 if result.passed else 1
