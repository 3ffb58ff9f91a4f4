"""Time the post-processing of the GPU variants by itself, on a GPU or a CPU, beside the ONNX graph on the CPU.

It runs the artefact that is served, on predictions that the detector makes of real images, and on crowded ones, with
more candidates in every class of every image than enter suppression; CUDA events time it, launches and waiting
included. What a GPU gives is compared with the same module on the CPU. Needs neither Triton's client nor config.yml:
PyTorch, NumPy, Pillow, Matplotlib and safetensors are enough, and ONNX Runtime is used where it is installed.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.common.files import ROOT

POSTPROCESS = ROOT / "model_repository" / "ssd_postprocess" / "1"
LABELS = ROOT / "model_repository" / "ssd_detector" / "labels.txt"
WEIGHTS = ROOT / "weights" / "ssd300_resnet50_demo.safetensors"


def arguments() -> argparse.ArgumentParser:
    """Options of this command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example:\n  PYTHONPATH=. python perf/postprocess_rate.py --batch 1 8 64 --images coco/val2017",
        formatter_class=runner.HelpFormatter,
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto takes a GPU where there is one")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 64], help="batch sizes")
    parser.add_argument("--turns", type=int, default=5, help="of each form at each batch size")
    parser.add_argument("--images", type=Path, help="folder of photographs (views of a bundled one)")
    parser.add_argument("--num-images", type=int, default=64, help="how many different ones")
    parser.add_argument("--module", type=Path, default=POSTPROCESS / "model.pt", help="TorchScript")
    parser.add_argument("--onnx", type=Path, default=POSTPROCESS / "model.onnx", help="to compare with")
    parser.add_argument("--weights-path", type=Path, default=WEIGHTS, help="of the detector, .pt or .safetensors")
    parser.add_argument("--backbone", default="resnet50", help="of the weights")
    parser.add_argument("--labels-path", type=Path, default=LABELS, help="of the weights")
    parser.add_argument("--output", type=Path, default=Path("reports/postprocess_rate"), help="folder: table and plot")
    return parser


def main() -> int:
    """Measure and print the table."""
    args = arguments().parse_args()
    from ssd_triton.common.labels import load_labels
    from ssd_triton.detector.device import choose_device
    from ssd_triton.detector.export.samples import photographs
    from ssd_triton.detector.network.ssd import ServedDetector
    from ssd_triton.detector.weights.file import WeightsFile
    from ssd_triton.measuring.benchmark import postprocess_rate as postprocess
    from ssd_triton.measuring.benchmark.timing import device_environment

    device = choose_device(args.device)
    script = postprocess.load_script(args.module, device)
    num_labels = len(load_labels(args.labels_path))
    detector = ServedDetector(WeightsFile(args.weights_path).load_network(args.backbone, num_labels)).eval().to(device)
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


if __name__ == "__main__":
    runner.run(main)
