"""Scenes: objects set into a backdrop, back to front, with their exact visible masks."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from segmodels.datasets.sample.catalogue import exemplars
from segmodels.datasets.sample.layouts import Backdrop, Setting, backdrop
from segmodels.datasets.sample.sprite import Exemplar, Pose, Sprite
from segmodels.datasets.sample.textures import Split

_SIZES = ((240, 320), (256, 320), (240, 288), (272, 304), (320, 240), (304, 256), (288, 240))
# Share of the image that an object covers, by how many objects there are.
_SHARES = {1: (0.1, 0.28), 2: (0.07, 0.17), 3: (0.05, 0.12), 4: (0.04, 0.085)}
_TRIES = 60
_SHRINK = 0.85
_MIN_VISIBLE = 0.45
_MIN_INSIDE = 0.92
_GAP = 5  # px between objects that are meant to stand apart
_BESIDE = 0.3  # probability that an object is placed partly before or behind another
_MIN_SHARE = 0.02


@dataclass(frozen=True)
class Thing:
    """One object in a scene: its exemplar and class, and (H, W) bool where it is seen."""

    exemplar: str
    category: str
    mask: np.ndarray


@dataclass(frozen=True)
class Scene:
    """A finished scene.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        stuff: (H, W) int32 index into STUFF, also under the things.
        things: from back to front; their masks are disjoint and none is empty.
    """

    image: np.ndarray
    stuff: np.ndarray
    things: tuple[Thing, ...]


@dataclass(frozen=True)
class _Stage:
    """Common to all objects of a scene."""

    scenery: Backdrop
    split: Split
    light: tuple[float, float, float]


@dataclass(frozen=True)
class _Standing:
    """A sprite at its place: rows and columns of its upper left corner, which may lie outside."""

    exemplar: Exemplar
    sprite: Sprite
    top: int
    left: int

    @property
    def base(self) -> int:
        return self.top + len(self.sprite.alpha)


def compose(
    setting: Setting, categories: tuple[str, ...], split: Split, rng: np.random.Generator
) -> Scene:
    """Build one scene.

    Args:
        setting: layout and stuff.
        categories: thing class of each object; one that fits nowhere is left out.
        split: whose exemplars and textures.
        rng: of everything else.
    """
    shape = _SIZES[rng.integers(len(_SIZES))]
    scenery = backdrop(setting, shape, split, rng)
    stage = _Stage(scenery, split, _light(rng))
    low, high = _SHARES[len(categories)]
    area_range = (low * shape[0] * shape[1], high * shape[0] * shape[1])
    standing: list[_Standing] = []
    for category in categories:
        placed = _place(category, area_range, standing, stage, rng)
        if placed is not None:
            standing = sorted([*standing, placed], key=lambda one: one.base)
    owner = _owners(standing, shape)
    things = tuple(
        Thing(one.exemplar.name, one.exemplar.category, owner == k)
        for k, one in enumerate(standing)
    )
    canvas = scenery.rgb
    for one in standing:
        canvas = _lay_over(_shadowed(canvas, one, stage), one)
    return Scene(_photograph(canvas, rng), scenery.stuff, things)


def _light(rng: np.random.Generator) -> tuple[float, float, float]:
    direction = np.array(
        [rng.choice([-1, 1]) * rng.uniform(0.3, 0.8), -rng.uniform(0.4, 0.9), rng.uniform(0.5, 0.9)]
    )
    x, y, z = direction / np.linalg.norm(direction)
    return float(x), float(y), float(z)


def _place(
    category: str,
    area_range: tuple[float, float],
    standing: list[_Standing],
    stage: _Stage,
    rng: np.random.Generator,
) -> _Standing | None:
    scenery = stage.scenery
    shape = scenery.stuff.shape
    shown = {one.exemplar.name for one in standing}
    members = [one for one in exemplars(stage.split)[category] if one.name not in shown]
    exemplar = members[rng.integers(len(members))]
    low, high = np.log(area_range)
    pose = Pose(
        area=float(np.exp(rng.uniform(low, high))),
        mirrored=bool(rng.integers(2)),
        lean=float(
            rng.uniform(-180, 180)
            if scenery.from_above and category == "coin"
            else rng.normal(0, 5)
        ),
        turn=float(rng.uniform(-55, 55)),
        pitch=float(rng.uniform(12, 26) + (18 if scenery.from_above else 0)),
        light=stage.light,
    )
    beside = bool(standing) and rng.uniform() < _BESIDE
    floor = np.argwhere(scenery.floor)
    for attempt in range(_TRIES):
        if attempt % 12 == 0:
            sprite = exemplar.draw(pose)
            pose = replace(pose, area=pose.area * _SHRINK)
        height, width = sprite.alpha.shape
        row, column = floor[rng.integers(len(floor))]
        if beside and attempt < _TRIES // 2:  # partly behind or before another one
            other = standing[rng.integers(len(standing))]
            span = other.sprite.alpha.shape[1]
            column = (
                other.left
                + span / 2
                + rng.choice([-1, 1]) * rng.uniform(0.35, 0.6) * (span + width) / 2
            )
            row = other.base + rng.uniform(-0.15, 0.15) * height
            inside = 0 <= row < shape[0] and 0 <= column < shape[1]
            if not inside or not scenery.floor[int(row), int(column)]:
                continue
        placed = _Standing(exemplar, sprite, int(row) - height + 1, int(column - width / 2))
        apart = not beside and attempt < _TRIES // 2
        if _fits(placed, standing, (shape[0], shape[1]), apart=apart):
            return placed
    return None


def _fits(
    placed: _Standing, standing: list[_Standing], shape: tuple[int, int], *, apart: bool
) -> bool:
    """Whether all objects stay visible enough with the new one; `apart`: and it touches none."""
    if apart and standing:
        around = ndimage.binary_dilation(_owners([placed], shape) == 0, iterations=_GAP)
        if (around & (_owners(standing, shape) >= 0)).any():
            return False
    together = sorted([*standing, placed], key=lambda one: one.base)
    owner = _owners(together, shape)
    for k, one in enumerate(together):
        seen = int((owner == k).sum())
        whole = int((one.sprite.alpha >= 0.5).sum())
        inside = int((_owners([one], shape) == 0).sum())
        if inside < _MIN_INSIDE * whole or seen < max(
            _MIN_VISIBLE * whole, _MIN_SHARE * owner.size
        ):
            return False
    return True


def _owners(standing: list[_Standing], shape: tuple[int, int]) -> np.ndarray:
    """Return (H, W) int32: the frontmost object that covers half of a pixel, or -1."""
    owner = np.full(shape, -1, np.int32)
    for k, one in enumerate(standing):
        target, part = _overlap(one, shape)
        owner[target][one.sprite.alpha[part] >= 0.5] = k
    return owner


def _overlap(
    one: _Standing, shape: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the slices of the canvas and of the sprite where they meet."""
    height, width = one.sprite.alpha.shape
    top, bottom = max(one.top, 0), min(one.top + height, shape[0])
    left, right = max(one.left, 0), min(one.left + width, shape[1])
    bottom, right = max(bottom, top), max(right, left)
    return (slice(top, bottom), slice(left, right)), (
        slice(top - one.top, bottom - one.top),
        slice(left - one.left, right - one.left),
    )


