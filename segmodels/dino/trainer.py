"""One DINO pre-training run: networks, optimiser, step, checkpoint and exact resume."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import cos, pi
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from segmodels.dino.collapse import CollapseMetrics, collapse_metrics
from segmodels.dino.distributed import Group
from segmodels.dino.losses import DinoHead, Targets, cross_entropy, view_loss
from segmodels.dino.multicrop import (
    Views,
    multicrop,
    patch_points,
    points_in_crop,
    whole_views,
)
from segmodels.dino.patch_basis import set_patch_basis
from segmodels.dino.photos import photos_digest
from segmodels.dino.salient import saliency_loss, salient_patches
from segmodels.dino.settings import PretrainSettings
from segmodels.dino.vit import VisionTransformer
from segmodels.formats.atomic import replacing

_FORMAT = "exnihilo-dino-2"


class CheckpointMismatchError(ValueError):
    """A checkpoint belongs to a run with other settings or photographs."""


class Network(nn.Module):
    """A transformer with its heads: one on CLS, one on the keys of patches."""

    def __init__(self, settings: PretrainSettings) -> None:
        super().__init__()
        dim = settings.dim
        self.backbone = VisionTransformer(settings.vit_shape)
        self.cls_head = DinoHead(dim, settings.prototypes, hidden_dim=2 * dim, bottleneck=128)
        self.patch_head = DinoHead(
            dim, settings.patch_prototypes, hidden_dim=2 * dim, bottleneck=64
        )


@dataclass(frozen=True)
class StepReport:
    """Numbers of one step, of this process's photographs; `collapse` only where asked for."""

    step: int
    loss: float
    cls_loss: float
    patch_loss: float
    saliency_loss: float
    learning_rate: float
    collapse: CollapseMetrics | None


def cosine(start: float, end: float, share: float) -> float:
    """Half a cosine from `start` at share 0 to `end` at share 1."""
    return end + (start - end) * (1 + cos(pi * min(share, 1.0))) / 2


