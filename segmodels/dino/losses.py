"""DINO's self-distillation loss with centring and sharpening, and its projection head."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from segmodels.engine.distributed import Group


class DinoHead(nn.Module):
    """MLP, unit-length bottleneck, and unit-length prototypes (DINO app. C)."""

    def __init__(self, dim: int, prototypes: int, *, hidden_dim: int, bottleneck: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, bottleneck),
        )
        self.prototypes = nn.Parameter(torch.zeros(prototypes, bottleneck))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw fresh weights, scaled to each layer's fan-in; zero biases."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, d) features to (n, prototypes) cosines."""
        unit = functional.normalize(self.mlp(x), dim=-1)
        return functional.linear(unit, functional.normalize(self.prototypes, dim=-1))


class Targets(nn.Module):
    """Teacher logits to target distributions: centred by a running mean, sharpened (DINO eq. 4).

    The running mean is one for all processes of `group`: each counts the same.
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
        """Turn (n, prototypes) logits into probabilities, then move the centre towards them."""
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
    """Mean cross entropy over all pairs of a student view and ANOTHER, teacher, global view.

    Args:
        student: (views, b, k) logits; the first two views are the teacher's global ones.
        targets: (2, b, k) probabilities.
        temperature: the student's.
    """
    pairs = [
        cross_entropy(student[view], targets[other], temperature)
        for view in range(len(student))
        for other in range(2)
        if view != other
    ]
    return torch.stack(pairs).mean()
