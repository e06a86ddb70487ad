"""DINO's losses of one step: CLS across all views, keys at the same image points of two views."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from segmodels.dino.losses import CenteredTargets, cross_entropy, view_loss
from segmodels.dino.multicrop import Views, multicrop, patch_points, points_in_crop
from segmodels.dino.networks import Network
from segmodels.dino.settings import PretrainSettings
from segmodels.engine.distributed import Group


@dataclass(frozen=True)
class Distilled:
    """Losses of one step; targets (n, k) and CLS (n, d) of the teacher, for `collapse_metrics`."""

    cls_loss: Tensor
    patch_loss: Tensor
    targets: Tensor
    cls: Tensor


class SelfDistillation(nn.Module):
    """DINO's losses, with the running centres of the teacher's two heads as state."""

    def __init__(self, settings: PretrainSettings, group: Group) -> None:
        super().__init__()
        self.settings = settings
        self.cls_targets, self.patch_targets = (
            CenteredTargets(count, settings.teacher_temperature, settings.centre_momentum, group)
            for count in (settings.prototypes, settings.patch_prototypes)
        )

    def forward(
        self, student: Network, teacher: Network, images: Tensor, generator: torch.Generator
    ) -> Distilled:
        """Losses on multi-crop views of images (b, 3, S, S) float32 in [0, 1]."""
        settings = self.settings
        device = student.device
        globals_, locals_ = (
            views.to(device) for views in multicrop(images, settings.crops, generator)
        )
        kept = self._kept_patches(len(globals_.pixels), generator).to(device)
        with teacher.autocast(), torch.no_grad():
            seen = teacher.backbone(globals_.pixels)
            targets = self.cls_targets(teacher.cls_head(seen.cls))
        with student.autocast():
            far = student.backbone(globals_.pixels, kept)
            near = student.backbone(locals_.pixels)
            logits = student.cls_head(torch.cat([far.cls, near.cls]))
        size = len(images)
        cls_loss = view_loss(
            logits.unflatten(0, (-1, size)),
            targets.unflatten(0, (2, size)),
            settings.student_temperature,
        )
        patch_loss = torch.zeros((), device=device)
        if settings.patch_weight:
            pairs = self._corresponding_keys(
                seen.keys, far.keys, near.keys, globals_=globals_, locals_=locals_, kept=kept
            )
            patch_loss = self._patch_loss(student, teacher, *pairs)
        return Distilled(cls_loss, patch_loss, targets, seen.cls)

    def _kept_patches(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw the patches of the global views that the student sees: (n, t) sorted indices."""
        patches = self.settings.crop_grid**2
        count = max(1, round(patches * self.settings.student_keep))
        scores = torch.rand(n, patches, generator=generator)
        return scores.topk(count, dim=1).indices.sort(dim=1).values

    def _corresponding_keys(
        self,
        seen: Tensor,
        far: Tensor,
        near: Tensor,
        *,
        globals_: Views,
        locals_: Views,
        kept: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Student keys and the teacher's keys at the same points of the image.

        Each global view is paired with the other one, local views with the two in turn.

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
            positions = points_in_crop(points, globals_.frames[target])
            visible = positions.abs().amax(dim=-1) < 1
            table = torch.unflatten(seen[target].float().transpose(1, 2), 2, (grid, grid))
            sampled = functional.grid_sample(
                table, positions[:, :, None], padding_mode="border", align_corners=False
            )
            student.append(keys[visible])
            teacher.append(sampled[..., 0].transpose(1, 2)[visible])
        return torch.cat(student), torch.cat(teacher)

    def _patch_loss(
        self, student: Network, teacher: Network, student_keys: Tensor, teacher_keys: Tensor
    ) -> Tensor:
        """Cross entropy between the heads' outputs on paired keys (m, d)."""
        with teacher.autocast(), torch.no_grad():
            targets = self.patch_targets(teacher.patch_head(teacher_keys))
        with student.autocast():
            logits = student.patch_head(student_keys)
        return cross_entropy(logits, targets, self.settings.student_temperature)
