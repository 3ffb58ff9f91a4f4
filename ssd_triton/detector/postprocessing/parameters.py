"""Thresholds of the post-processing, in torchvision's vocabulary."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class PostprocessParameters(BaseModel):
    """The deployed values lie in ``ssd_postprocess/config.pbtxt``; the defaults are the evaluation protocol's.

    Source: NVIDIA DeepLearningExamples ``PyTorch/Detection/SSD`` (``ssd/utils.py``, ``decode_single``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    score_thresh: float = Field(default=0.05, ge=0, lt=1)
    """Candidates have a higher score than this."""
    nms_thresh: float = Field(default=0.5, gt=0, le=1)
    """A box is suppressed when its overlap (IoU) with a better one of its class is this or more."""
    topk_candidates: int = Field(default=200, ge=1, le=8732)
    """Candidates a class, before suppression; there are 8,732 default boxes."""
    detections_per_img: int = Field(default=200, ge=1)
    """Detections an image, over all classes."""
