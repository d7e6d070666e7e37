"""The exponential moving average of a network's weights and batch-norm statistics over its steps."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

WARM_UP = 9
"""The average follows faster at first: in step t, its decay is at most (t - 1) / (t - 1 + WARM_UP): the first gives the weights
themselves."""


class Average:
    """The average (Polyak and Juditsky 1992, by exponential weights); nothing waits for the device."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self._live = [value for value in model.state_dict().values() if value.is_floating_point()]
        self._values = [value.clone() for value in self._live]
        self._steps = torch.zeros((), device=self._live[0].device)

    @torch.no_grad()
    def update(self, kept: Tensor) -> None:
        """Moves the average towards the weights, where the step was `kept` and not skipped."""
        self._steps += kept
        weight = (WARM_UP / (WARM_UP + self._steps - 1)).clamp(min=1 - self.decay) * kept
        torch._foreach_lerp_(self._values, self._live, [weight] * len(self._live))

    @torch.no_grad()
    def restart(self) -> None:
        """Sets the average to the weights, which were set by other means than a step."""
        torch._foreach_copy_(self._values, self._live)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Gives the network the average while the context is open."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    @torch.no_grad()
    def exchange(self) -> None:
        """Exchanges the network's weights and their average."""
        live = [value.clone() for value in self._live]
        torch._foreach_copy_(self._live, self._values)
        torch._foreach_copy_(self._values, live)

    def state_dict(self) -> dict[str, Any]:
        """Returns the average and the number of its steps."""
        return {"values": self._values, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned, in place."""
        torch._foreach_copy_(self._values, state["values"])
        self._steps.copy_(state["steps"])
