"""Thresholds of the post-processing, in torchvision's vocabulary."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class PostprocessParameters(BaseModel):
    """The served values are in ``ssd_postprocess/config.pbtxt``; the defaults are those of the evaluation protocol.

    Source: NVIDIA DeepLearningExamples ``PyTorch/Detection/SSD`` (``ssd/utils.py``, ``decode_single``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    score_thresh: float = Field(default=0.05, ge=0, lt=1)
    """Only boxes with a score above this are candidates."""
    nms_thresh: float = Field(default=0.5, gt=0, le=1)
    """A box is suppressed if its overlap (IoU) with a better box of its class is this or more."""
    topk_candidates: int = Field(default=200, ge=1, le=8732)
    """Maximum number of candidates per class, before suppression; there are 8,732 default boxes."""
    detections_per_img: int = Field(default=200, ge=1)
    """Maximum number of detections per image, over all classes."""
