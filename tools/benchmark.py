"""Measure every variant of the detector that runs here, without a server: latency and images a second over batch size.

Variants take turns; a GPU is timed by CUDA events. Writes CSV, JSON and two plots: images a second with the machine's
physical limit, and acceleration relative to the baseline.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.common.labels import load_labels
from ssd_triton.config import Config


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto takes a GPU where there is one")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 8, 16, 32, 64], help="batch sizes")
    parser.add_argument("--turns", type=int, default=5, help="of each variant at each batch size")
    parser.add_argument("--weights-path", type=Path, default=config.weights_path, help=".pt or .safetensors")
    parser.add_argument("--output", type=Path, default=Path("reports/benchmark"), help="folder for the results")


def main() -> int:
    """Measure, write the report and print the table."""
    args, config = runner.parse(str(__doc__), "python tools/benchmark.py --device cpu --batch 1 4", add_arguments)
    from ssd_triton.detector.device import choose_device
    from ssd_triton.detector.network.ssd import ServedDetector
    from ssd_triton.detector.variants import BASELINE
    from ssd_triton.detector.weights.file import WeightsFile
    from ssd_triton.measuring.benchmark import report, run, timing
    from ssd_triton.serving.runnable import runnable_variants

    device = choose_device(args.device)
    network = WeightsFile(args.weights_path).load_network(config.backbone, len(load_labels(config.labels_path)))
    detector = ServedDetector(network).eval()
    variants = runnable_variants(config, detector, device)
    limit = run.measure_limit(detector, device)
    timings = run.benchmark(variants, args.batch, args.turns, device)
    baseline = BASELINE["gpu" if device.type == "cuda" else "cpu"]
    report.write_report(args.output, timings, limit, timing.device_environment(device), baseline)
    print(report.rates_table(timings).markdown())
    print(f"{limit.describe(max(args.batch))}; report in {args.output}")
    return 0


if __name__ == "__main__":
    runner.run(main)
