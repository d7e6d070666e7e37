"""One step: forward, loss, scaled backward, update; its totals stay on the device."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from sprintnet.evaluation.task import Task
from sprintnet.models.base import LinearNetwork
from sprintnet.runtime import Runtime
from sprintnet.training.average import Average
from sprintnet.training.checkpoint import random_state, set_random_state
from sprintnet.training.graphs import CudaGraphs, StepFunction
from sprintnet.training.losses import LOSSES
from sprintnet.training.optim import Optimizer
from sprintnet.training.settings import ScalerSettings

DEFAULT_SCALER = ScalerSettings()


@dataclass(frozen=True)
class Totals:
    """Totals over the steps so far, read from the device; skipped steps count in `skipped` alone."""

    loss: float
    correct: int
    images: int
    skipped: int
    is_sound: bool
    """Whether weights and batch-norm statistics are finite and the loss scale has not collapsed."""


class Step:
    """A training step over one model and optimizer; `totals` grows until `reset`.

    In fp16 the loss is scaled (Micikevicius et al. 2017, arXiv:1710.03740). A step whose gradients overflow is skipped
    entirely: weights, optimizer state, batch-norm statistics and totals do not change. No step waits for the device.
    """

    def __init__(
        self,
        model: LinearNetwork,
        optimizer: Optimizer,
        runtime: Runtime,
        label_smoothing: float,
        l1: float,
        task: Task,
        class_weights: Tensor | None = None,
        average: Average | None = None,
        scaler: ScalerSettings = DEFAULT_SCALER,
    ):
        self.model, self.optimizer, self.runtime, self.task = model, optimizer, runtime, task
        self.label_smoothing, self.l1, self.class_weights = label_smoothing, l1, class_weights
        self.average = average
        self.scaler = torch.amp.GradScaler(runtime.device.type, **asdict(scaler), enabled=runtime.precision == "fp16")
        buffers = list(model.buffers())
        self._statistics = [[one for one in buffers if one.is_floating_point() == kind] for kind in (True, False)]
        self._statistics_before: list[Tensor] = []
        self._one = torch.ones((), device=runtime.device)
        exact = torch.float32 if runtime.device.type == "mps" else torch.float64  # which mps does not have
        self.totals = torch.zeros(4, dtype=exact, device=runtime.device)
        self._recorded: dict[object, StepFunction] = {}

    def __call__(self, images: Tensor, labels: Tensor, total: int = 0) -> None:
        """Updates the model by one batch: images (B, C, H, W), labels (B,) or (B, K).

        Of several ranks each has its part of the batch, which has `total` images.
        """
        if self.runtime.ranks.world > 1:
            self._run_part(images, labels, total or len(labels) * self.runtime.ranks.world)
            return
        self._recorded.get(self._kind(images), self._run)(images, labels)

    def record(self, images: Tensor, labels: Tensor, graphs: CudaGraphs) -> None:
        """Records the step, to be replayed for batches of this shape while the same parameters are trained."""
        self._recorded[self._kind(images)] = graphs.record(self._run, images, labels)

    def launch_plainly(self) -> None:
        """Launches every operation by itself again, and frees what was recorded and compiled."""
        self._recorded.clear()
        vars(self).pop("_loss", None)

    def _kind(self, images: Tensor) -> object:
        return images.shape, self.optimizer.trains_whitening

    def _run(self, images: Tensor, labels: Tensor) -> None:
        loss, logits = self.forward(images, labels)
        self.backward(loss)
        self.update(loss.detach(), self.task.correct(logits.detach(), labels).sum(), len(labels))

    def _run_part(self, images: Tensor, labels: Tensor, total: int) -> None:
        """A step of all ranks: gradients and totals are those of the whole batch."""
        loss, logits = self.forward(images, labels)
        loss = loss * (len(labels) / total)
        self.backward(loss)
        correct = self.task.correct(logits.detach(), labels).sum()
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        *summed, whole_loss, whole_correct = torch.split(
            self.runtime.ranks.sum(_joined([*gradients, loss.detach(), correct.float()])),
            [*(gradient.numel() for gradient in gradients), 1, 1],
        )
        torch._foreach_copy_(gradients, [values.view_as(own) for values, own in zip(summed, gradients, strict=True)])
        self.update(whole_loss[0], whole_correct[0], total)

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mean loss, a scalar, and logits (B, K)."""
        if self.scaler.is_enabled():
            self._statistics_before = [_joined(buffers) for buffers in self._statistics if buffers]
        return self._loss(images, labels)

    def compile(self, kinds: int) -> None:
        """Compiles network and loss, once for each kind of step, when it first runs."""
        torch.compiler.reset()  # what earlier trainings of this process compiled counts against the limit
        torch._dynamo.config.recompile_limit = max(kinds, torch._dynamo.config.recompile_limit)
        self._loss = torch.compile(self._loss, fullgraph=True, dynamic=False)  # type: ignore[method-assign]

    def _loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with self.runtime.autocast():
            logits = self.model(images)
        loss = LOSSES[self.task.name](logits.float(), labels, self.label_smoothing, self.class_weights)
        return loss + self.l1 * self._l1_norm() if self.l1 else loss, logits

    def backward(self, loss: Tensor) -> None:
        """Sets the gradients."""
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def update(self, loss: Tensor, correct: Tensor, images: int) -> None:
        """Updates the weights, and the totals by the loss, the number of correct answers and the number of images."""
        scale = self.scaler.scale(self._one)
        self.scaler.step(self.optimizer)  # type: ignore[arg-type]
        self.scaler.update()
        skipped = self.scaler.scale(self._one) < scale  # the scaler backs off exactly where it skips
        for buffers, before in zip(filter(None, self._statistics), self._statistics_before, strict=False):
            sizes = [buffer.numel() for buffer in buffers]
            values = torch.split(torch.where(skipped, before, _joined(buffers)), sizes)
            torch._foreach_copy_(buffers, [value.view_as(buffer) for value, buffer in zip(values, buffers, strict=True)])
        kept = ~skipped
        if self.average:
            self.average.update(kept)
        self.totals += torch.stack([torch.where(kept, loss * images, 0), kept * correct, kept * images, skipped])

    def read(self) -> Totals:
        """Returns the totals; this waits for the device, once."""
        floats = [tensor for tensor in self.model.state_dict().values() if tensor.is_floating_point()]
        largest = torch.stack(torch._foreach_norm(floats, torch.inf))
        state = torch.stack([largest.isfinite().all(), self.scaler.scale(self._one)])
        loss, correct, images, skipped, is_finite, scale = torch.cat([self.totals, state.to(self.totals.dtype)]).tolist()
        return Totals(loss, int(correct), int(images), int(skipped), bool(is_finite) and scale >= 1)

    def evaluated(self) -> AbstractContextManager[None]:
        """Gives the network the weights that are evaluated while the context is open: their average, if there is one."""
        return self.average.in_place() if self.average else nullcontext()

    def reset(self) -> None:
        """Sets the totals to zero."""
        self.totals.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the next step depends on: weights, momentum, loss scale, totals, random generators."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "totals": self.totals,
            "average": self.average and self.average.state_dict(),
            "random": random_state(self.runtime.device),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned, in place: a recorded step goes on with it."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.totals.copy_(state["totals"])
        if self.average:
            self.average.load_state_dict(state["average"])
        set_random_state(state["random"], self.runtime.device)

    def _l1_norm(self) -> Tensor:
        return torch.stack([parameter.abs().sum() for parameter in self.model.parameters()]).sum()


def _joined(tensors: list[Tensor]) -> Tensor:
    """Returns the values of tensors of one type in one: a few large operations instead of many small ones."""
    return torch.cat([tensor.flatten() for tensor in tensors])
