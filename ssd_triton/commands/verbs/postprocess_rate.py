"""Time the post-processing of the GPU variants alone, on a GPU or a CPU, beside the ONNX graph on the CPU.

The served artefact runs on the detector's predictions for real images, and on crowded predictions, which have more
candidates in every class of every image than enter suppression. CUDA events time it, launches and waiting included. The
detections of a GPU are compared with those of the same module on the CPU. Needs no Triton client, only PyTorch, NumPy,
Pillow, Matplotlib, safetensors and the packages that read the configuration; uses ONNX Runtime if it is installed.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from ssd_triton.commands.options import POSITIVE, add_option
from ssd_triton.commands.shared import add_device_option, add_output_option
from ssd_triton.common.model_names import POSTPROCESS
from ssd_triton.config import Config

EXAMPLE = "ssd-triton postprocess-rate --batch 1 8 64 --images coco/val2017"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    folder = config.model_repository / POSTPROCESS / "1"
    add_device_option(parser)
    parser.add_argument("--batch", type=POSITIVE, nargs="+", default=[1, 8, 64], help="batch sizes")
    parser.add_argument("--turns", type=POSITIVE, default=5, help="turns of each form at each batch size")
    parser.add_argument("--images", type=Path, help="folder of photographs; by default views of a bundled one")
    parser.add_argument("--num-images", type=POSITIVE, default=64, help="number of photographs")
    parser.add_argument("--module", type=Path, default=folder / "model.pt", help="TorchScript module")
    parser.add_argument("--onnx", type=Path, default=folder / "model.onnx", help="ONNX graph to compare with")
    add_option(parser, config, "--weights-path", "weights_path")
    add_option(parser, config, "--backbone", "backbone")
    add_option(parser, config, "--labels-path", "labels_path")
    add_output_option(parser, "reports/postprocess_rate")


def run(args: argparse.Namespace, config: Config) -> int:
    """Measure and print the table."""
    from ssd_triton.common.labels import load_labels
    from ssd_triton.detector.device import choose_device
    from ssd_triton.detector.export.samples import photographs
    from ssd_triton.detector.network.ssd import ServedDetector
    from ssd_triton.detector.weights.file import WeightsFile
    from ssd_triton.measuring.benchmark import postprocess_rate as postprocess
    from ssd_triton.measuring.benchmark.timing import device_environment

    device = choose_device(args.device)
    script = postprocess.load_script(args.module, device)
    num_labels = len(load_labels(config.labels_path))
    network = WeightsFile(config.weights_path).load_network(config.backbone, num_labels)
    detector = ServedDetector(network).eval().to(device)
    kinds = {
        postprocess.PHOTOGRAPHS: postprocess.photographs(detector, photographs(args.images, args.num_images), device),
        postprocess.CROWDED: postprocess.crowded(num_labels, device),
    }
    onnx = args.onnx if args.onnx.is_file() and find_spec("onnxruntime") is not None else None
    found = postprocess.measure_postprocess(
        script, kinds, batches=args.batch, turns=args.turns, device=device, onnx=onnx
    )
    print(postprocess.write_report(args.output, found, device_environment(device)), end="")
    return 0
