"""Generates files of the model repository, so that every fact has one source.

- Limits and thresholds are in ``ssd_preprocess/config.pbtxt`` and ``ssd_postprocess/config.pbtxt``. Settings that
  differ for variants on a GPU are in ``gpu.pbtxt`` beside them, and in ``engine.pbtxt`` where an engine decodes for an
  ensemble. They are merged into a ``configs/NAME.pbtxt`` for each of these variants, since Triton reads only that file
  for ``--model-config-name NAME``.
- ``ssd_detector/config.pbtxt`` is a copy of the configuration of the default variant.
- The number of classes comes from the labels file, the number of detections from ``detections_per_img``: both are the
  first dimension of several tensors.
- ``ssd_preprocess_frames`` is ``ssd_preprocess`` with another input (``frames.pbtxt``), and shares most of its code.
- ``ssd`` and ``ssd_frames`` are not ensembles for fused variants, nor for other variants on a GPU that have a file for
  it: their configuration there is ``one_process.pbtxt``, merged with the limits of preprocessing.
- ``structured_log.py`` is copied from the backends, ``untrusted.py``, ``cores.py`` and ``plan.py`` from the package,
  since a model imports nothing from outside its folder.

A generated file begins with a line that holds the digest of the rest. A file whose digest is wrong was edited by hand:
it is refused, not overwritten.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

from ssd_triton import common, media
from ssd_triton.common.errors import ConfigError
from ssd_triton.common.files import SHIPPED, atomic_output, relative_to_cwd
from ssd_triton.common.model_names import (
    DETECTOR,
    ENSEMBLE,
    FRAMES_ENSEMBLE,
    POSTPROCESS,
    PREPROCESS,
    PREPROCESS_FRAMES,
)
from ssd_triton.detector import engines
from ssd_triton.detector.variants import RECOMMENDED, VARIANTS
from ssd_triton.serving.repository.model_config import (
    ModelConfig,
    first_difference,
    overlaid,
    parse_model_config,
    read_config_text,
    to_text,
)
from ssd_triton.serving.repository.repository import ModelRepository

_BUILD = "ssd-triton build"
_SHARED = {
    PREPROCESS: (
        "max_file_bytes",
        "max_pixels",
        "max_request_pixels",
        "max_cpu_s",
        "min_side_px",
        "reduced_decode_ratio",
    ),
    POSTPROCESS: ("score_thresh", "topk_candidates", "nms_thresh", "detections_per_img"),
}
"""Parameters that all configurations of a model must agree on."""
_FIRST_LINE = re.compile(r"# Written from .*, do not edit\. Digest: (?P<digest>[0-9a-f]{16})")
_DETECTIONS = ("detection_boxes", "detection_scores", "detection_classes")
_LOG = "structured_log.py"
_UNTRUSTED = "untrusted.py"
_CORES = "cores.py"
_PLAN = "plan.py"
_SHARED_CODE = ("answering.py", "decoding.py")
"""Files of ``ssd_preprocess`` that are copied to all other models that take images."""
_ISOLATION = "isolation.py"
_CLIENT_CODE = ("engine_client.py", "protocol.py")
"""Files of ``ssd`` that are copied to ``ssd_frames`` and ``ssd_preprocess``: they connect to the engine."""
_ONE_PROCESS = "one_process.py"
_FILES_CODE = ("baseline.py", "encoded.py")
"""Files of ``ssd`` that are copied to ``ssd_preprocess``: they choose the files that the engine decodes."""

_Texts = dict[Path, str]


def outdated_files(repository: ModelRepository, labels: tuple[str, ...], *, relabel: bool = False) -> _Texts:
    """Find the files that the build must write.

    Args:
        repository: The repository.
        labels: The classes, the background included.
        relabel: Whether the user named the classes explicitly: configurations with another number of classes are then
            rewritten instead of refused.

    Returns:
        The new text by file; empty when everything is current.

    Raises:
        ConfigError: A generated file was edited by hand, configurations disagree, or one cannot be read.
    """
    counts = {"conf": len(labels), **dict.fromkeys(_DETECTIONS, repository.thresholds.detections_per_img)}
    written = {path: read_config_text(path) for path in _sources(repository.path)}
    _check_agreement(written, _DETECTIONS, advice="change detections_per_img alone")
    if not relabel:
        _check_agreement(written, ("conf",), advice=f"run '{_BUILD} --labels FILE'")
    wanted = {path: _with_counts(path, text, counts) for path, text in written.items()}
    for model, names in _SHARED.items():
        _check_shared_parameters(repository.path / model, wanted, names)
    if (repository.path / DETECTOR).is_dir():
        wanted[repository.path / DETECTOR / "labels.txt"] = "\n".join(labels) + "\n"
    stale = {path: text for path, text in wanted.items() if not path.is_file() or path.read_bytes() != text.encode()}
    for path, source, body in _copies(repository, wanted):
        if not _is_current(path, source, body):
            stale[path] = _with_first_line(source, body)
    return stale


def write_files(texts: Mapping[Path, str]) -> None:
    """Write files, each whole or not at all."""
    for path, text in texts.items():
        with atomic_output(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _sources(root: Path) -> Iterator[Path]:
    """Yield every configuration that is written by hand."""
    for path in sorted(
        {
            *root.glob("*/config.pbtxt"),
            *root.glob("*/gpu.pbtxt"),
            *root.glob("*/engine.pbtxt"),
            *root.glob("*/frames.pbtxt"),
            *root.glob("*/one_process.pbtxt"),
            *root.glob("*/configs/*.pbtxt"),
        }
    ):
        if not _FIRST_LINE.fullmatch(read_config_text(path).partition("\n")[0]):
            yield path


def _check_agreement(texts: Mapping[Path, str], tensors: tuple[str, ...], *, advice: str) -> None:
    """Refuse tensors whose first dimensions differ; the error takes the most frequent value for the right one."""
    found = [
        (path, tensor)
        for path, text in texts.items()
        for config in [parse_model_config(text, path)]
        for tensor in (*config.input, *config.output)
        if tensor.name in tensors and len(tensor.dims)
    ]
    common = Counter(tensor.dims[0] for _, tensor in found).most_common(1)
    for path, tensor in found:
        if tensor.dims[0] != common[0][0]:
            other = next(one for one, same in found if same.dims[0] == common[0][0])
            raise ConfigError(
                f"{relative_to_cwd(path)}: {tensor.name} has dims {list(tensor.dims)}, expected "
                f"{[common[0][0], *tensor.dims[1:]]} as in {relative_to_cwd(other)}: {advice}"
            )


def _with_counts(path: Path, text: str, counts: Mapping[str, int]) -> str:
    """Return a configuration with the first dimension of some tensors changed; comments and layout stay."""
    for tensor, count in counts.items():
        text = re.sub(rf'((?:name|key): "{tensor}"[^\[\]]*dims: \[\s*)\d+', rf"\g<1>{count}", text)
    config = parse_model_config(text, path)
    for tensor in (*config.input, *config.output):
        if len(tensor.dims) and tensor.dims[0] != counts.get(tensor.name, tensor.dims[0]):
            raise ConfigError(
                f"{relative_to_cwd(path)}: {tensor.name} has dims {list(tensor.dims)}, expected {counts[tensor.name]} "
                "first: write the dims of a tensor after its name, as in dims: [ 81, 8732 ]"
            )
    return text


def _check_shared_parameters(model: Path, texts: Mapping[Path, str], names: tuple[str, ...]) -> None:
    """Refuse hand-written configurations of a model that disagree in limits or thresholds."""
    main = model / "config.pbtxt"
    if main not in texts:
        return
    expected = parse_model_config(texts[main], main).parameters
    for path, text in texts.items():
        if model not in path.parents:
            continue
        got = parse_model_config(text, path).parameters
        for name in names:
            if name in got and got[name].string_value != expected[name].string_value:
                raise ConfigError(
                    f"{relative_to_cwd(path)}: {name} is {got[name].string_value}, expected "
                    f"{expected[name].string_value} as in {relative_to_cwd(main)}: change it there, and leave it out "
                    "here"
                )


def _copies(repository: ModelRepository, texts: Mapping[Path, str]) -> Iterator[tuple[Path, str, str]]:
    """Yield every generated file, a description of its sources, and its text after the first line."""
    root = repository.path
    default = root / DETECTOR / "configs" / f"{RECOMMENDED['cpu']}.pbtxt"
    if default in texts:
        yield root / DETECTOR / "config.pbtxt", f"configs/{default.name}", texts[default]
    frames = root / PREPROCESS_FRAMES / "frames.pbtxt"
    for model, folder, overlays in (
        (PREPROCESS, root / PREPROCESS, ()),
        (POSTPROCESS, root / POSTPROCESS, ()),
        (PREPROCESS, root / PREPROCESS_FRAMES, (frames,)),
    ):
        main, gpu = root / model / "config.pbtxt", root / model / "gpu.pbtxt"
        if not {main, gpu, *overlays} <= texts.keys():
            continue
        if overlays:
            yield folder / "config.pbtxt", *_combined(folder, texts, (main, *overlays))
        engine = folder / "engine.pbtxt"
        for name in _on_gpu(repository):
            # Beside the one process, which decodes for itself, the ensemble's members are idle.
            decoding = () if engine not in texts or VARIANTS[name].is_fused else (engine,)
            yield folder / "configs" / f"{name}.pbtxt", *_combined(folder, texts, (main, gpu, *decoding, *overlays))
    yield from _one_process(repository, texts)
    yield from _copied_code(root)


def _on_gpu(repository: ModelRepository) -> list[str]:
    """Return the variants of the repository that run on a GPU."""
    return [name for name in repository.variants if name in VARIANTS and "gpu" in VARIANTS[name].precisions]


def _one_process(repository: ModelRepository, texts: Mapping[Path, str]) -> Iterator[tuple[Path, str, str]]:
    """Yield the one-process configurations of ``ssd`` and ``ssd_frames``, with the limits of preprocessing added."""
    root = repository.path
    main, frames = root / PREPROCESS / "config.pbtxt", root / PREPROCESS_FRAMES / "frames.pbtxt"
    for model, overlays in ((ENSEMBLE, ()), (FRAMES_ENSEMBLE, (frames,))):
        source = root / model / "one_process.pbtxt"
        if not {source, main, *overlays} <= texts.keys():
            continue
        words, _ = _combined(root / model, texts, (source, main, *overlays))
        limits = parse_model_config(texts[main], main)
        for overlay in overlays:
            limits = overlaid(limits, parse_model_config(texts[overlay], overlay))
        combined = parse_model_config(texts[source], source)
        for name in _SHARED[PREPROCESS]:
            combined.parameters[name].CopyFrom(limits.parameters[name])
        for name in _on_gpu(repository):
            path = root / model / "configs" / f"{name}.pbtxt"
            if VARIANTS[name].is_fused or _is_generated(path):
                combined.parameters["detector"].string_value = f"{DETECTOR}/1/{VARIANTS[name].file}"
                yield path, words, to_text(combined)


def _combined(folder: Path, texts: Mapping[Path, str], paths: tuple[Path, ...]) -> tuple[str, str]:
    """Merge configurations, each over those before it; return their names, relative to ``folder``, and the text."""
    combined = parse_model_config(texts[paths[0]], paths[0])
    for path in paths[1:]:
        combined = overlaid(combined, parse_model_config(texts[path], path))
    names = [path.name if path.parent == folder else f"{path.parent.name}/{path.name}" for path in paths]
    return " and ".join(names), to_text(combined)


def _copied_code(root: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield the copies of shared code: each model has its own, since it imports nothing from outside its folder."""
    files, frames, ssd, ssd_frames = (
        root / model / "1" for model in (PREPROCESS, PREPROCESS_FRAMES, ENSEMBLE, FRAMES_ENSEMBLE)
    )
    sources = [
        (folder / name, files / name, f"{PREPROCESS}/1/{name}")
        for folder in (frames, ssd, ssd_frames)
        for name in _SHARED_CODE
    ]
    sources.append((ssd / _ISOLATION, files / _ISOLATION, f"{PREPROCESS}/1/{_ISOLATION}"))
    for folder, names in ((ssd_frames, (*_CLIENT_CODE, _ONE_PROCESS)), (files, (*_CLIENT_CODE, *_FILES_CODE))):
        sources += [(folder / name, ssd / name, f"{ENSEMBLE}/1/{name}") for name in names]
    untrusted = Path(media.__file__).with_name(_UNTRUSTED)
    cores = Path(common.__file__).with_name(_CORES)
    for folder in (files, frames, ssd, ssd_frames):
        sources.append((folder / _LOG, SHIPPED / "backends" / _LOG, f"backends/{_LOG}"))
        sources.append((folder / _UNTRUSTED, untrusted, f"ssd_triton/media/{_UNTRUSTED}"))
        sources.append((folder / _CORES, cores, f"ssd_triton/common/{_CORES}"))
    sources.append((ssd / _PLAN, Path(engines.__file__).with_name(_PLAN), f"ssd_triton/detector/engines/{_PLAN}"))
    for copy, source, name in sources:
        if source.is_file() and copy.parent.is_dir():
            yield copy, name, source.read_text(encoding="utf-8")