def _lay_over(canvas: np.ndarray, one: _Standing) -> np.ndarray:
    target, part = _overlap(one, (canvas.shape[0], canvas.shape[1]))
    out = canvas.copy()
    alpha = one.sprite.alpha[part][..., None]
    out[target] = (1 - alpha) * out[target] + alpha * one.sprite.rgb[part]
    return out


def _shadowed(canvas: np.ndarray, one: _Standing, stage: _Stage) -> np.ndarray:
    """Darken the ground in the shadow of the object."""
    shape = (canvas.shape[0], canvas.shape[1])
    mask = np.zeros(shape, np.float32)
    target, part = _overlap(one, shape)
    mask[target] = one.sprite.alpha[part]
    if stage.scenery.from_above:
        shift = 0.05 * np.sqrt(one.sprite.alpha.sum())
        dark = ndimage.shift(mask, (0.5 * shift, -np.sign(stage.light[0]) * shift), order=1)
        dark = 0.55 * ndimage.gaussian_filter(dark, 3)
    else:
        y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float64)
        above_base = (one.base - 1.5 - y) / 0.22  # flattened on the ground
        position = np.stack(
            [one.base - 1.5 - above_base, x + 0.22 * above_base * stage.light[0] * 2]
        )
        cast = ndimage.map_coordinates(mask, position, order=1, mode="constant")
        centre = one.left + one.sprite.alpha.shape[1] / 2
        reach = np.array([0.03 * one.sprite.alpha.shape[0] + 2.5, 0.42 * one.sprite.alpha.shape[1]])
        contact = np.exp(-(((y - one.base + 2) / reach[0]) ** 2) - ((x - centre) / reach[1]) ** 4)
        dark = np.maximum(0.4 * ndimage.gaussian_filter(cast, 2), 0.5 * contact)
    return canvas * (1 - dark[..., None]).astype(np.float32)


def _photograph(canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Expose, tint, vignette and add the noise of a sensor; returns (H, W, 3) uint8."""
    height, width = canvas.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    warmth = rng.uniform(-0.05, 0.05)
    gain = rng.uniform(0.86, 1.12) * np.array([1 + warmth, 1.0, 1 - warmth])
    vignette = 1 - rng.uniform(0, 0.14) * (x**2 + y**2)[..., None]
    soft = ndimage.gaussian_filter(canvas, (0.4, 0.4, 0))
    noise = rng.standard_normal(canvas.shape) * rng.uniform(0.004, 0.012)
    levels = np.clip(soft * gain * vignette + noise, 0, 1) * 255
    return np.asarray(levels + 0.5, dtype=np.uint8)
