"""The post-processing in PyTorch and as TorchScript, for GPUs: raw predictions to padded detections on the device.

It follows :func:`ssd_triton.detector.postprocessing.reference.postprocess` and is checked against it. What makes it
fast on a GPU:

- Scores above the threshold are picked out first. Later steps handle only those few, and boxes are decoded for
  candidates only.
- Two stable sorts, by score and by image and class, order the candidates of all images and classes at once. Equal
  scores keep the order of the default boxes; ``torch.topk`` does not promise that.
- The classes that have candidates are the rows of a table. Suppression takes a limited number of rows at once, and
  rows with few candidates separately. Greedy suppression is the only solution of *a box is kept if no better kept box
  overlaps it*. Applying that rule to all boxes at once until nothing changes finds it, in as many rounds as the longest
  chain of boxes that suppress one another, instead of one round for each box.
- The host waits for the device three times: for the number of candidates, for the size of the table, and to learn that
  suppression has converged. The last usually takes one or two waits for each part of the table.

It uses only ATen operators that TorchScript compiles, and nothing from torchvision, so that Triton's own PyTorch
backend can run it. TorchScript evaluates annotations, so ``from __future__ import annotations`` cannot be used.
"""

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, Tuple  # noqa: UP035 - TorchScript's own names of these types

import numpy as np
import torch
from torch import Tensor, nn

from ssd_triton.common.arrays import AnyArray
from ssd_triton.common.files import atomic_output
from ssd_triton.detector.network.boxes import CENTER_VARIANCE, SIZE_VARIANCE, default_boxes_cxcywh
from ssd_triton.detector.postprocessing.reference import OUTPUTS, check_detections

if TYPE_CHECKING:
    from ssd_triton.detector.postprocessing.parameters import PostprocessParameters

MAX_PAIRS = 2**24
"""Pairs of boxes that are compared at once; each takes about 30 bytes of intermediate results."""
_FEW_CANDIDATES = 32
"""Most classes of an image have a handful of candidates, some have hundreds. Rows up to this length are processed
separately, since the cost grows with the square of the length."""
_ROUNDS_BETWEEN_CHECKS = 4
"""One more round takes a GPU less time than a check whether it was needed."""


