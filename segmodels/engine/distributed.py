"""The processes of one pre-training run, one a GPU, as torchrun starts them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
from torch import Tensor, distributed

# Others wait while the first process decodes all photographs. When a process dies, torchrun ends
# the others at once, so that nothing is gained by giving up earlier.
_PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class Group:
    """This process's place among those of the run; alone, all its methods do nothing.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        device: where this process computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks for all."""
        return self.rank == 0

    def check_batch(self, batch_size: int) -> None:
        """Make sure that every process gets as many photographs as the others.

        Raises:
            ValueError: they cannot be shared out evenly.
        """
        if batch_size % self.size:
            raise ValueError(
                f"batch_size {batch_size} must be a multiple of the {self.size} processes"
            )

    @torch.no_grad()
    def mean_(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their means over the processes, in place and in one exchange.

        Args:
            tensors: of one dtype; the same shapes, in the same order, in every process.
        """
        if self.size == 1:
            return
        kept = list(tensors)
        flat = torch.cat([tensor.flatten() for tensor in kept])
        distributed.all_reduce(flat)
        flat /= self.size
        _scatter(flat, kept)

    @torch.no_grad()
    def take_first_(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by those of the first process, in place; as in `mean_`."""
        if self.size == 1:
            return
        kept = list(tensors)
        flat = torch.cat([tensor.flatten() for tensor in kept])
        distributed.broadcast(flat, src=0)
        _scatter(flat, kept)

    def agree(self, decision: bool) -> bool:
        """The first process's decision, for all: clocks and folders may differ."""
        answer = torch.tensor([float(decision)], device=self.device)
        self.take_first_([answer])
        return bool(answer.item())

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let the first process run the block alone, then the others, who find what it left."""
        if not self.leads:
            self.agree(True)
        yield
        if self.leads:
            self.agree(True)


@contextmanager
def joined(device: str | torch.device) -> Iterator[Group]:
    """Join the other processes of a torchrun command; without torchrun, be alone.

    A process that has joined already keeps its group: to leave and come back is not reliable.

    Args:
        device: torch device; under torchrun, any CUDA device stands for this process's own.
    """
    device = torch.device(device)
    if not (distributed.is_available() and distributed.is_torchelastic_launched()):
        yield Group(device=device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", distributed.get_node_local_rank())
        torch.cuda.set_device(device)
    inside = distributed.is_initialized()
    if not inside:
        backend, bound = ("nccl", device) if device.type == "cuda" else ("gloo", None)
        distributed.init_process_group(backend, timeout=_PATIENCE, device_id=bound)
    try:
        yield Group(distributed.get_rank(), distributed.get_world_size(), device)
    finally:
        if not inside:
            distributed.destroy_process_group()


def _scatter(flat: Tensor, tensors: list[Tensor]) -> None:
    for tensor, part in zip(
        tensors, flat.split_with_sizes([t.numel() for t in tensors]), strict=True
    ):
        tensor.copy_(part.view_as(tensor))