def _is_generated(path: Path) -> bool:
    """Whether there is such a file, and the build wrote it."""
    return path.is_file() and _FIRST_LINE.fullmatch(read_config_text(path).partition("\n")[0]) is not None


def _is_current(path: Path, source: str, body: str) -> bool:
    """Whether a generated file is up to date; False if it is missing or was generated from older sources.

    Raises:
        ConfigError: It was edited by hand.
    """
    if not path.is_file():
        return False
    first, _, rest = read_config_text(path).partition("\n")
    match = _FIRST_LINE.fullmatch(first)
    as_written = match is not None and match["digest"] == _digest(rest)
    if path.suffix == ".pbtxt":
        # Compared by content, since the text format differs between versions of protobuf.
        got: ModelConfig = parse_model_config(rest, path)
        expected: ModelConfig = parse_model_config(body, path)
        if got == expected:
            return as_written
        difference = first_difference(got, expected)
    else:
        if rest == body:
            return as_written
        difference = "its text differs"
    if as_written:
        return False
    raise ConfigError(
        f"{relative_to_cwd(path)} was edited by hand: {difference} as {source} says; make the change there, delete the "
        f"file and run '{_BUILD}'"
    )


def _with_first_line(source: str, body: str) -> str:
    return f"# Written from {source} by the build, do not edit. Digest: {_digest(body)}\n{body}"


def _digest(body: str) -> str:
    return sha256(body.encode()).hexdigest()[:16]
