"""The processes of one training run, one a GPU, as torchrun starts them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
from torch import Tensor, distributed

# The others wait while the first process decodes all images. When a process dies, torchrun ends the
# others at once, so a shorter timeout would gain nothing.
_TIMEOUT = timedelta(days=1)


@dataclass(frozen=True)
class Group:
    """The processes of a run as one of them sees them; with one process, its methods do nothing.

    Attributes:
        rank: rank of this process, from 0.
        size: number of processes (torchrun's world size).
        device: torch device of this process.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process (rank 0) writes the files and the log."""
        return self.rank == 0

    def check_batch(self, batch_size: int) -> None:
        """Check that a batch splits evenly over the processes.

        Raises:
            ValueError: `batch_size` is no multiple of the number of processes.
        """
        if batch_size % self.size:
            raise ValueError(
                f"batch_size {batch_size} must be a multiple of the {self.size} processes"
            )

    @torch.no_grad()
    def mean_(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their means over the processes, in place, in one all-reduce.

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
        """Replace tensors by those of rank 0, in place, in one broadcast; see `mean_`."""
        if self.size == 1:
            return
        kept = list(tensors)
        flat = torch.cat([tensor.flatten() for tensor in kept])
        distributed.broadcast(flat, src=0)
        _scatter(flat, kept)

    def agree(self, decision: bool) -> bool:
        """Return rank 0's decision in every process, as clocks and folders may differ."""
        answer = torch.tensor([float(decision)], device=self.device)
        self.take_first_([answer])
        return bool(answer.item())

    def wait(self) -> None:
        """Wait until every process is here."""
        here = torch.ones(1, device=self.device)
        self.mean_([here])
        here.item()

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Run the block in rank 0 first, then in the others, which find the files it wrote."""
        if not self.leads:
            self.agree(True)
        yield
        if self.leads:
            self.agree(True)


@contextmanager
def process_group(device: str | torch.device) -> Iterator[Group]:
    """Join torchrun's process group for the length of a block; without torchrun, a group of one.

    A process that is in the group already stays in it, as it cannot reliably leave and join again.

    Args:
        device: torch device; under torchrun, every CUDA device means the GPU of this local rank.
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
        distributed.init_process_group(backend, timeout=_TIMEOUT, device_id=bound)
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
