"""The post-processing in PyTorch, for GPUs: from raw predictions to padded detections without leaving the device.

The protocol is that of :func:`ssd_triton.detector.postprocessing.reference.postprocess`. What makes it quick on a GPU:

- Scores above the threshold are picked out first. Everything after works on those few alone; boxes are decoded for
  candidates only.
- Two stable sorts, by score and by image and class, order the candidates of all images and classes at once. Equal
  scores keep the order of the default boxes, which ``torch.topk`` does not promise.
- The classes that have candidates are the rows of a table, and suppression takes a limited number of rows at once,
  those with few candidates apart. Greedy suppression is the only solution of *a box stays if no better box that stays
  overlaps it*. Repeating that rule for all boxes at once until nothing changes finds it, in as many rounds as boxes
  suppress one another in a chain, and not in one for each box.
- The host waits for the device for the number of candidates, for the size of the table, and to learn that suppression
  has settled, which is mostly once or twice for each part of the table.

It is plain ATen that TorchScript compiles, with nothing of torchvision, so that Triton's own PyTorch backend runs it.
TorchScript reads annotations as values: hence no ``from __future__``.
"""

from typing import TYPE_CHECKING, List, Tuple  # noqa: UP035 - TorchScript's own names of these types

import numpy as np
import torch
from torch import Tensor, nn

from ssd_triton.detector.network.boxes import CENTER_VARIANCE, SIZE_VARIANCE, default_boxes_cxcywh

if TYPE_CHECKING:
    from ssd_triton.detector.postprocessing.parameters import PostprocessParameters

MAX_PAIRS = 2**24
"""Pairs of boxes that are compared at once; each takes some 30 bytes of intermediate results."""
_FEW_CANDIDATES = 32
"""Most classes of an image have a handful of candidates and some have hundreds: pairs go with the square of it."""
_ROUNDS_BETWEEN_CHECKS = 4
"""A round more costs a GPU less than asking whether it was needed."""


class PostProcess(nn.Module):
    """Detections of a batch of images; the interface is that of the ONNX graph."""

    defaults_cxcywh: Tensor

    def __init__(self, parameters: "PostprocessParameters", max_pairs: int = MAX_PAIRS) -> None:
        """Build the thresholds in.

        Args:
            parameters: Thresholds.
            max_pairs: See :data:`MAX_PAIRS`.
        """
        super().__init__()
        # As the reference compares: in FP32.
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
        """Detect.

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
        row_of, box, score, here, crowded_rows = self._tables(row, box, score, images * classes)
        image = torch.div(row_of, classes, rounding_mode="floor")
        boxes = self._decode(loc, image, box)
        stays = torch.zeros_like(here)
        by_count = torch.sort(here.sum(1), descending=True)[1]
        self._settle(boxes, here, by_count[:crowded_rows], here.shape[1], stays)
        self._settle(boxes, here, by_count[crowded_rows:], min(self.few_candidates, here.shape[1]), stays)
        return self._select(image, row_of % classes + 1, boxes, score * stays, original_size)

    def _candidates(self, conf: Tensor) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
        """Scores above the threshold, the best of each row first.

        Returns:
            Row, which is image * classes + class - 1, default box, and score, [M] each; rows ascend.
        """
        probabilities = torch.softmax(conf, 1)
        above = probabilities[:, 1:] > self.score_thresh
        classes, boxes = above.shape[1], above.shape[2]
        place = above.flatten().nonzero().squeeze(1)
        row = torch.div(place, boxes, rounding_mode="floor")
        # An image has one row more there: the background's, which comes first.
        image = torch.div(row, classes, rounding_mode="floor")
        score = probabilities.flatten()[place + (image + 1) * boxes]
        order = self._order(row, score)
        return row, (place - row * boxes)[order], score[order]

    def _order(self, group: Tensor, score: Tensor) -> Tensor:
        """What sorts by group, then from the highest score; equal ones keep their order."""
        by_score = torch.sort(score, descending=True, stable=True)[1]
        return by_score[torch.sort(group[by_score], stable=True)[1]]

    def _tables(self, row: Tensor, box: Tensor, score: Tensor, rows: int) -> Tuple[Tensor, Tensor, Tensor, Tensor, int]:  # noqa: UP006
        """Candidates as a table of the rows that have any, [R, k], with the rows' numbers, [R].

        Returns:
            Row numbers, boxes, scores, which places hold a candidate, and how many rows have more than a few.
        """
        first = torch.searchsorted(row, torch.arange(rows + 1, device=row.device))
        count = first[1:] - first[:-1]
        used = count > 0
        crowded = count > self.few_candidates
        sizes: List[int] = torch.stack([used.sum(), crowded.sum(), count.max()]).cpu().tolist()  # noqa: UP006
        k = min(sizes[2], self.topk_candidates)
        row_of = torch.sort(used.to(torch.uint8), descending=True, stable=True)[1][: sizes[0]]
        column = torch.arange(k, device=row.device)
        here = column < count[row_of].unsqueeze(1)
        place = (first[row_of].unsqueeze(1) + column).clamp(max=row.shape[0] - 1)
        return row_of, box[place], score[place], here, sizes[1]

    def _decode(self, loc: Tensor, image: Tensor, box: Tensor) -> Tensor:
        """Left, top, right, bottom of the boxes of a table, FP32 [4, R, k], fractions of the image."""
        offset = loc[image.unsqueeze(1), :, box].permute(2, 0, 1).float()
        default = self.defaults_cxcywh[:, box]
        center = default[:2] + offset[:2] * self.center_variance * default[2:]
        half_size = default[2:] * torch.exp(offset[2:] * self.size_variance) / 2
        return torch.cat([center - half_size, center + half_size])

    def _settle(self, boxes: Tensor, here: Tensor, rows: Tensor, k: int, stays: Tensor) -> None:
        """Fill in which boxes stay for some rows of the table, which have k candidates or fewer."""
        target = stays[:, :k]
        step = max(1, self.max_pairs // (k * k))
        for start in range(0, rows.shape[0], step):
            part = rows[start : start + step]
            target[part] = self._suppress(boxes[:, :, :k][:, part], here[:, :k][part])

    def _suppress(self, boxes: Tensor, here: Tensor) -> Tensor:
        """Which boxes stay, [r, k].

        Args:
            boxes: FP32 [4, r, k], each row's best first.
            here: BOOL [r, k], which of them exist.
        """
        near, far = boxes[:2], boxes[2:]
        sides = torch.minimum(far.unsqueeze(3), far.unsqueeze(2)) - torch.maximum(near.unsqueeze(3), near.unsqueeze(2))
        sides.clamp_(min=0)
        intersection = sides[0] * sides[1]
        size = far - near
        area = size[0] * size[1]
        union = (area.unsqueeze(2) + area.unsqueeze(1)).sub_(intersection)
        # Two empty boxes give NaN, which is not at least anything.
        overlaps = intersection.div_(union) >= self.nms_thresh
        better_suppresses = overlaps.float().triu_(1)  # [r, better, worse]
        exists = here.float()
        stays = exists
        settled = False
        while not settled:
            before = stays
            for _ in range(self.rounds):
                before = stays
                suppressed = torch.bmm(stays.unsqueeze(1), better_suppresses).squeeze(1)
                stays = exists * (suppressed == 0)
            settled = torch.equal(before, stays)
        return stays > 0

    def _select(
        self, image: Tensor, class_id: Tensor, boxes: Tensor, score: Tensor, original_size: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor]:  # noqa: UP006
        """The best detections of each image, over all classes."""
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
