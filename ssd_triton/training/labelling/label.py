"""Label a folder of photographs with a detector, or complete annotations that cover only some classes."""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import ImageError
from ssd_triton.common.files import relative_to_cwd, sha256_of
from ssd_triton.common.progress import progress
from ssd_triton.common.report import ReportFolder
from ssd_triton.config import LabelConfig
from ssd_triton.evaluation.annotations import Annotation, Category, Image, read_annotations
from ssd_triton.evaluation.answers import Answer, Answers, open_answers
from ssd_triton.evaluation.orientation import is_annotated_upright, upright_refusal
from ssd_triton.media.decoding import open_rgb
from ssd_triton.media.images import list_images, read_image
from ssd_triton.training.class_map import LEFT_OUT, ClassMap
from ssd_triton.training.errors import TrainingError
from ssd_triton.training.labelling.detectors import Labeller
from ssd_triton.training.labelling.look_alikes import Excluded, read_excluded
from ssd_triton.training.labelling.merging import NewBox, Truth, new_boxes
from ssd_triton.training.labelling.outcome import Outcome, page, sheet

ANNOTATIONS, RECORD, JOURNAL = "annotations.json", "label.json", "detections.jsonl"


@dataclass(frozen=True)
class LabelRequest:
    """What to label.

    Attributes:
        images: Folder of photographs.
        complete: Annotations to complete, for images in that folder; None labels every image of the folder.
        excluded: Folders of evaluation images, whose copies are left out.
        classes: The labels, and the mapping of other names to them.
        output: Folder for all files.
        restart: Drop the answers and annotations of an earlier run.
    """

    images: Path
    complete: Path | None
    excluded: Sequence[Path]
    classes: ClassMap
    output: Path
    restart: bool = False


@dataclass(frozen=True)
class _Given:
    """Images to label, with their existing annotations.

    Attributes:
        images: By ascending id.
        truth: Annotations by image id, as in the file.
        covered: Class ids whose objects are all annotated.
        class_ids: Class id by category id of the file.
    """

    images: tuple[Image, ...]
    truth: dict[int, list[Annotation]]
    covered: frozenset[int]
    class_ids: dict[int, int]


def label(labeller: Labeller, request: LabelRequest, settings: LabelConfig) -> Outcome:
    """Label, and write ``annotations.json``, ``label.json``, ``label.md`` and ``labels.jpg`` into the output folder.

    Every answer goes to a journal at once: after an interruption, the same call resumes.

    Args:
        labeller: The detector.
        request: What to label.
        settings: Thresholds.

    Raises:
        UserError: Images, annotations or classes do not fit, or a file cannot be read or written.
    """
    # The detector's classes are treated like the categories of a file: an unknown name needs an entry in the name map.
    names = [Category(id=number, name=name) for number, name in enumerate(labeller.labels[1:], start=1)]
    to_label = request.classes.class_ids(names, "the detector")
    given = _read_given(request)
    if not request.restart:
        _refuse_edited(request.output)
    outcome = Outcome(request.classes.labels)
    usable = list(_usable(request, given, read_excluded(request.excluded), outcome))
    fingerprint = {
        **labeller.fingerprint,
        "images_sha256": _digest(request.images, usable),
        "ignore_score": settings.ignore_score,
    }
    with open_answers(request.output / JOURNAL, fingerprint, restart=request.restart) as answers:
        _detect(labeller, request.images, usable, answers, settings.ignore_score)
        kept = {image.id: (image, answers.by_image[image.id]) for image in usable}
    added = _added(given, kept, to_label, settings, outcome)
    answered = [image for image in usable if image.id in added]
    if not answered:
        raise TrainingError(
            f"{relative_to_cwd(request.images)}: got no image to label ({outcome.left_out_text()}); give others"
        )
    outcome.images = len(answered)
    report = ReportFolder(request.output)
    annotated = given.covered | (set(to_label.values()) - {LEFT_OUT})
    report.json(ANNOTATIONS, _content(given, answered, added, request.classes.labels, annotated), indent=None)
    facts = {
        "annotations_sha256": sha256_of(request.output / ANNOTATIONS),
        "settings": settings.model_dump(mode="json"),
    }
    report.json(RECORD, {**facts, **outcome.to_json(), "detector": labeller.fingerprint})
    report.text("label.md", page(outcome))
    report.photo("labels.jpg", sheet(request.images, answered, added, request.classes.labels))
    outcome.written = tuple(report.written)
    return outcome


def _read_given(request: LabelRequest) -> _Given:
    """Read the images of the file to complete, or of the folder."""
    if request.complete is None:
        found = list_images(request.images)
        if not found.paths:
            raise TrainingError(f"{found.nothing_found()}; give a folder of photographs")
        found.warn_of_skipped()
        images = [Image(id=number, file_name=path.name) for number, path in enumerate(found.paths, start=1)]
        return _Given(tuple(images), {}, frozenset(), {})
    name = relative_to_cwd(request.complete)
    file = read_annotations(request.complete)
    class_ids = request.classes.class_ids(file.categories, name)
    covered = file.annotated_category_ids
    truth: dict[int, list[Annotation]] = defaultdict(list)
    for one in file.annotations:
        truth[one.image_id].append(one)
    annotated = {class_ids[category] for category in (class_ids if covered is None else covered)} - {LEFT_OUT}
    return _Given(tuple(sorted(file.images, key=lambda image: image.id)), truth, frozenset(annotated), class_ids)


