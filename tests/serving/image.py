"""The Dockerfile, read, and the files that it copies."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from ssd_triton.common.files import ROOT
from ssd_triton.config import Config
from ssd_triton.serving.repository.build import ensure_built

DOCKERFILE = ROOT / "Dockerfile.triton"
ALIVE = ROOT / "deploy/container/alive.sh"
"""The probe of chart, KServe and Dockerfile."""


def instructions() -> list[tuple[str, str]]:
    """Keyword and arguments of each instruction, comments left out and continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def arguments_of(keyword: str) -> list[str]:
    return [rest for word, rest in instructions() if word == keyword]


def copied() -> list[tuple[str, str]]:
    """Source in the build context and destination in the image, of each COPY below the working folder."""
    return [(source, target) for source, target in all_copied() if not target.startswith("/")]


def all_copied() -> list[tuple[str, str]]:
    """Source in the build context and destination of each file or folder that is copied."""
    words = [rest.split() for rest in arguments_of("COPY")]
    return [(source, target) for *sources, target in words for source in sources]


def copy_image_files(config: Config, root: Path) -> Path:
    """Copy the project's files as the image has them."""
    ensure_built(config, lambda line: None, only=["onnx_int8", "pytorch_fp32"])
    for source, target in copied():
        path = root / target / (Path(source).name if target.endswith("/") else "")
        path.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            skip = shutil.ignore_patterns("__pycache__", "*.plan", "*.engine.json", "pytorch_*.pt", "onnx_fp32.onnx")
            shutil.copytree(ROOT / source, path, ignore=skip)
        else:
            shutil.copy(ROOT / source, path)
    return root
