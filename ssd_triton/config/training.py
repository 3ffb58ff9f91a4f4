"""How the network is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from ssd_triton.config.section import Score, Section


class OptimizerConfig(Section):
    """AdamW, its learning rates, and how the network's weights are averaged."""

    backbone_lr: Annotated[float, Field(gt=0, le=1)]
    head_lr: Annotated[float, Field(gt=0, le=1)]
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    warmup_steps: Annotated[int, Field(ge=0)]
    clip_norm: Annotated[float, Field(gt=0)]
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    ema_warmup: bool


class LossConfig(Section):
    """Which default boxes count, and how sure the network is to become."""

    fallback_default_boxes: Annotated[int, Field(ge=1, le=100)]
    negatives_per_positive: Annotated[int, Field(ge=1, le=100)]
    min_negatives: Annotated[int, Field(ge=0, le=8732)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    box_weight: Annotated[float, Field(gt=0, le=100)]
    smooth_l1_beta: Annotated[float, Field(gt=0, le=10)]
    teacher_weight: Annotated[float, Field(gt=0, le=100)]


class AugmentationConfig(Section):
    """How much training images are changed; ``config.yml`` says what each key means."""

    mosaic_fraction: Score
    zoom_in_fraction: Score
    zoom_in_min_side: Annotated[float, Field(gt=0, le=1)]
    zoom_out_fraction: Score
    zoom_out_max_ratio: Annotated[float, Field(ge=1, le=10)]
    flip_fraction: Score
    min_visible: Score
    min_side_px: Annotated[float, Field(ge=0, le=300)]
    brightness: Annotated[float, Field(ge=0, le=1)]
    contrast: Annotated[float, Field(ge=0, le=1)]
    saturation: Annotated[float, Field(ge=0, le=1)]
    hue_deg: Annotated[float, Field(ge=0, le=180)]
    grey_fraction: Score
    noise: Annotated[float, Field(ge=0, le=1)]
    erase_fraction: Score
    erase_max_side: Score


class SamplingConfig(Section):
    """Which images are drawn more often."""

    rare_frequency: Score
    often: dict[str, Annotated[float, Field(gt=0, le=100)]]


class TrainingConfig(Section):
    """How ``tools/train.py`` trains; ``config.yml`` says what each key means."""

    output: Path
    steps: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=2, le=4096)]
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)]
    source_px: Annotated[int, Field(ge=300, le=2048)]
    deterministic: bool
    frozen_stages: Annotated[int, Field(ge=0, le=4)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    batch_norm_momentum: Annotated[float, Field(gt=0, le=1)]
    frozen_batch_norms: bool
    log_every: Annotated[int, Field(ge=1)]
    validate_every: Annotated[int, Field(ge=1)]
    optimizer: OptimizerConfig
    loss: LossConfig
    sampling: SamplingConfig
    augmentation: AugmentationConfig
