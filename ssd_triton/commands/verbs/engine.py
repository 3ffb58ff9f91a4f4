"""Build a TensorRT engine of the detector, and print its layers.

TensorRT builds for the GPU of this machine; --runtime tensorrt-rtx can also build for a compute capability without any
GPU. FP16 is cast from the FP32 file; INT8 needs a quantised file. A JSON file beside the plan records its sources and
its target; a plan that does not fit is refused when it is loaded. A build that fails or is interrupted leaves the old
engine in place.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

from ssd_triton.commands.options import add_option
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import Config

EXAMPLE = "ssd-triton engine --precision fp16 --runtime tensorrt-rtx --compute-capability 8.9"
_PRECISIONS = ("fp32", "fp16", "int8")


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    parser.add_argument("--precision", choices=_PRECISIONS, default="fp16", help="precision of the engine")
    add_option(parser, config, "--runtime", "tensorrt.runtime")
    parser.add_argument(
        "--compute-capability", metavar="X.Y", help="compute capability of the GPU to build for; by default this GPU's"
    )
    parser.add_argument("--onnx", type=Path, help="ONNX file of the detector; by default the model repository's")
    parser.add_argument(
        "--output", type=Path, help="plan to write; by default the one that the model repository serves"
    )
    add_option(parser, config, "--model-repository", "model_repository")
    add_option(parser, config, "--builder-optimization-level", "tensorrt.builder_optimization_level")
    add_option(parser, config, "--workspace-mib", "tensorrt.workspace_mib")
    add_option(parser, config, "--tf32", "tensorrt.tf32")


def run(args: argparse.Namespace, config: Config) -> int:
    """Build one engine and print its layers."""
    from ssd_triton.detector.engines.build import build_engine, unexpected_layers
    from ssd_triton.detector.engines.metadata import inspect_engine
    from ssd_triton.detector.variants import engine_variant
    from ssd_triton.serving.repository.repository import ModelRepository

    repository = ModelRepository(config.model_repository)
    served = repository.engine(engine_variant(args.precision).name, config.tensorrt, args.compute_capability)
    engine = replace(served, path=args.output or served.path, onnx=args.onnx or served.onnx)
    metadata = build_engine(engine)
    for problem in unexpected_layers(metadata):
        logging.warning("unexpected in a %s engine: %s", metadata.precision, problem)
    print(
        f"{relative_to_cwd(engine.path)}: {metadata.precision} for compute capability {metadata.compute_capability}, "
        f"batch {metadata.profile}, {metadata.runtime} {metadata.runtime_version}, "
        f"{engine.path.stat().st_size / 1e6:.1f} MB, built in {metadata.build_s:.1f} s"
    )
    print(inspect_engine(engine.path).table())
    return 0