def export_postprocess_script(path: Path, num_labels: int, parameters: "PostprocessParameters") -> None:
    """Write the post-processing as TorchScript once its detections on a CPU equal those of the NumPy reference.

    Args:
        path: The file to write; an older file is kept until the new one has passed the check.
        num_labels: Classes, background included; the check needs it, the module takes any number.
        parameters: Thresholds.

    Raises:
        ExportError: Its detections differ from the reference.
    """
    buffer = io.BytesIO()
    script = compile_postprocess(parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=DeprecationWarning)
        torch.jit.save(script, buffer)
        buffer.seek(0)
        loaded = torch.jit.load(buffer, map_location="cpu")  # type: ignore[no-untyped-call]
    check_detections(lambda inputs: run_script(loaded, inputs), num_labels, parameters)
    with atomic_output(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def compile_postprocess(parameters: "PostprocessParameters") -> torch.jit.ScriptModule:
    """Compile :class:`PostProcess` with these thresholds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=DeprecationWarning)
        script: torch.jit.ScriptModule = torch.jit.script(PostProcess(parameters).eval())
    return script


def run_script(script: Any, inputs: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """Run a compiled post-processing once on a CPU, as Triton does: without optimising for the batch's shapes.

    Args:
        script: What :func:`compile_postprocess` returns.
        inputs: ``loc``, ``conf`` and ``original_size``, as :meth:`PostProcess.forward` takes them.

    Returns:
        :data:`~ssd_triton.detector.postprocessing.reference.OUTPUTS`, by name.
    """
    arguments = [torch.from_numpy(inputs[name]) for name in ("loc", "conf", "original_size")]
    with torch.inference_mode(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        return {name: value.numpy() for name, value in zip(OUTPUTS, script(*arguments), strict=True)}


class PostProcess(nn.Module):
    """The post-processing of a batch; its interface is that of the ONNX graph."""

    defaults_cxcywh: Tensor

    def __init__(self, parameters: "PostprocessParameters", max_pairs: int = MAX_PAIRS) -> None:
        """Build the module with its thresholds.

        Args:
            parameters: Thresholds.
            max_pairs: See :data:`MAX_PAIRS`.
        """
        super().__init__()
        # The reference compares in FP32.
        self.score_thresh = float(np.float32(parameters.score_thresh))
        self.nms_thresh = float(np.float32(parameters.nms_thresh))
        self.topk_candidates = parameters.topk_candidates
        self.detections_per_img = parameters.detections_per_img
        self.max_pairs = max_pairs
        self.center_variance = CENTER_VARIANCE
        self.size_variance = SIZE_VARIANCE
        self.few_candidates = _FEW_CANDIDATES
        self.rounds = _ROUNDS_BETWEEN_CHECKS
        defaults = torch.from_numpy(default_boxes_cxcywh()).t().contiguous()
        self.register_buffer("defaults_cxcywh", defaults)  # [4, 8732]

    def forward(self, loc: Tensor, conf: Tensor, original_size: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:  # noqa: UP006
        """Turn the raw predictions of a batch into detections.

        Args:
            loc: [N, 4, 8732], offsets.
            conf: [N, num_labels, 8732], logits, the background first.
            original_size: INT32 [N, 2], width and height in pixels.

        Returns:
            With K = ``detections_per_img``: ``num_detections`` INT32 [N, 1], ``detection_boxes`` FP32 [N, K, 4] (xyxy,
            pixels), ``detection_scores`` FP32 [N, K], ``detection_classes`` INT32 [N, K]; zeros beyond
            ``num_detections``.
        """
        images, classes = conf.shape[0], conf.shape[1] - 1
        row, box, score = self._candidates(conf.float())
        if row.numel() == 0:
            return self._nothing(images, conf.device)
        row_of, box, score, filled, crowded_rows = self._tables(row, box, score, images * classes)
        image = torch.div(row_of, classes, rounding_mode="floor")
        boxes = self._decode(loc, image, box)
        kept = torch.zeros_like(filled)
        by_count = torch.sort(filled.sum(1), descending=True)[1]
        self._keep(boxes, filled, by_count[:crowded_rows], filled.shape[1], kept)
        self._keep(boxes, filled, by_count[crowded_rows:], min(self.few_candidates, filled.shape[1]), kept)
        return self._select(image, row_of % classes + 1, boxes, score * kept, original_size)

    def _candidates(self, conf: Tensor) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
        """Pick the scores above the threshold, the best of each row first.

        Returns:
            Row (image * classes + class - 1), default box and score, [M] each; rows ascend.
        """
        probabilities = torch.softmax(conf, 1)
        above = probabilities[:, 1:] > self.score_thresh
        classes, boxes = above.shape[1], above.shape[2]
        place = above.flatten().nonzero().squeeze(1)
        row = torch.div(place, boxes, rounding_mode="floor")
        # In the probabilities each image has one more row, the background, and it comes first.
        image = torch.div(row, classes, rounding_mode="floor")
        score = probabilities.flatten()[place + (image + 1) * boxes]
        order = self._order(row, score)
        return row, (place - row * boxes)[order], score[order]

    def _order(self, group: Tensor, score: Tensor) -> Tensor:
        """Indices that sort by group, then by falling score; equal scores keep their order."""
        by_score = torch.sort(score, descending=True, stable=True)[1]
        return by_score[torch.sort(group[by_score], stable=True)[1]]

    def _tables(self, row: Tensor, box: Tensor, score: Tensor, rows: int) -> Tuple[Tensor, Tensor, Tensor, Tensor, int]:  # noqa: UP006
        """Arrange the candidates in tables [R, k], one row for each row that has any.

        Returns:
            Row numbers [R]; default boxes, scores and whether a place holds a candidate, [R, k] each; and the number of
            rows with more than a few candidates.
        """
        first = torch.searchsorted(row, torch.arange(rows + 1, device=row.device))
        count = first[1:] - first[:-1]
        used = count > 0
        crowded = count > self.few_candidates
        sizes: List[int] = torch.stack([used.sum(), crowded.sum(), count.max()]).cpu().tolist()  # noqa: UP006
        k = min(sizes[2], self.topk_candidates)
        row_of = torch.sort(used.to(torch.uint8), descending=True, stable=True)[1][: sizes[0]]
        column = torch.arange(k, device=row.device)
        filled = column < count[row_of].unsqueeze(1)
        place = (first[row_of].unsqueeze(1) + column).clamp(max=row.shape[0] - 1)
        return row_of, box[place], score[place], filled, sizes[1]

    def _decode(self, loc: Tensor, image: Tensor, box: Tensor) -> Tensor:
        """Boxes of a table, FP32 [4, R, k]: left, top, right, bottom as fractions of the image."""
        offset = loc[image.unsqueeze(1), :, box].permute(2, 0, 1).float()
        default = self.defaults_cxcywh[:, box]
        center = default[:2] + offset[:2] * self.center_variance * default[2:]
        half_size = default[2:] * torch.exp(offset[2:] * self.size_variance) / 2
        return torch.cat([center - half_size, center + half_size])

    def _keep(self, boxes: Tensor, filled: Tensor, rows: Tensor, k: int, kept: Tensor) -> None:
        """Write into `kept` which boxes are kept in some rows of the table, all with at most k candidates."""
        target = kept[:, :k]
        step = max(1, self.max_pairs // (k * k))
        for start in range(0, rows.shape[0], step):
            part = rows[start : start + step]
            target[part] = self._suppress(boxes[:, :, :k][:, part], filled[:, :k][part])

    def _suppress(self, boxes: Tensor, filled: Tensor) -> Tensor:
        """Non-maximum suppression of some rows: which boxes are kept, BOOL [r, k].

        Args:
            boxes: FP32 [4, r, k], the best of each row first.
            filled: BOOL [r, k], which places hold a candidate.
        """
        near, far = boxes[:2], boxes[2:]
        sides = torch.minimum(far.unsqueeze(3), far.unsqueeze(2)) - torch.maximum(near.unsqueeze(3), near.unsqueeze(2))
        sides.clamp_(min=0)
        intersection = sides[0] * sides[1]
        size = far - near
        area = size[0] * size[1]
        union = (area.unsqueeze(2) + area.unsqueeze(1)).sub_(intersection)
        # Two empty boxes give NaN, and NaN >= anything is false.
        overlaps = intersection.div_(union) >= self.nms_thresh
        better_suppresses = overlaps.float().triu_(1)  # [r, better, worse]
        exists = filled.float()
        kept = exists
        converged = False
        while not converged:
            before = kept
            for _ in range(self.rounds):
                before = kept
                suppressed = torch.bmm(kept.unsqueeze(1), better_suppresses).squeeze(1)
                kept = exists * (suppressed == 0)
            converged = torch.equal(before, kept)
        return kept > 0

    def _select(
        self, image: Tensor, class_id: Tensor, boxes: Tensor, score: Tensor, original_size: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor]:  # noqa: UP006
        """Choose the best detections of each image, over all classes."""
        images, k = original_size.shape[0], score.shape[1]
        image = image.repeat_interleave(k, output_size=score.numel())
        score = score.flatten()
        order = self._order(image, score)
        first = torch.searchsorted(image, torch.arange(images + 1, device=image.device))
        place = first[:-1].unsqueeze(1) + torch.arange(self.detections_per_img, device=image.device)
        inside = place < first[1:].unsqueeze(1)
        chosen = order[place.clamp(max=score.shape[0] - 1)]
        best = score[chosen] * inside
        found = best > 0
        scale = original_size.float().repeat(1, 2).unsqueeze(1)
        pixels = boxes.flatten(1)[:, chosen].permute(1, 2, 0) * scale
        return (
            found.sum(1, keepdim=True, dtype=torch.int32),
            pixels.masked_fill(~found.unsqueeze(2), 0.0).contiguous(),
            best,
            class_id[torch.div(chosen, k, rounding_mode="floor")].to(torch.int32) * found,
        )

    def _nothing(self, images: int, device: torch.device) -> Tuple[Tensor, Tensor, Tensor, Tensor]:  # noqa: UP006
        n = self.detections_per_img
        return (
            torch.zeros([images, 1], dtype=torch.int32, device=device),
            torch.zeros([images, n, 4], dtype=torch.float32, device=device),
            torch.zeros([images, n], dtype=torch.float32, device=device),
            torch.zeros([images, n], dtype=torch.int32, device=device),
        )
