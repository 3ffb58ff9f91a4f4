"""Show in a browser what the detector finds in pictures, a camera and drives, and the state of the server.

Runs a small web server on loopback, which talks to the Triton server through the project's client. The page loads
nothing from elsewhere and stores nothing. Beyond loopback it requires TLS, and every browser needs the token in the
printed address. Without --serve it uses a running server, and waits for one that is away.
"""

from __future__ import annotations

import argparse
import contextlib
import logging

from ssd_triton.commands.options import add_option
from ssd_triton.commands.shared import add_connection_options
from ssd_triton.common.interrupts import interrupt_once
from ssd_triton.config import Config

EXAMPLE = "ssd-triton view --serve --clips drives/"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    for name in ("host", "port", "clips", "upload_mib", "max_drives"):
        add_option(parser, config, f"--{name.replace('_', '-')}", f"view.{name}")
    add_option(parser, config, "--page-certificate", "view.certificate")
    add_option(parser, config, "--page-private-key", "view.private_key")
    add_option(parser, config, "--page-token-file", "view.token_file")
    parser.add_argument("--no-browser", action="store_true", help="the address alone, without opening a browser")
    parser.add_argument(
        "--metrics-url", help="address of the server's metrics; by default server.metrics_port on the host of --url"
    )
    add_connection_options(parser, config)
    drives = parser.add_argument_group("drives")
    add_option(drives, config, "--camera", "camera.file")
    add_option(drives, config, "--ego-speed-kmh", "braking.ego_speed_kmh")


def run(args: argparse.Namespace, config: Config) -> int:
    """Show the page until interrupted."""
    from ssd_triton.viewing.run import open_browser, run_page

    def report_ready(address: str) -> None:
        print(f"page: {address} ; Ctrl-C stops", flush=True)
        if not args.no_browser:
            open_browser(address)

    with contextlib.suppress(KeyboardInterrupt):
        interrupt_once()
        run_page(
            config,
            serve=args.serve,
            metrics_url=args.metrics_url,
            report_ready=report_ready,
        )
    logging.info("the page has ended")
    return 0
