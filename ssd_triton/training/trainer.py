"""The training loop: steps in which the device never waits for the host; figures and snapshots at intervals."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ssd_triton.config import TrainingConfig
from ssd_triton.detector.network.ssd import SSD300
from ssd_triton.evaluation.metrics import Metrics
from ssd_triton.training.augmentation import Augmentation, Sources
from ssd_triton.training.cuda_graph import graphed
from ssd_triton.training.device_constants import default_boxes
from ssd_triton.training.errors import TrainingError
from ssd_triton.training.freezing import freeze_norms, freeze_stages
from ssd_triton.training.history import LogRow, Record, ValidationRow
from ssd_triton.training.loss import multibox_loss
from ssd_triton.training.matching import BoxCount, match
from ssd_triton.training.optimization import RunningAverage, make_optimizer, make_schedule, rate_factor
from ssd_triton.training.out_of_memory import batch_too_large
from ssd_triton.training.snapshot import TrainingState, restore_snapshot, save_snapshot, writing
from ssd_triton.training.teacher import Teacher
from ssd_triton.training.utilisation import DeviceBusy
from ssd_triton.training.validation import Validator

SNAPSHOT = "last.pt"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Best:
    """The best weights so far, to publish.

    Attributes:
        network: FP32, in evaluation mode; changes with the next step.
        step: Step of these weights.
        metrics: Figures on each validation set.
    """

    network: SSD300
    step: int
    metrics: Sequence[Metrics]


class Trainer:
    """A network, its data and the state of its training on one device."""

    def __init__(
        self,
        network: SSD300,
        sources: Sources,
        validator: Validator,
        settings: TrainingConfig,
        fingerprint: Mapping[str, str],
    ) -> None:
        """Move the network to the device of the sources, and prepare its training there.

        Args:
            network: Initial weights.
            sources: Images to train on.
            validator: Chooses the best snapshot; without sets, the last one is the best.
            settings: The recipe.
            fingerprint: Facts that must be the same when a snapshot is resumed.
        """
        self._settings = settings
        self._device = device = sources.pixels.device
        self._output: Path = settings.output
        self._fingerprint = fingerprint
        self._validator = validator
        is_cuda = device.type == "cuda"
        if is_cuda:
            # Graphs are recorded on the current device.
            torch.cuda.set_device(device)
        self._precision = torch.autocast(device.type, torch.bfloat16, enabled=is_cuda)
        self._graphed: SSD300 | None = None
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = settings.batch_norm_momentum
        network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        frozen_dtype = torch.bfloat16 if is_cuda else torch.float32
        # Made before a snapshot is restored: the teacher has the initial weights.
        self._teacher = Teacher(network, frozen_dtype) if bool(sources.taught.any()) else None
        self._trained = freeze_stages(network, settings.frozen_stages, frozen_dtype, settings.dropout).to(
            device,
            memory_format=torch.channels_last,  # type: ignore[call-overload]
        )
        if settings.frozen_batch_norms:
            self._trained = freeze_norms(self._trained)
        self._parameters = [one for one in network.parameters() if one.requires_grad]
        optimizer = settings.optimizer
        self._optimizer = make_optimizer(network, optimizer)
        self._schedule = make_schedule(self._optimizer, settings.steps, optimizer.warmup_steps)
        self._average = RunningAverage(network, optimizer.ema_decay, warmup=optimizer.ema_warmup)
        generator = torch.Generator(device).manual_seed(settings.seed)
        self._augmentation = Augmentation(sources, settings.augmentation, generator)
        self._state = TrainingState(network, self._average.network, self._optimizer, self._schedule, generator, device)
        self.record = Record()
        torch.manual_seed(settings.seed)
        torch.backends.cudnn.deterministic = settings.deterministic
        torch.backends.cudnn.benchmark = not settings.deterministic

    def resume(self) -> None:
        """Resume from the last snapshot in the output folder.

        Raises:
            TrainingError: There is none, it is damaged, or it is of another training.
        """
        self.record = restore_snapshot(self._output / SNAPSHOT, self._state, self._fingerprint)

    def train(self, publish: Callable[[Best, Record], None], *, stop_after: int | None = None) -> None:
        """Train to the last step.

        Args:
            publish: Called with the best weights so far, after each validation that improves on them; without
                validation sets, after the last step.
            stop_after: Step after which to stop early, with a snapshot to resume from.

        Raises:
            TrainingError: The loss is not finite, the GPU has too little memory, or a file cannot be written.
        """
        last = min(self._settings.steps, stop_after or self._settings.steps)
        record, settings = self.record, self._settings
        bar: tqdm[Any] = tqdm(
            total=settings.steps, initial=record.step, desc="train", unit=" steps", disable=None, smoothing=0.05
        )
        with bar, DeviceBusy(self._device) as busy:
            meter = _Meter(self._device, busy)
            while record.step < last:
                meter.add(self._checked_step())
                record.step += 1
                bar.update()
                if record.step % settings.log_every == 0 or record.step == last:
                    self._log(meter, bar)
                if record.step % settings.validate_every == 0 or record.step == settings.steps:
                    self._validate(publish)
                    self._save()
                    meter.restart()
            if record.step % settings.validate_every and record.step < settings.steps:
                self._save()

    def _checked_step(self) -> Tensor:
        try:
            return self._step()
        except torch.cuda.OutOfMemoryError:
            pass
        # Not in the handler: its traceback would keep the tensors of the failed step alive.
        self._optimizer.zero_grad(set_to_none=True)
        raise batch_too_large(self._settings.batch, self._forward_backward, self._device)

    def _step(self) -> Tensor:
        """Train on one batch; returns both parts of the loss, FP32 [2], on the device."""
        losses = self._forward_backward(self._settings.batch)
        torch.nn.utils.clip_grad_norm_(self._parameters, self._settings.optimizer.clip_norm)
        self._optimizer.step()
        self._schedule.step()
        self._average.update(self.record.step)
        return losses

    def _forward_backward(self, size: int) -> Tensor:
        batch = self._augmentation.batch(size)
        count = BoxCount(batch.labels)
        self._optimizer.zero_grad(set_to_none=True)
        loc, conf = self._predict(batch.images)
        # After the network: the device is busy while the host waits for the count.
        fallback = self._settings.loss.fallback_default_boxes
        targets = match(batch.boxes_xyxy, batch.labels, default_boxes(self._device), fallback=fallback, count=count)
        if self._teacher is None:
            loss = multibox_loss(loc, conf, targets, self._settings.loss)
        else:
            loss = self._teacher.loss(batch, (loc, conf), targets, self._settings.loss)
        loss.total.backward()  # type: ignore[no-untyped-call]
        return torch.stack([loss.boxes, loss.classes]).detach()

    def _predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """FP32 [N, 3, 300, 300] -> ``loc`` and ``conf``; on a GPU, batches of the usual size run as a graph."""
        network = self._trained
        if self._device.type == "cuda" and len(images) == self._settings.batch:
            if self._graphed is None:
                self._graphed = graphed(self._trained, len(images), torch.bfloat16, self._device)
            network = self._graphed
        with self._precision:
            loc, conf = network(images)
        return loc, conf

    def _log(self, meter: _Meter, bar: tqdm[Any]) -> None:
        record, settings = self.record, self._settings.optimizer
        steps, (boxes_loss, classes_loss), seconds, busy_percent = meter.take()
        loss = boxes_loss + classes_loss
        if not loss < float("inf"):
            raise TrainingError(
                f"got a loss of {loss} at step {record.step}, expected a finite one; lower the learning rates "
                f"(--backbone-lr, --head-lr); the last snapshot, if any, is {self._output / SNAPSHOT}"
            )
        factor = rate_factor(record.step - 1, self._settings.steps, settings.warmup_steps)
        images_per_s = steps * self._settings.batch / seconds
        rates = settings.backbone_lr * factor, settings.head_lr * factor
        record.log.append(LogRow(record.step, loss, boxes_loss, classes_loss, *rates, images_per_s, busy_percent))
        record.seconds += seconds
        bar.set_postfix_str(f"loss {loss:.2f}, {images_per_s:,.0f} images/s", refresh=False)

    def _validate(self, publish: Callable[[Best, Record], None]) -> None:
        record, start_s = self.record, time.perf_counter()
        network = self._average.network
        metrics = self._validator.evaluate(network)
        for one, figures in zip(self._validator.sets, metrics, strict=True):
            record.validations.append(ValidationRow.of(record.step, one.source.name, figures))
        score = self._validator.score(metrics)
        self._log_validation(len(metrics))
        is_last = record.step == self._settings.steps
        if is_last if score is None else record.best_score is None or score > record.best_score:
            record.best_score, record.best_step = score, record.step
            with writing(self._output):
                publish(Best(network, record.step, metrics), record)
        record.seconds += time.perf_counter() - start_s

    def _log_validation(self, sets: int) -> None:
        """Log the last validation and the speed of the last steps, since the progress bar may not be shown."""
        record = self.record
        parts = [f"AP {row.ap:.4f} on {row.dataset}" for row in record.validations[len(record.validations) - sets :]]
        for row in record.log[-1:]:
            parts.append(f"{row.images_per_s:,.0f} images/s")
            parts += [] if row.device_busy_percent is None else [f"{row.device_busy_percent:.0f} % busy"]
        _log.info("step %d of %d: %s", record.step, self._settings.steps, ", ".join(parts))

    def _save(self) -> None:
        save_snapshot(self._output / SNAPSHOT, self._state, self.record, self._fingerprint)
        with writing(self._output):
            self.record.write(self._output)


class _Meter:
    """Sums losses on the device, and times the steps."""

    def __init__(self, device: torch.device, busy: DeviceBusy) -> None:
        self._sum = torch.zeros(2, device=device)
        self._busy = busy
        self.restart()

    def restart(self) -> None:
        """Start a new span; the time since the last one does not count."""
        self._sum.zero_()
        self._steps = 0
        self._start_s = time.perf_counter()
        self._busy.restart()

    def add(self, losses: Tensor) -> None:
        """Add a step, without waiting for it."""
        self._sum += losses
        self._steps += 1

    def take(self) -> tuple[int, tuple[float, float], float, float | None]:
        """End a span: its steps, mean losses, seconds and the percentage of time that the device was busy."""
        boxes_loss, classes_loss = (self._sum / self._steps).tolist()
        taken = self._steps, (boxes_loss, classes_loss), time.perf_counter() - self._start_s, self._busy.percent()
        self.restart()
        return taken
