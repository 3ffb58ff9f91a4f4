"""All verbs, by group, each with a one-line summary and a module.

The module of a verb has ``EXAMPLE``, ``add_arguments(parser, config)`` and ``run(args, config)``; its docstring is the
description in the help. It imports nothing heavy at the top, so that ``--help`` answers at once and without optional
dependencies.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verb:
    """One verb of ``ssd-triton``.

    Attributes:
        name: Name on the command line.
        group: Heading in the overview.
        summary: One line.
    """

    name: str
    group: str
    summary: str

    @property
    def module(self) -> str:
        """Name of the verb's module."""
        return f"{__name__}.{self.name.replace('-', '_')}"


_GROUPS: dict[str, dict[str, str]] = {
    "detect": {
        "serve": "serve the model repository with a Triton server, until Ctrl-C",
        "status": "state of a running server: models, queues, latency, memory",
        "detect": "objects in images, folders of images, or a video",
        "demo": "a drive with road users, warnings and braking drawn in",
        "view": "pictures, a camera, drives and the server's state in a browser",
    },
    "prepare models": {
        "fetch-weights": "download NVIDIA's published checkpoint",
        "build": "all artefacts of the model repository that are out of date",
        "export": "one ONNX file: the detector, or its post-processing",
        "quantize": "an INT8 detector, and the measurements that it needs",
        "engine": "a TensorRT engine of the detector",
    },
    "evaluate": {
        "coco-eval": "COCO AP of what a server serves",
        "compare-accuracy": "COCO AP of all variants against PyTorch FP32",
        "parity": "outputs of all variants against PyTorch FP32",
        "evaluate-braking": "UN R152 and Euro NCAP scenarios with braking in the loop",
        "evaluate-rendered": "recall by kind and range in rendered traffic",
    },
    "measure": {
        "sweep": "throughput and latency of a server, with perf_analyzer",
        "report": "report of a sweep, or comparison with an earlier one",
        "benchmark": "latency and throughput of all variants, without a server",
        "soak": "a server under good and bad requests, its memory watched",
        "overload": "a server under several times the load that saturates it",
        "attack": "hostile requests of all kinds beside good ones",
        "drain": "one of two replicas taken away under load",
        "fuzz": "preprocessing with mutated images of every format",
        "client-rate": "throughput of the Python client against perf_analyzer",
        "decode-rate": "images a second that the cores decode and resize",
        "demo-rate": "time that the demo adds to the detector's own",
        "engine-rate": "stages of the one process, and the one that limits it",
        "postprocess-rate": "time of the post-processing by itself",
        "reduced-decode": "AP lost and time saved by decoding JPEGs at reduced scale",
    },
    "train": {
        "train": "training or fine-tuning on data sets in COCO's format",
        "label": "boxes of another detector, as annotations to train on",
        "interpolate": "the best average of two networks of one origin",
        "default-weights": "the bundled weights, made in one go",
    },
    "drive": {
        "calibrate": "a camera file: how a camera is mounted",
        "render-scenario": "a scenario as a dash-cam clip with its ground truth",
        "render-dataset": "random scenes as a training set in COCO's format",
    },
    "deploy": {"container": "entry point of the container: engine first, then tritonserver"},
    "set up": {
        "config": "the configuration in force, its schema and its reference",
        "completion": "completion for bash, zsh or tcsh",
    },
}
VERBS = {name: Verb(name, group, summary) for group, verbs in _GROUPS.items() for name, summary in verbs.items()}
"""All verbs by name, in the order of the overview."""