class Trainer:
    """Trains a student and its moving-average teacher; all randomness follows from (seed, step).

    In a group of processes each takes its part of a step's photographs, with draws of its own;
    gradients and centres are averaged, so that all processes hold the same networks.

    Args:
        settings: the run.
        photos: (n, S, S, 3) uint8 RGB, may be a memory map.
        salient: (n, cells, cells) bool, their salient cells; not looked at without that loss.
        device: torch device.
        start: weights of the transformer to begin with, instead of random ones.
        group: the processes that share each step; None is this one alone.

    Raises:
        ValueError: a step's photographs are more than there are, or no multiple of the processes.
        RuntimeError: `start` belongs to a transformer of another shape.
    """

    def __init__(
        self,
        settings: PretrainSettings,
        photos: np.ndarray,
        salient: np.ndarray,
        device: str | torch.device = "cpu",
        start: Mapping[str, Tensor] | None = None,
        group: Group | None = None,
    ) -> None:
        self.group = group or Group()
        self.group.check_batch(settings.batch_size)
        if len(photos) < settings.batch_size:
            raise ValueError(
                f"batch_size {settings.batch_size} is more than the {len(photos)} photographs"
            )
        self.settings = settings
        self.photos = photos
        self.salient = salient
        self.device = torch.device(device)
        self.step = 0
        self.student = Network(settings)
        generator = torch.Generator().manual_seed(settings.seed)
        for part in (self.student.backbone, self.student.cls_head, self.student.patch_head):
            part.initialise(generator)
        if start is not None:
            self.student.backbone.load_state_dict(start)
        elif settings.patch_basis:
            set_patch_basis(self.student.backbone.patch_embed, photos)
        self.teacher = Network(settings)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.cls_targets = self._targets(settings.prototypes)
        self.patch_targets = self._targets(settings.patch_prototypes)
        for module in (self.student, self.teacher, self.cls_targets, self.patch_targets):
            module.to(self.device)
        for network in (self.student, self.teacher):
            self.group.take_first_(network.parameters())
        self.optimiser = torch.optim.AdamW(self._parameter_groups())

    @property
    def steps_an_epoch(self) -> int:
        """Steps in which every photograph is seen at most once."""
        return len(self.photos) // self.settings.batch_size

    def train_step(self, measure: bool = False) -> StepReport:
        """Run one step; with `measure`, also look for collapse."""
        settings = self.settings
        generator = self._generator(1)
        chosen = self._chosen()
        photos = torch.from_numpy(self.photos[chosen]).permute(0, 3, 1, 2).float() / 255
        globals_, locals_ = multicrop(photos, settings.crops, generator)
        globals_, locals_ = self._moved(globals_), self._moved(locals_)
        grid = settings.vit_shape.grid
        kept = self._kept_patches(len(globals_.pixels), grid**2, generator)

        with self._autocast(), torch.no_grad():
            seen = self.teacher.backbone(globals_.pixels)
            cls_targets = self.cls_targets(self.teacher.cls_head(seen.cls))
        with self._autocast():
            far = self.student.backbone(globals_.pixels, kept)
            near = self.student.backbone(locals_.pixels)
            logits = self.student.cls_head(torch.cat([far.cls, near.cls]))
        size = len(chosen)
        cls_loss = view_loss(
            logits.unflatten(0, (-1, size)),
            cls_targets.unflatten(0, (2, size)),
            settings.student_temperature,
        )
        patch_loss = torch.zeros((), device=self.device)
        if settings.patch_weight:
            patch_loss = self._patch_loss(
                seen.keys, far.keys, near.keys, globals_=globals_, locals_=locals_, kept=kept
            )
        salient_loss = torch.zeros((), device=self.device)
        if settings.saliency.weight:
            views = whole_views(
                photos, settings.saliency.view_size, settings.saliency.view_scale, generator
            )
            salient_loss = self._saliency_loss(self._moved(views), self.salient[chosen])
        loss = (
            cls_loss + settings.patch_weight * patch_loss + settings.saliency.weight * salient_loss
        )
        learning_rate = self._update(loss)
        report = StepReport(
            step=self.step,
            loss=loss.item(),
            cls_loss=cls_loss.item(),
            patch_loss=patch_loss.item(),
            saliency_loss=salient_loss.item(),
            learning_rate=learning_rate,
            collapse=collapse_metrics(cls_targets, seen.cls) if measure else None,
        )
        self.step += 1
        return report

    def save(self, path: Path) -> None:
        """Write a checkpoint under a temporary name and move it into place; one process does."""
        if not self.group.leads:
            return
        content = {
            "format": _FORMAT,
            "step": self.step,
            "settings": repr(asdict(self.settings)),
            "photos": photos_digest(self.photos),
            "student": self.student.state_dict(),
            "teacher": self.teacher.state_dict(),
            "cls_targets": self.cls_targets.state_dict(),
            "patch_targets": self.patch_targets.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        with replacing(path) as partial:
            torch.save(content, partial)

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint exactly where it was written.

        Raises:
            CheckpointMismatchError: it was written with other settings or photographs.
        """
        content = torch.load(path, map_location=self.device, weights_only=True)
        expected = (_FORMAT, repr(asdict(self.settings)), photos_digest(self.photos))
        if (content.get("format"), content.get("settings"), content.get("photos")) != expected:
            raise CheckpointMismatchError(
                f"{path} was written by a run with other settings or photographs: "
                "give the same ones, or another output folder"
            )
        self.step = content["step"]
        self.student.load_state_dict(content["student"])
        self.teacher.load_state_dict(content["teacher"])
        self.cls_targets.load_state_dict(content["cls_targets"])
        self.patch_targets.load_state_dict(content["patch_targets"])
        self.optimiser.load_state_dict(content["optimiser"])

    def _targets(self, prototypes: int) -> Targets:
        settings = self.settings
        return Targets(
            prototypes, settings.teacher_temperature, settings.centre_momentum, self.group
        )

    def _parameter_groups(self) -> list[dict[str, object]]:
        """Matrices decay; biases, norms and single vectors do not."""
        parameters = list(self.student.parameters())
        return [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]

    def _generator(self, purpose: int) -> torch.Generator:
        """A generator of its own for every step, purpose and process: resuming needs no state."""
        place = [self.settings.seed, purpose, self.step]
        if self.group.rank:
            place.append(self.group.rank)
        words = np.random.SeedSequence(place).generate_state(2)
        return torch.Generator().manual_seed(int(words[0]) << 32 | int(words[1]))

    def _chosen(self) -> np.ndarray:
        """This process's photographs of the step, ascending; a new shuffle every epoch."""
        epoch, place = divmod(self.step, self.steps_an_epoch)
        order = np.random.default_rng([self.settings.seed, 0, epoch]).permutation(len(self.photos))
        start = place * self.settings.batch_size
        chosen = np.sort(order[start : start + self.settings.batch_size])
        return chosen[self.group.rank :: self.group.size]

    def _moved(self, views: Views) -> Views:
        return Views(views.pixels.to(self.device), views.frames.to(self.device))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bfloat16)

    def _kept_patches(self, n: int, patches: int, generator: torch.Generator) -> Tensor:
        """Draw which patches the student sees, (n, t) sorted indices."""
        count = max(1, round(patches * self.settings.student_keep))
        scores = torch.rand(n, patches, generator=generator)
        return scores.topk(count, dim=1).indices.sort(dim=1).values.to(self.device)

    def _patch_loss(
        self,
        seen: Tensor,
        far: Tensor,
        near: Tensor,
        *,
        globals_: Views,
        locals_: Views,
        kept: Tensor,
    ) -> Tensor:
        """Align the student's keys with the teacher's at the same place of the photograph.

        Global views look at each other, local views at the two global ones in turn.

        Args:
            seen: teacher keys (2b, g * g, d) of the global views.
            far: student keys (2b, t, d) of the patches `kept` of the global views.
            near: student keys (l * b, h * h, d) of the local views.
            globals_, locals_: the views.
            kept: (2b, t) indices.
        """
        size = len(globals_.frames) // 2
        grid = self.settings.vit_shape.grid
        far_points = patch_points(globals_.frames, grid)
        far_points = far_points.gather(1, kept[..., None].expand(-1, -1, 2))
        local_grid = self.settings.crops.local_size // self.settings.patch_size
        near_points = patch_points(locals_.frames, local_grid)
        other = torch.cat([torch.arange(size, 2 * size), torch.arange(size)])
        in_turn = torch.arange(len(near_points)) % (2 * size)

        student, teacher = [], []
        for keys, points, target in ((far, far_points, other), (near, near_points, in_turn)):
            target = target.to(self.device)
            places = points_in_crop(points, globals_.frames[target])
            visible = places.abs().amax(dim=-1) < 1
            table = seen[target].float().transpose(1, 2).unflatten(2, (grid, grid))
            sampled = functional.grid_sample(
                table, places[:, :, None], padding_mode="border", align_corners=False
            )
            student.append(keys[visible])
            teacher.append(sampled[..., 0].transpose(1, 2)[visible])
        with self._autocast(), torch.no_grad():
            targets = self.patch_targets(self.teacher.patch_head(torch.cat(teacher)))
        with self._autocast():
            logits = self.student.patch_head(torch.cat(student))
        return cross_entropy(logits, targets, self.settings.student_temperature)

    def _saliency_loss(self, views: Views, salient: np.ndarray) -> Tensor:
        settings = self.settings.saliency
        grid = settings.view_size // self.settings.patch_size
        shares = salient_patches(torch.from_numpy(salient).to(self.device), views.frames, grid)
        with self._autocast():
            keys = self.student.backbone(views.pixels).keys
        return saliency_loss(keys, shares, settings)

    def _update(self, loss: Tensor) -> float:
        """Step the optimiser by the schedules, then move the teacher; returns the learning rate."""
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
        loss.backward()
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
