"""Drive the scenarios of UN R152 and Euro NCAP with braking in the loop, and print what came of it as a Markdown table.

Detections are the truth with the noise of world.noise in config.yml. With --serve or --url the full stack is driven:
each frame is rendered and goes through the server. That is one run after the other, at about 0.2 s a frame on a CPU:
choose some with --scenario, and a lower --fps. Exit code 1 when a row fails; rows that are 'reported' are not judged.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.common.labels import load_labels
from ssd_triton.common.machine import cores
from ssd_triton.config import Config
from ssd_triton.driving.camera import configured_camera
from ssd_triton.serving.connect import add_connection_arguments, connect
from ssd_triton.simulation import find_scenario, scenarios
from ssd_triton.simulation.clip import DEFAULT_FPS, DEFAULT_SIZE_PX
from ssd_triton.simulation.judging.evaluate import Setup, evaluate
from ssd_triton.simulation.judging.report import describe_setup, results_table, write_report

EXAMPLE = (
    "python tools/evaluate_braking.py --seeds 50\n"
    "  python tools/evaluate_braking.py --serve onnx_int8 --scenario ccrs-40 --fps 10"
)


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("--scenario", nargs="+", metavar="NAME", help="of render_scenario.py --list; None drives all")
    parser.add_argument("--seeds", type=int, metavar="N", help="runs of each; None: 5, and 1 through a server")
    parser.add_argument(
        "--pitch-offsets-deg",
        type=float,
        nargs="+",
        default=[0.0, 0.5, -0.5],
        metavar="DEG",
        help="by which the camera looks down more than calibrated, where nothing may brake",
    )
    parser.add_argument("--fps", type=float, default=DEFAULT_FPS, help="frames a second")
    parser.add_argument(
        "--latency-s", type=float, default=config.demo.assumed_latency_s, help="from camera to decision, seconds"
    )
    parser.add_argument("--jobs", type=int, default=cores(), help="processes; 1 through a server")
    parser.add_argument("--output", type=Path, default=Path("reports/braking"), help="folder for the results")
    add_connection_arguments(parser, config)
    # A server's address in config.yml is one to use when asked, and does not ask for it.
    parser.set_defaults(url=None)


def main() -> int:
    """Drive, write the report and print the table."""
    args, config = runner.parse(str(__doc__), EXAMPLE, add_arguments)
    labels = load_labels(config.labels_path)
    camera = configured_camera(config.camera, DEFAULT_SIZE_PX)
    setup = Setup(config, labels, camera, args.fps, args.latency_s)
    chosen = [find_scenario(name) for name in args.scenario] if args.scenario else list(scenarios())
    full_stack = args.serve is not None or args.url is not None
    seeds = args.seeds if args.seeds is not None else (1 if full_stack else 5)
    if full_stack:
        with connect(args, config) as client:
            results = evaluate(
                setup, chosen, seeds=seeds, pitch_offsets_deg=args.pitch_offsets_deg, detect=client.detect_frame
            )
    else:
        results = evaluate(setup, chosen, seeds=seeds, pitch_offsets_deg=args.pitch_offsets_deg, jobs=args.jobs)
    source = (args.serve or args.url) if full_stack else None
    title = "Braking, full stack: rendered frames" if full_stack else "Braking, ground-truth detections"
    stem = "braking_full_stack" if full_stack else "braking"
    write_report(args.output, stem, title, results, describe_setup(setup, source))
    print(f"{title}\n\n{results_table(results)}")
    return 1 if any(one.judged and one.failed for one in results) else 0


if __name__ == "__main__":
    runner.run(main)
