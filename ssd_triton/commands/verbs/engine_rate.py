"""Time the stages of the one process without a server, and name the one that limits it.

Checking files, decoding, resizing, and the network with its post-processing are timed one by one, in turns. Then
processes feed the whole engine through its own socket and shared memory, as the instances of a server do. With --sweep,
table and picture show beside it what a server reached. Needs no Triton, only PyTorch, NumPy, Pillow, Matplotlib and the
packages that read the configuration; where a GPU has no nvImageCodec, PIL decodes, and the report says so.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton.commands.options import POSITIVE, SECONDS, add_option
from ssd_triton.commands.shared import add_device_option, add_output_option
from ssd_triton.config import Config

EXAMPLE = "ssd-triton engine-rate --images photographs --sweep reports/sweeps/gpu"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    add_device_option(parser)
    parser.add_argument(
        "--batch", type=POSITIVE, nargs="+", help="images in a batch and in a job; by default 1 64, on a CPU 1 8"
    )
    parser.add_argument("--turns", type=POSITIVE, default=5, help="turns of each stage at each batch size")
    parser.add_argument("--feeders", type=POSITIVE, default=8, help="processes that feed the whole engine")
    parser.add_argument("--seconds", type=SECONDS, default=5.0, help="time to feed it at each batch size, seconds")
    parser.add_argument("--images", type=Path, help="folder of JPEG files; by default views of a bundled photograph")
    parser.add_argument("--num-images", type=POSITIVE, default=64, help="number of files")
    parser.add_argument("--detector", type=Path, help="TorchScript or TensorRT plan; by default pytorch_fused_fp16")
    parser.add_argument("--sweep", type=Path, help="folder that 'ssd-triton sweep' has written, to compare with")
    add_option(parser, config, "--model-repository", "model_repository")
    add_output_option(parser, "reports/engine_rate")


def run(args: argparse.Namespace, config: Config) -> int:
    """Measure and print the table."""
    from ssd_triton.common.interrupts import interrupt_once
    from ssd_triton.detector.device import choose_device
    from ssd_triton.measuring.benchmark.engine_files import Setup, encoded_images
    from ssd_triton.measuring.benchmark.engine_rate import measure_engine_rate
    from ssd_triton.measuring.benchmark.engine_report import server_rates, write_report
    from ssd_triton.measuring.benchmark.timing import device_environment

    device = choose_device(args.device)
    setup = Setup.of(config.model_repository, str(device), args.detector)
    served = [] if args.sweep is None else server_rates(args.sweep, setup.detector.stem)
    files = encoded_images(args.images, args.num_images)
    batches = args.batch or ([1, 8] if device.type == "cpu" else [1, 64])
    interrupt_once()
    rates, notes = measure_engine_rate(
        setup, files, device, batches=batches, turns=args.turns, feeders=args.feeders, seconds=args.seconds
    )
    print(write_report(args.output, [*rates, *served], device_environment(device), notes), end="")
    return 0
