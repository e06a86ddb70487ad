"""Trainer of one DINO run: networks, optimiser and step, for the loop of `segmodels.engine`."""

from collections.abc import Mapping
from dataclasses import asdict
from math import cos, isfinite, pi
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segmodels.backbones.weights import weights_digest
from segmodels.dino.collapse import CollapseMetrics, collapse_metrics
from segmodels.dino.images import sample_digest
from segmodels.dino.networks import Network, start_from
from segmodels.dino.object_losses import ObjectTerms, object_terms
from segmodels.dino.patch_basis import set_patch_basis
from segmodels.dino.self_distillation import Distilled, SelfDistillation
from segmodels.dino.settings import PretrainSettings
from segmodels.engine.distributed import Group

_FORMAT = "exnihilo-dino-4"


def cosine(start: float, end: float, share: float) -> float:
    """Cosine schedule from `start` at share 0 to `end` at share 1 and beyond."""
    return end + (start - end) * (1 + cos(pi * min(share, 1.0))) / 2


class Trainer:
    """Trains a student and its moving-average teacher; all randomness follows from (seed, step).

    Each process of a group takes its part of a batch and draws its own crops; gradients and centres
    are averaged, so that all processes hold the same networks.

    Args:
        settings: settings of the run.
        images: (n, S, S, 3) uint8 RGB, may be a memory map.
        maps: (n, cells, cells) uint8, saliency of the images; unused without a loss on objects.
        device: torch device.
        start: initial weights of the transformer; None for random weights.
        group: the processes of the run; None is this one alone.

    Raises:
        ValueError: the batch size is more than the number of images, or no multiple of the number
            of processes.
        RuntimeError: `start` belongs to a transformer of another shape.
    """

    def __init__(
        self,
        settings: PretrainSettings,
        images: np.ndarray,
        maps: np.ndarray,
        device: str | torch.device = "cpu",
        start: Mapping[str, Tensor] | None = None,
        group: Group | None = None,
    ) -> None:
        self.group = group or Group()
        self.group.check_batch(settings.batch_size)
        if len(images) < settings.batch_size:
            raise ValueError(
                f"batch_size {settings.batch_size} is more than the {len(images)} images"
            )
        self.settings = settings
        self.images = images
        self.maps = maps
        self.device = torch.device(device)
        self.step = 0
        self.student = Network(settings)
        generator = torch.Generator().manual_seed(settings.seed)
        self.student.initialise(generator)
        if start is not None:
            start_from(self.student.backbone, start)
        elif settings.patch_basis:
            set_patch_basis(self.student.backbone.patch_embed, images)
        self.teacher = Network(settings)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.distillation = SelfDistillation(settings, self.group)
        for module in (self.student, self.teacher, self.distillation):
            module.to(self.device)
        for network in (self.student, self.teacher):
            self.group.take_first_(network.parameters())
        self.optimiser = torch.optim.AdamW(self._parameter_groups())
        self._parts: dict[str, nn.Module | torch.optim.Optimizer] = {
            "student": self.student,
            "teacher": self.teacher,
            "distillation": self.distillation,
            "optimiser": self.optimiser,
        }
        self.identity = {
            "format": _FORMAT,
            "settings": repr(asdict(settings)),
            "photos": sample_digest(images),
            "maps": sample_digest(maps),
            "start": "" if start is None else weights_digest(start),
        }

    @property
    def total(self) -> int:
        """Steps of the run."""
        return self.settings.steps

    @property
    def steps_an_epoch(self) -> int:
        """Steps of an epoch, in which every image is seen at most once."""
        return len(self.images) // self.settings.batch_size

    def train_step(self, measure: bool = False) -> dict[str, float]:
        """Run one step; with `measure`, also compute the collapse metrics.

        Returns:
            Losses on the images of this process, 0 for those that are left out; the learning rate.
        """
        settings = self.settings
        generator = self._generator(1)
        batch = self._batch()
        images = torch.from_numpy(self.images[batch]).permute(0, 3, 1, 2).float() / 255
        loss = torch.zeros((), device=self.device)
        distilled = terms = None
        if settings.dino_weight:
            distilled = self.distillation(self.student, self.teacher, images, generator)
            dino_loss = distilled.cls_loss + settings.patch_weight * distilled.patch_loss
            loss = loss + settings.dino_weight * dino_loss
        if settings.learns_objects:
            maps = torch.from_numpy(self.maps[batch]).float() / 255
            terms = object_terms(
                self.student, images, maps, settings.saliency, settings.shape, generator
            )
            loss = loss + settings.saliency.weight * terms.saliency_loss
            loss = loss + settings.shape.weight * terms.shape_loss
        learning_rate = self._update(loss)
        numbers = {
            "loss": loss.item(),
            "cls_loss": distilled.cls_loss.item() if distilled else 0.0,
            "patch_loss": distilled.patch_loss.item() if distilled else 0.0,
            "saliency_loss": terms.saliency_loss.item() if terms else 0.0,
            "shape_loss": terms.shape_loss.item() if terms else 0.0,
            "learning_rate": learning_rate,
        }
        # Singular values of what is not finite do not exist; the loop stops at such a loss.
        if measure and isfinite(numbers["loss"]):
            numbers |= self._collapse(distilled, terms).measured()
        self.step += 1
        return numbers

    def state(self) -> dict[str, Any]:
        """Networks, centres and optimiser."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])

    def _parameter_groups(self) -> list[dict[str, object]]:
        """Weight decay for matrices only: not for biases, norms and single vectors."""
        parameters = list(self.student.parameters())
        return [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]

    def _generator(self, purpose: int) -> torch.Generator:
        """Generator of one step, purpose and process, so that resuming needs no stored state."""
        entropy = [self.settings.seed, purpose, self.step]
        if self.group.rank:
            entropy.append(self.group.rank)
        words = np.random.SeedSequence(entropy).generate_state(2)
        return torch.Generator().manual_seed(int(words[0]) << 32 | int(words[1]))

    def _batch(self) -> np.ndarray:
        """Image indices of this step and process, ascending; shuffled anew every epoch."""
        epoch, position = divmod(self.step, self.steps_an_epoch)
        order = np.random.default_rng([self.settings.seed, 0, epoch]).permutation(len(self.images))
        start = position * self.settings.batch_size
        batch = np.sort(order[start : start + self.settings.batch_size])
        return batch[self.group.rank :: self.group.size]

    def _collapse(self, distilled: Distilled | None, terms: ObjectTerms | None) -> CollapseMetrics:
        if distilled is not None:
            return collapse_metrics(distilled.targets, distilled.cls)
        assert terms is not None
        return collapse_metrics(None, terms.cls)

    def _update(self, loss: Tensor) -> float:
        """Step the optimiser by the schedules, update the teacher; returns the learning rate."""
        settings = self.settings
        share = self.step / settings.steps
        warm = min(1.0, (self.step + 1) / max(1.0, settings.warmup * settings.steps))
        learning_rate = warm * cosine(
            settings.learning_rate,
            settings.learning_rate / 100,
            (share - settings.warmup) / (1 - settings.warmup) if share > settings.warmup else 0.0,
        )
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.param_groups[0]["weight_decay"] = cosine(*settings.weight_decay, share)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if self.step < settings.frozen_epochs * self.steps_an_epoch:
            self.student.cls_head.prototypes.grad = None
            self.student.patch_head.prototypes.grad = None
        self.group.mean_(p.grad for p in self.student.parameters() if p.grad is not None)
        nn.utils.clip_grad_norm_(self.student.parameters(), settings.gradient_clip)
        self.optimiser.step()
        momentum = cosine(settings.teacher_momentum, 1.0, share)
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.teacher.parameters()), list(self.student.parameters()), 1 - momentum
            )
        return learning_rate
