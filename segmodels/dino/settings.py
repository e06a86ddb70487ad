"""Settings of DINO pre-training: the embedded backbone's by default."""

from dataclasses import dataclass, field

from segmodels.backbones.vit import ViTShape


@dataclass(frozen=True)
class CropSettings:
    """Multi-crop views of a photograph; sizes in pixels, scales as shares of its area."""

    global_size: int = 64
    local_size: int = 32
    num_local: int = 4
    global_scale: tuple[float, float] = (0.35, 1.0)
    local_scale: tuple[float, float] = (0.06, 0.35)


@dataclass(frozen=True)
class SaliencySettings:
    """The loss that makes the keys of what stands out unlike those of its surroundings.

    Attributes:
        weight: of this loss beside DINO's; 0 leaves it out.
        view_size: side of the nearly whole views that it looks at, px.
        view_scale: their share of the photograph's area.
        tau: cosine of two keys at which they count as undecided; MaskCut's threshold.
        temperature: how far from it, in cosine, they count as decided.
        reach: salient patches within so many rows and columns shall have like keys; others are
            free, as they may belong to different objects.
        far_background: how much such far patches count where both are background, 0 to 1.
        cells: maps of the photographs' objects have cells x cells squares.
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
    """The loss that reads the object's shape off CLS, of whole views and of the object alone.

    Attributes:
        weight: of this loss beside the others; 0 leaves it out. The whole views are those of the
            saliency loss.
        view_size: side of the views of the object alone, px.
        cells: shapes are told on cells x cells squares of a view.
    """

    weight: float = 1.0
    view_size: int = 64
    cells: int = 8


@dataclass(frozen=True)
class PretrainSettings:
    """One pre-training run; every random draw is a function of `seed` and the step alone.

    Attributes:
        patch_size, dim, depth, num_heads: the transformer.
        crops: multi-crop views.
        photo_size: side of the cached square photographs in pixels.
        batch_size: photographs a step.
        steps: length of all schedules.
        learning_rate: peak, reached after `warmup` (a share of the steps), then cosine to 1 %.
        weight_decay: start and end of its cosine.
        teacher_momentum: start of the cosine to 1.
        prototypes: output width of the CLS head and of the patch head.
        student_keep: share of a global crop's patches the student sees (MSN, Assran et al. 2022);
            1 is plain DINO.
        saliency: the loss on keys of salient and other patches.
        shape: the loss on CLS of photographs and of their objects alone.
        dino_weight: of the losses of self-distillation, on CLS and patches; 0 leaves them out.
        patch_weight: weight of the local alignment loss between keys of corresponding patches;
            0 is plain DINO.
        frozen_epochs: how long the prototypes stay as drawn; DINO's 1 needs far smaller learning
            rates than short runs can afford, or the targets become uniform.
        patch_basis: start the first layer from the principal components of patches.
        bfloat16: run the networks under autocast.
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
        """Whether a loss needs to know where the photographs' objects are."""
        return self.saliency.weight > 0 or self.shape.weight > 0

    @property
    def crop_grid(self) -> int:
        """Patches a side of the global crops."""
        return self.crops.global_size // self.patch_size

    @property
    def vit_shape(self) -> ViTShape:
        """Sizes of the transformer, native at the larger of global crops and whole views."""
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
