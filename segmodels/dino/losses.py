"""DINO's self-distillation loss: the teacher's centred and sharpened targets, cross entropy."""

import torch
from torch import Tensor, nn

from segmodels.engine.distributed import Group


class CenteredTargets(nn.Module):
    """Teacher logits to target probabilities: centring by a running mean, sharpening (DINO eq. 4).

    The running mean is shared by all processes of `group`, each with the same weight.
    """

    def __init__(
        self, prototypes: int, temperature: float, momentum: float, group: Group | None = None
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.momentum = momentum
        self.group = group or Group()
        self.centre: Tensor
        self.register_buffer("centre", torch.zeros(prototypes))

    @torch.no_grad()
    def forward(self, logits: Tensor) -> Tensor:
        """Map logits (n, prototypes) to probabilities, then move the centre towards the logits."""
        logits = logits.float()
        probabilities = ((logits - self.centre) / self.temperature).softmax(dim=-1)
        mean = logits.mean(dim=0)
        self.group.mean_([mean])
        self.centre.lerp_(mean, 1 - self.momentum)
        return probabilities


def cross_entropy(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Mean cross entropy of student logits (n, k) against target probabilities (n, k)."""
    log_probabilities = (student.float() / temperature).log_softmax(dim=-1)
    return -(targets * log_probabilities).sum(dim=-1).mean()


def view_loss(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Mean cross entropy over all pairs of a student view and ANOTHER global view of the teacher.

    Args:
        student: (views, b, k) logits; the two global views come first.
        targets: (2, b, k) probabilities of the teacher.
        temperature: of the student.
    """
    pairs = [
        cross_entropy(student[view], targets[other], temperature)
        for view in range(len(student))
        for other in range(2)
        if view != other
    ]
    return torch.stack(pairs).mean()
