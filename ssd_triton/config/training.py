"""How the network is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from ssd_triton.config.section import Fraction, Score, Section


class OptimizerConfig(Section):
    """AdamW, its learning rates, and how the network's weights are averaged."""

    backbone_lr: float = Field(default=1.2e-4, gt=0, le=1)
    """peak learning rate of the backbone; a cosine leads from it to 0"""
    head_lr: float = Field(default=6.0e-4, gt=0, le=1)
    """peak learning rate of all layers that ImageNet does not train"""
    weight_decay: float = Field(default=0.1, ge=0, le=1)
    """weight decay of AdamW"""
    warmup_steps: int = Field(default=400, ge=0)
    """steps in which the learning rate rises to its peak"""
    clip_norm: float = Field(default=10.0, gt=0)
    """largest norm of all gradients together"""
    ema_decay: float = Field(default=0.9998, ge=0, lt=1)
    """decay of the weights' moving average, the network that is validated and kept"""
    ema_warmup: bool = True
    """shorter average in the first steps; false where the weights to fine-tune are worth keeping"""


class LossConfig(Section):
    """Which default boxes count, and how sure the network should become."""

    fallback_default_boxes: int = Field(default=4, ge=1, le=100)
    """default boxes matched with an object even if none fits it well, as none fits small objects"""
    negatives_per_positive: int = Field(default=3, ge=1, le=100)
    """hard negatives for each positive"""
    min_negatives: int = Field(default=8, ge=0, le=8732)
    """hard negatives of images with fewer positives: images without objects teach the background"""
    label_smoothing: float = Field(default=0.02, ge=0, lt=1)
    """label smoothing of the classification loss"""
    box_weight: float = Field(default=1.0, gt=0, le=100)
    """weight of the localisation loss against the classification loss"""
    smooth_l1_beta: float = Field(default=1.0, gt=0, le=10)
    """errors of box offsets below this count squared; with a smaller value, small errors count more"""
    teacher_weight: float = Field(default=1.0, gt=0, le=100)
    """weight of what the checkpoint sees in images of --taught-data, against annotations of the others"""


class AugmentationConfig(Section):
    """How much training images are changed."""

    mosaic_fraction: Fraction = 0.4
    """part of the images that are made of four"""
    zoom_in_fraction: Fraction = 0.6
    """part of the sources that are cropped"""
    zoom_in_min_side: float = Field(default=0.3, gt=0, le=1)
    """smallest side of a crop, of the whole side"""
    zoom_out_fraction: Fraction = 0.15
    """part of the single images that are shrunk"""
    zoom_out_max_ratio: float = Field(default=2.5, ge=1, le=10)
    """largest ratio of shrinking"""
    flip_fraction: Fraction = 0.5
    """part of the images that are mirrored"""
    min_visible: Fraction = 0.4
    """part of a box that must remain; less is neither object nor background"""
    min_side_px: float = Field(default=4.0, ge=0, le=300)
    """smallest side of a box in the network's 300 px; less is neither object nor background"""
    brightness: Fraction = 0.15
    """largest shift of brightness, of a range of 1"""
    contrast: Fraction = 0.4
    """largest relative change of contrast"""
    saturation: Fraction = 0.5
    """largest relative change of saturation"""
    hue_deg: float = Field(default=18, ge=0, le=180)
    """largest shift of hue"""
    grey_fraction: Fraction = 0.05
    """part of the images that lose their colour"""
    noise: Fraction = 0.04
    """largest standard deviation of noise, of a range of 1"""
    erase_fraction: Fraction = 0.25
    """part of the images that lose a rectangle"""
    erase_max_side: Fraction = 0.35
    """largest side of that rectangle, of the image's side"""


_DRIVING_CLASSES = ("bicycle", "car", "motorcycle", "bus", "truck", "traffic light", "stop sign")


class SamplingConfig(Section):
    """Which images are drawn more often."""

    rare_frequency: Fraction = 0.05
    """part of the images below which a class is rare and drawn more often (LVIS repeat factor)"""
    often: dict[str, Annotated[float, Field(gt=0, le=100)]] = dict.fromkeys(_DRIVING_CLASSES, 1.5)
    """how many times more often images of a class are drawn"""


class TrainingConfig(Section):
    """The recipe of ``ssd-triton train``; ``recipes/`` has others, for ``--config``."""

    output: Path = Path("reports/training")
    """folder for everything that is written"""
    steps: int = Field(default=6000, ge=1)
    """steps of the whole training"""
    batch: int = Field(default=64, ge=2, le=4096)
    """images in a step; batch norms need several values for each channel"""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """seed of all randomness"""
    source_px: int = Field(default=352, ge=300, le=2048)
    """side at which images are kept: their crops have more detail than the network's 300 px"""
    deterministic: bool = True
    """same weights from the same seed, data and device; false lets cuDNN choose faster algorithms"""
    frozen_stages: int = Field(default=2, ge=0, le=4)
    """frozen part of the backbone: 0 none, 1 the stem, 2 layer1 too, 3 layer2 too, 4 all"""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """fraction of the backbone's feature maps that a step leaves out"""
    batch_norm_momentum: float = Field(default=0.1, gt=0, le=1)
    """part of a step in the statistics of batch norms; few steps need more"""
    frozen_batch_norms: bool = False
    """keep the statistics of batch norms, for a checkpoint whose function is to be kept"""
    log_every: int = Field(default=50, ge=1)
    """steps between lines of the log"""
    validate_every: int = Field(default=500, ge=1)
    """steps between validations, each with a snapshot"""
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: LossConfig = LossConfig()
    sampling: SamplingConfig = SamplingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()


class LabelConfig(Section):
    """Which boxes of a detector become annotations: ``ssd-triton label``."""

    object_score: Score = 0.45
    """score from which a box is an object to train on"""
    ignore_score: Score = 0.2
    """score from which a box is ignored in training, neither object nor background; lower ones are dropped"""
    known_iou: Fraction = 0.5
    """IoU with an annotation of the same class from which a box repeats it"""
    contradiction_iou: Fraction = 0.7
    """IoU with an annotation of another class from which a box contradicts it and is dropped"""
