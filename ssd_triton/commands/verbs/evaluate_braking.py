"""Drive the scenarios of UN R152 and Euro NCAP with braking in the loop, and print the results as a Markdown table.

Detections are the ground truth plus the noise of simulation.noise in the configuration. With --serve or --url, the full
stack is tested: each frame is rendered and goes through the server. Such drives run one after the other, at about 0.2 s
a frame on a CPU: select a few with --scenario, and lower --fps. Exit code 1 when a row fails, or when more drives than
simulation.false_warnings allows have a warning where nobody may brake. Rows marked 'reported' are not judged.
"""

from __future__ import annotations

import argparse

from ssd_triton.commands.options import NUMBER, POSITIVE, add_option
from ssd_triton.commands.shared import add_connection_options, add_fps_option, add_output_option, asks_a_server
from ssd_triton.common.cores import usable_cores
from ssd_triton.config import Config

EXAMPLE = """ssd-triton evaluate-braking --seeds 50
  ssd-triton evaluate-braking --serve onnx_int8 --scenario ccrs-40 --fps 10"""


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "--scenario",
        nargs="+",
        metavar="NAME",
        help="scenarios of 'ssd-triton render-scenario --list'; by default all of them",
    )
    parser.add_argument("--seeds", type=POSITIVE, help="runs of each scenario; by default 5, and 1 through a server")
    parser.add_argument(
        "--pitch-offsets-deg",
        type=NUMBER,
        nargs="+",
        default=[0.0, 0.5, -0.5],
        help="angles by which the camera looks down more than calibrated, in scenarios where nothing may brake",
    )
    add_fps_option(parser)
    add_option(parser, config, "--latency-s", "demo.assumed_latency_s", description="delay from camera to decision")
    parser.add_argument("--jobs", type=POSITIVE, default=usable_cores(), help="processes; always 1 through a server")
    add_output_option(parser, "reports/braking")
    add_connection_options(parser, config)


def run(args: argparse.Namespace, config: Config) -> int:
    """Drive, write the report and print the table."""
    from ssd_triton.common.labels import load_labels
    from ssd_triton.driving.camera import configured_camera
    from ssd_triton.serving.connect import connect
    from ssd_triton.simulation import find_scenario, scenarios
    from ssd_triton.simulation.clip import DEFAULT_SIZE_PX
    from ssd_triton.simulation.judging.evaluate import Setup, evaluate, false_warning_share
    from ssd_triton.simulation.judging.report import describe_setup, results_table, write_report

    labels = load_labels(config.labels_path)
    camera = configured_camera(config.camera, DEFAULT_SIZE_PX)
    setup = Setup(config, labels, camera, args.fps, config.demo.assumed_latency_s)
    chosen = [find_scenario(name) for name in args.scenario] if args.scenario else list(scenarios())
    full_stack, offsets_deg = asks_a_server(args), args.pitch_offsets_deg
    if full_stack:
        with connect(config, serve=args.serve) as client:
            results = evaluate(
                setup, chosen, seeds=args.seeds or 1, pitch_offsets_deg=offsets_deg, detect=client.detect_frame
            )
    else:
        results = evaluate(setup, chosen, seeds=args.seeds or 5, pitch_offsets_deg=offsets_deg, jobs=args.jobs)
    source = (args.serve or config.client.url) if full_stack else None
    title = "Braking, full stack: rendered frames" if full_stack else "Braking, ground-truth detections"
    stem = "braking_full_stack" if full_stack else "braking"
    write_report(args.output, stem, title, results, describe_setup(setup, source))
    print(f"{title}\n\n{results_table(results)}")
    gates = config.simulation.false_warnings
    too_many = false_warning_share(results) > (gates.full_stack if full_stack else gates.ground_truth)
    return 1 if too_many or any(one.judged and one.failed for one in results) else 0
