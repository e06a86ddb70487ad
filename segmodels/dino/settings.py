"""Settings of DINO pre-training; the defaults train the embedded backbone."""

from dataclasses import dataclass, field

from segmodels.backbones.vit import ViTShape


@dataclass(frozen=True)
class CropSettings:
    """Multi-crop views of an image; sizes in pixels, scales as shares of its area."""

    global_size: int = 64
    local_size: int = 32
    num_local: int = 4
    global_scale: tuple[float, float] = (0.35, 1.0)
    local_scale: tuple[float, float] = (0.06, 0.35)


@dataclass(frozen=True)
class SaliencySettings:
    """Saliency loss: keys of salient patches unlike keys of the background.

    Attributes:
        weight: weight of this loss; 0 leaves it out.
        view_size: side of the nearly whole views, px.
        view_scale: range of their share of the image's area.
        tau: decision threshold on the cosine of two keys, as in MaskCut.
        temperature: of the logit (cosine - tau) / temperature.
        reach: salient patches at most this many rows and columns apart are pulled together; pairs
            farther apart are left out, as they may show different objects.
        far_background: weight of background pairs farther apart than `reach`, in [0, 1].
        cells: side of the object maps.
    """

    weight: float = 1.0
    view_size: int = 112
    view_scale: tuple[float, float] = (0.6, 1.0)
    tau: float = 0.15
    temperature: float = 0.25
    reach: int = 2
    far_background: float = 0.5
    cells: int = 28


@dataclass(frozen=True)
class ShapeSettings:
    """Shape loss: the object's shape from CLS, on whole views and on views of the object alone.

    Attributes:
        weight: weight of this loss; 0 leaves it out. The whole views are the saliency loss's.
        view_size: side of the views of the object alone, px.
        cells: side of the predicted shape.
    """

    weight: float = 1.0
    view_size: int = 64
    cells: int = 8


@dataclass(frozen=True)
class PretrainSettings:
    """One pre-training run; every random draw is a function of `seed` and the step alone.

    Attributes:
        patch_size, dim, depth, num_heads: sizes of the transformer.
        crops: multi-crop views.
        photo_size: side of the cached square images, px.
        batch_size: images a step, over all processes.
        steps: length of all schedules, in optimiser steps.
        learning_rate: peak, reached after `warmup` (a share of the steps), then cosine to 1 %.
        weight_decay: start and end of its cosine.
        teacher_momentum: start of the teacher's momentum, which rises to 1 on a cosine.
        prototypes, patch_prototypes: output width of the CLS head and of the patch head.
        student_keep: share of a global crop's patches that the student sees (MSN, Assran et al.
            2022); 1 is plain DINO.
        saliency, shape: the losses on objects.
        dino_weight: weight of the self-distillation losses on CLS and patches; 0 leaves them out.
        patch_weight: weight of the self-distillation loss between keys of corresponding patches;
            0 is plain DINO.
        frozen_epochs: epochs in which the prototypes are not trained. DINO's 1 needs smaller
            learning rates than short runs can afford, or the targets become uniform.
        patch_basis: initialise the patch embedding with principal components of patches.
        bfloat16: run the networks under bfloat16 autocast.
    """

    patch_size: int = 8
    dim: int = 192
    depth: int = 6
    num_heads: int = 3
    crops: CropSettings = field(default_factory=CropSettings)
    saliency: SaliencySettings = field(default_factory=SaliencySettings)
    shape: ShapeSettings = field(default_factory=ShapeSettings)
    dino_weight: float = 1.0
    photo_size: int = 112
    batch_size: int = 32
    steps: int = 1600
    learning_rate: float = 1e-3
    warmup: float = 0.05
    weight_decay: tuple[float, float] = (0.04, 0.2)
    teacher_momentum: float = 0.99
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    centre_momentum: float = 0.9
    prototypes: int = 4096
    patch_prototypes: int = 1024
    student_keep: float = 0.5
    patch_weight: float = 1.0
    gradient_clip: float = 3.0
    frozen_epochs: float = float("inf")
    patch_basis: bool = True
    bfloat16: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(
                f"steps and batch_size must be positive, got {self.steps} and {self.batch_size}"
            )
        if not 0 < self.student_keep <= 1:
            raise ValueError(f"student_keep must be in (0, 1], got {self.student_keep}")
        if not (self.dino_weight or self.learns_objects):
            raise ValueError(
                "nothing would be learned: give one of dino_weight, saliency.weight and "
                "shape.weight a value above 0"
            )
        cells = self.saliency.cells
        if cells % 2 or self.photo_size % cells:
            raise ValueError(
                f"saliency.cells must be even and divide photo_size {self.photo_size}, got {cells}"
            )
        for size in (
            self.crops.global_size,
            self.crops.local_size,
            self.saliency.view_size,
            self.shape.view_size,
        ):
            if size % self.patch_size:
                raise ValueError(
                    f"crop size {size} must be a multiple of the patch size {self.patch_size}"
                )

    @property
    def learns_objects(self) -> bool:
        """Whether a loss reads the object maps."""
        return self.saliency.weight > 0 or self.shape.weight > 0

    @property
    def crop_grid(self) -> int:
        """Side of a global crop in patches."""
        return self.crops.global_size // self.patch_size

    @property
    def vit_shape(self) -> ViTShape:
        """Sizes of the transformer; its grid is that of the largest views."""
        native = self.crops.global_size
        if self.learns_objects:
            native = max(native, self.saliency.view_size)
        return ViTShape(
            patch_size=self.patch_size,
            dim=self.dim,
            depth=self.depth,
            num_heads=self.num_heads,
            grid=native // self.patch_size,
            hidden_dim=4 * self.dim,
        )
