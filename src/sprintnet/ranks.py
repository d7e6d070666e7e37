"""The processes that train one run together, as `torchrun` starts them: each takes its part of every batch."""

import datetime
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

from sprintnet.errors import SprintNetError
from sprintnet.runs.environment import own_rank

LONGEST_WAIT = datetime.timedelta(days=1)
"""For the first process, which also downloads and evaluates. That a process has ended is noticed at once."""


@dataclass(frozen=True)
class Ranks:
    """The number of processes, and the rank of this one; the first, rank 0, keeps the run folder."""

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process keeps the run folder."""
        return self.rank == 0

    def part(self, batch: slice) -> slice:
        """Returns this rank's part of a batch; the parts differ in size by at most one."""
        size = batch.stop - batch.start
        first, last = (batch.start + size * rank // self.world for rank in (self.rank, self.rank + 1))
        return slice(first, last)

    def gather(self, values: Tensor) -> list[Tensor]:
        """Returns the values of all ranks, in their order: what is computed from them has the same bits on each."""
        if self.world == 1:
            return [values]
        found = [torch.empty_like(values) for _ in range(self.world)]
        with _others_alive():
            distributed.all_gather(found, values)
        return found

    def sum(self, values: Tensor) -> Tensor:
        """Returns the sum over all ranks, in their order."""
        first, *others = self.gather(values)
        total = first.clone() if others else first
        for other in others:
            total += other
        return total

    def share(self, value: Any) -> Any:
        """Returns the first rank's value."""
        if self.world == 1:
            return value
        values = [value if self.is_first else None]
        with _others_alive():
            distributed.broadcast_object_list(values)
        return values[0]

    def share_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Replaces the values of tensors by the first rank's."""
        if self.world > 1:
            with _others_alive():
                for tensor in tensors:
                    values = tensor.detach().contiguous()
                    distributed.broadcast(values, 0)
                    tensor.detach().copy_(values)


ALONE = Ranks()
"""A single process."""


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Joins the processes that torchrun has started: through NCCL where each has a GPU (device `cuda`), else through gloo."""
    if own_rank() is None:
        yield ALONE
        return
    from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]  # some builds of PyTorch lack them

    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    with _others_alive():
        store, rank, world = next(rendezvous("env://"))
        # after a restart torchrun's store still has the addresses of the processes before
        store = PrefixStore(f"restart-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        backend = "nccl" if device == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=LONGEST_WAIT, store=store, rank=rank, world_size=world)
    try:
        yield Ranks(rank, world)
    finally:
        distributed.destroy_process_group()


@contextmanager
def _others_alive() -> Iterator[None]:
    """Raises SprintNetError where the block fails, since another process has ended."""
    try:
        yield
    except RuntimeError as error:
        cause = (str(error).splitlines() or ["no cause given"])[0]
        raise SprintNetError(f"another process of this training has ended ({cause}); its message says why") from None
