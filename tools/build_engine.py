"""Build a TensorRT engine of the detector, and say what is in it.

TensorRT builds for the GPU of this machine; --runtime tensorrt-rtx can also build for a compute capability without any
GPU. FP16 is cast from the FP32 file, INT8 needs a quantised file. Beside the plan goes a JSON file with what it was
built from and for; a plan that does not fit is refused when it is loaded. A build that fails or is interrupted leaves
the old engine in place.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import get_args

from ssd_triton.commands import runner
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import RUNTIME_NAMES, Config
from ssd_triton.detector.engines.metadata import EngineMetadata, inspect_engine
from ssd_triton.detector.variants import Precision, engine_variant
from ssd_triton.serving.repository.repository import ModelRepository


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    settings = config.tensorrt
    parser.add_argument("--precision", choices=get_args(Precision), default="fp16", help="of the engine")
    parser.add_argument("--runtime", choices=RUNTIME_NAMES, default=settings.runtime, help="the builder library")
    parser.add_argument("--compute-capability", metavar="X.Y", help="of the GPU to build for, such as 8.9 (this GPU's)")
    parser.add_argument("--onnx", type=Path, help="the detector (that of the precision in the model repository)")
    parser.add_argument("--output", type=Path, help="plan to write (tensorrt_<precision>.plan in the model repository)")
    parser.add_argument("--model-repository", type=Path, default=config.model_repository, help="folder")
    parser.add_argument(
        "--builder-optimization-level",
        type=int,
        choices=range(6),
        default=settings.builder_optimization_level,
        help="0 builds fastest, 5 searches longest",
    )
    parser.add_argument(
        "--workspace-mib", type=_positive, default=settings.workspace_mib, help="GPU memory for one layer, at most"
    )
    parser.add_argument(
        "--tf32", action=argparse.BooleanOptionalAction, default=settings.tf32, help="FP32 with 10 bits of mantissa"
    )


def main() -> int:
    """Build one engine and print its layers."""
    args, config = runner.parse(
        str(__doc__),
        "python tools/build_engine.py --precision fp16 --runtime tensorrt-rtx --compute-capability 8.9",
        add_arguments,
    )
    # ONNX is imported by these only: --help and usage errors answer at once.
    from ssd_triton.detector.engines.build import build_engine, unexpected_layers

    settings = config.tensorrt.model_copy(
        update={
            "runtime": args.runtime,
            "builder_optimization_level": args.builder_optimization_level,
            "workspace_mib": args.workspace_mib,
            "tf32": args.tf32,
        }
    )
    repository = ModelRepository(args.model_repository)
    served = repository.engine(engine_variant(args.precision).name, settings, args.compute_capability)
    engine = replace(served, path=args.output or served.path, onnx=args.onnx or served.onnx)
    metadata = build_engine(engine)
    for problem in unexpected_layers(metadata):
        logging.warning("unexpected in a %s engine: %s", metadata.precision, problem)
    _print(engine.path, metadata)
    return 0


def _positive(text: str) -> int:
    """An integer above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}, expected 1 or more")
    return value


def _print(plan: Path, metadata: EngineMetadata) -> None:
    """One line on the engine, and the table of its layers."""
    print(
        f"{relative_to_cwd(plan)}: {metadata.precision} for compute capability {metadata.compute_capability}, "
        f"batch {metadata.profile}, {metadata.runtime} {metadata.runtime_version}, "
        f"{plan.stat().st_size / 1e6:.1f} MB, built in {metadata.build_s:.1f} s"
    )
    print(inspect_engine(plan).table())


if __name__ == "__main__":
    runner.run(main)