def _digest(folder: Path, images: Sequence[Image]) -> str:
    """SHA-256 over all names and contents."""
    parts = (f"{image.file_name} {sha256_of(folder / image.file_name)}" for image in images)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _refuse_edited(output: Path) -> None:
    """Refuse to overwrite annotations that were edited by hand."""
    path = output / ANNOTATIONS
    if not path.exists():
        return
    try:
        written = json.loads((output / RECORD).read_text(encoding="utf-8"))["annotations_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        written = None
    if written != sha256_of(path):
        raise TrainingError(
            f"{relative_to_cwd(path)} was edited since it was written: give another --output, or drop it with --restart"
        )


def _usable(request: LabelRequest, given: _Given, excluded: Excluded, outcome: Outcome) -> Iterator[Image]:
    """The images to label with their sizes, without those that are damaged or excluded."""
    turned = []
    for image in progress(given.images, total=len(given.images), description="check", unit="images"):
        path = request.images / image.file_name
        try:
            content = read_image(path)
            opened = open_rgb(content, image.file_name)
        except ImageError as error:
            outcome.leave_out("missing or damaged", f"{image.file_name} ({error})")
            continue
        reason = excluded.reason(path, content, opened)
        if reason:
            outcome.leave_out(reason, image.file_name)
        elif is_annotated_upright(image, opened.size, content):
            turned.append(image.file_name)
        else:
            yield image.model_copy(update={"width": opened.width, "height": opened.height})
    if turned:
        source = relative_to_cwd(request.complete or request.images)
        raise TrainingError(upright_refusal(source, turned, len(given.images)))


def _detect(labeller: Labeller, folder: Path, images: Sequence[Image], answers: Answers, score_thresh: float) -> None:
    todo = [image for image in images if image.id not in answers.by_image]
    answers.begin_session()
    started_s = time.monotonic()
    found = labeller.detect([folder / image.file_name for image in todo], score_thresh)
    with_bar = progress(found, total=len(todo), description="label", unit="images")
    for image, (_, answer) in zip(todo, with_bar, strict=True):
        now_s = time.monotonic()
        answers.add(image.id, answer, now_s - started_s)
        started_s = now_s


def _added(
    given: _Given,
    answers: Mapping[int, tuple[Image, Answer]],
    to_label: Mapping[int, int],
    settings: LabelConfig,
    outcome: Outcome,
) -> dict[int, list[NewBox]]:
    """The detector's boxes to add to each image, by image id; images that it refused are left out."""
    added = {}
    for image, answer in answers.values():
        if answer.detections is None:
            outcome.leave_out("refused by the detector", f"{image.file_name} ({answer.refusal})")
            continue
        found = answer.detections
        class_ids = np.array([to_label[class_id] for class_id in found.class_ids.tolist()], np.int32)
        known = Detections(found.boxes_xyxy, found.scores, class_ids)[class_ids != LEFT_OUT]
        added[image.id] = new_boxes(known, _truth(given, image), settings, outcome.counts)
    return added


def _truth(given: _Given, image: Image) -> Truth:
    ones = given.truth.get(image.id, [])
    boxes = np.array([one.bbox for one in ones], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    class_ids = tuple(given.class_ids[one.category_id] for one in ones)
    return Truth(boxes, class_ids, tuple(one.iscrowd for one in ones), given.covered)


def _content(
    given: _Given,
    images: Sequence[Image],
    added: Mapping[int, Sequence[NewBox]],
    labels: Sequence[str],
    annotated: Collection[int],
) -> dict[str, Any]:
    """Content of the annotation file: every label is a category, with its class id."""
    annotations: list[dict[str, Any]] = []

    def add(image: Image, class_id: int, bbox: Sequence[float], **more: object) -> None:
        area = bbox[2] * bbox[3]
        head = {"id": len(annotations) + 1, "image_id": image.id, "category_id": class_id}
        annotations.append({**head, "bbox": [round(side, 2) for side in bbox], "area": round(area, 2), **more})

    for image in images:
        for one in given.truth.get(image.id, []):
            class_id = given.class_ids[one.category_id]
            if class_id != LEFT_OUT:
                scored = {} if one.score is None else {"score": one.score}
                add(image, class_id, one.bbox, iscrowd=int(one.iscrowd), **scored)
        for new in added[image.id]:
            left, top, right, bottom = new.box_xyxy
            bbox = (left, top, right - left, bottom - top)
            add(image, new.class_id, bbox, iscrowd=int(new.ignored), score=round(new.score, 4))
    return {
        "images": [image.model_dump() for image in images],
        "annotations": annotations,
        "categories": [{"id": class_id, "name": name} for class_id, name in enumerate(labels) if class_id],
        "annotated_category_ids": sorted(annotated),
    }
