"""DINO's own losses in one step: CLS between all views, keys at the same place of two views."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from segmodels.dino.losses import Targets, cross_entropy, view_loss
from segmodels.dino.multicrop import Views, multicrop, patch_points, points_in_crop
from segmodels.dino.networks import Network, autocast
from segmodels.dino.settings import PretrainSettings
from segmodels.engine.distributed import Group


@dataclass(frozen=True)
class Distilled:
    """Losses of one step, and what collapse is read off: targets (n, k), CLS (n, d)."""

    cls_loss: Tensor
    patch_loss: Tensor
    targets: Tensor
    cls: Tensor


class SelfDistillation(nn.Module):
    """Holds the running centres of the teacher's two heads."""

    def __init__(self, settings: PretrainSettings, group: Group) -> None:
        super().__init__()
        self.settings = settings
        self.cls_targets, self.patch_targets = (
            Targets(count, settings.teacher_temperature, settings.centre_momentum, group)
            for count in (settings.prototypes, settings.patch_prototypes)
        )

    def forward(
        self, student: Network, teacher: Network, photos: Tensor, generator: torch.Generator
    ) -> Distilled:
        """Look at views of photographs (b, 3, S, S) float32 in [0, 1]."""
        settings = self.settings
        device = student.device
        globals_, locals_ = (
            views.to(device) for views in multicrop(photos, settings.crops, generator)
        )
        kept = self._kept_patches(len(globals_.pixels), generator).to(device)
        with autocast(settings, device), torch.no_grad():
            seen = teacher.backbone(globals_.pixels)
            targets = self.cls_targets(teacher.cls_head(seen.cls))
        with autocast(settings, device):
            far = student.backbone(globals_.pixels, kept)
            near = student.backbone(locals_.pixels)
            logits = student.cls_head(torch.cat([far.cls, near.cls]))
        size = len(photos)
        cls_loss = view_loss(
            logits.unflatten(0, (-1, size)),
            targets.unflatten(0, (2, size)),
            settings.student_temperature,
        )
        patch_loss = torch.zeros((), device=device)
        if settings.patch_weight:
            pairs = self._same_places(
                seen.keys, far.keys, near.keys, globals_=globals_, locals_=locals_, kept=kept
            )
            patch_loss = self._patch_loss(student, teacher, *pairs)
        return Distilled(cls_loss, patch_loss, targets, seen.cls)

    def _kept_patches(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw which patches of the global views the student sees, (n, t) sorted indices."""
        patches = self.settings.crop_grid**2
        count = max(1, round(patches * self.settings.student_keep))
        scores = torch.rand(n, patches, generator=generator)
        return scores.topk(count, dim=1).indices.sort(dim=1).values

    def _same_places(
        self,
        seen: Tensor,
        far: Tensor,
        near: Tensor,
        *,
        globals_: Views,
        locals_: Views,
        kept: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Pair the student's keys with the teacher's at the same place of the photograph.

        Global views look at each other, local views at the two global ones in turn.

        Args:
            seen: teacher keys (2b, g * g, d) of the global views.
            far: student keys (2b, t, d) of the patches `kept` of the global views.
            near: student keys (l * b, h * h, d) of the local views.
            globals_, locals_: the views.
            kept: (2b, t) indices.

        Returns:
            Student's and teacher's keys, both (m, d).
        """
        size = len(globals_.frames) // 2
        grid = self.settings.crop_grid
        far_points = patch_points(globals_.frames, grid)
        far_points = far_points.gather(1, kept[..., None].expand(-1, -1, 2))
        local_grid = self.settings.crops.local_size // self.settings.patch_size
        near_points = patch_points(locals_.frames, local_grid)
        other = torch.cat([torch.arange(size, 2 * size), torch.arange(size)])
        in_turn = torch.arange(len(near_points)) % (2 * size)

        student, teacher = [], []
        for keys, points, target in ((far, far_points, other), (near, near_points, in_turn)):
            target = target.to(seen.device)
            places = points_in_crop(points, globals_.frames[target])
            visible = places.abs().amax(dim=-1) < 1
            table = seen[target].float().transpose(1, 2).unflatten(2, (grid, grid))
            sampled = functional.grid_sample(
                table, places[:, :, None], padding_mode="border", align_corners=False
            )
            student.append(keys[visible])
            teacher.append(sampled[..., 0].transpose(1, 2)[visible])
        return torch.cat(student), torch.cat(teacher)

    def _patch_loss(
        self, student: Network, teacher: Network, own: Tensor, wanted: Tensor
    ) -> Tensor:
        with autocast(self.settings, own.device), torch.no_grad():
            targets = self.patch_targets(teacher.patch_head(wanted))
        with autocast(self.settings, own.device):
            logits = student.patch_head(own)
        return cross_entropy(logits, targets, self.settings.student_temperature)
