"""Measure latency and images a second over batch size, for every variant that runs here, without a server.

Variants take turns; a GPU is timed with CUDA events. Writes CSV, JSON and two plots: images a second with the machine's
physical limit, and the speed-up over the baseline.
"""

from __future__ import annotations

import argparse

from ssd_triton.commands.options import POSITIVE, add_option
from ssd_triton.commands.shared import add_device_option, add_output_option
from ssd_triton.config import Config

EXAMPLE = "ssd-triton benchmark --device cpu --batch 1 4"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    add_device_option(parser)
    parser.add_argument("--batch", type=POSITIVE, nargs="+", default=[1, 4, 8, 16, 32, 64], help="batch sizes")
    parser.add_argument("--turns", type=POSITIVE, default=5, help="turns of each variant at each batch size")
    add_option(parser, config, "--weights-path", "weights_path")
    add_output_option(parser, "reports/benchmark")


def run(args: argparse.Namespace, config: Config) -> int:
    """Measure, write the report and print the table."""
    from ssd_triton.common.labels import load_labels
    from ssd_triton.detector.device import choose_device
    from ssd_triton.detector.network.ssd import ServedDetector
    from ssd_triton.detector.variants import BASELINE
    from ssd_triton.detector.weights.file import WeightsFile
    from ssd_triton.measuring.benchmark import report, timing
    from ssd_triton.measuring.benchmark import run as run_benchmark
    from ssd_triton.serving.runnable import runnable_variants

    device = choose_device(args.device)
    network = WeightsFile(config.weights_path).load_network(config.backbone, len(load_labels(config.labels_path)))
    detector = ServedDetector(network).eval()
    variants = runnable_variants(config, detector, device)
    limit = run_benchmark.measure_limit(detector, device)
    timings = run_benchmark.benchmark(variants, args.batch, args.turns, device)
    baseline = BASELINE["gpu" if device.type == "cuda" else "cpu"]
    report.write_report(args.output, timings, limit, timing.device_environment(device), baseline)
    print(report.rates_table(timings).markdown())
    print(f"{limit.describe(max(args.batch))}; report in {args.output}")
    return 0
