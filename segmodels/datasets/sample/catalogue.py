"""The classes of the sample and the exemplars which each split draws from."""

from functools import cache

import numpy as np

from segmodels.datasets.sample import cutouts, rendered
from segmodels.datasets.sample.sprite import Exemplar
from segmodels.datasets.sample.textures import Split
from segmodels.formats.coco_json import Category

THINGS = ("ball", "coin", "crate", "cup", "horse", "motorcycle", "mushroom", "rocket")
STUFF = ("brick", "grass", "gravel", "sand", "sky", "water")

_FAMILIES = {
    "ball": rendered.ball,
    "crate": rendered.crate,
    "cup": rendered.cup,
    "mushroom": rendered.mushroom,
    "rocket": rendered.rocket,
}
_FAMILY_SIZES: dict[Split, int] = {"train": 9, "val": 5}
_VAL_COINS = (2, 5, 9, 12, 16, 18, 19, 22)
_HUES: dict[Split, tuple[float, ...]] = {"train": (0.0, 0.6, 0.14), "val": (0.34, 0.85, 0.06)}
# Coat (dark, middle, light) and mane: bay, grey, palomino, black; val: chestnut, dun, dapple brown.
_HORSES: dict[Split, tuple[tuple[cutouts.Coat, tuple[float, float, float]], ...]] = {
    "train": (
        (((0.2, 0.09, 0.04), (0.5, 0.26, 0.12), (0.72, 0.45, 0.26)), (0.1, 0.07, 0.06)),
        (((0.3, 0.3, 0.32), (0.64, 0.64, 0.66), (0.9, 0.9, 0.9)), (0.32, 0.32, 0.35)),
        (((0.42, 0.25, 0.08), (0.82, 0.6, 0.3), (0.98, 0.85, 0.6)), (0.96, 0.92, 0.82)),
        (((0.03, 0.03, 0.03), (0.17, 0.14, 0.13), (0.38, 0.34, 0.32)), (0.08, 0.07, 0.07)),
        (((0.24, 0.12, 0.07), (0.58, 0.36, 0.22), (0.82, 0.62, 0.45)), (0.25, 0.13, 0.07)),
    ),
    "val": (
        (((0.28, 0.1, 0.03), (0.64, 0.3, 0.12), (0.86, 0.54, 0.3)), (0.55, 0.26, 0.1)),
        (((0.34, 0.25, 0.13), (0.7, 0.55, 0.36), (0.9, 0.78, 0.58)), (0.15, 0.12, 0.1)),
        (((0.14, 0.1, 0.09), (0.38, 0.3, 0.27), (0.68, 0.6, 0.56)), (0.85, 0.82, 0.78)),
    ),
}


def categories() -> tuple[Category, ...]:
    """Return all classes: things 1..8, stuff 9..14."""
    names = (*THINGS, *STUFF)
    return tuple(Category(k + 1, name, isthing=k < len(THINGS)) for k, name in enumerate(names))


@cache
def exemplars(split: Split) -> dict[str, tuple[Exemplar, ...]]:
    """Return the exemplars of each thing class in one split; no exemplar is in both splits."""
    found: dict[str, list[Exemplar]] = {name: [] for name in THINGS}
    for category, family in _FAMILIES.items():
        for number in range(_FAMILY_SIZES[split]):
            rng = np.random.default_rng([THINGS.index(category), split == "val", number])
            found[category].append(
                family(f"{category}-{split}-{number + 1:02d}", split, number, rng)
            )
    for number in range(1, 25):
        if (number in _VAL_COINS) == (split == "val"):
            found["coin"].append(
                cutouts.coin(f"coin-{number:02d}", f"coin_{number:02d}", number % 3)
            )
    view = "left" if split == "train" else "right"
    found["motorcycle"] = [
        cutouts.motorcycle(f"motorcycle-{view}-{number + 1}", f"motorcycle_{view}", hue)
        for number, hue in enumerate(_HUES[split])
    ]
    for number, (coat, mane) in enumerate(_HORSES[split]):
        rng = np.random.default_rng([THINGS.index("horse"), split == "val", number])
        found["horse"].append(
            cutouts.horse(f"horse-{split}-{number + 1:02d}", split, coat, mane, rng)
        )
    if split == "train":
        found["cup"].append(cutouts.photographed("cup-espresso", "cup", "cup_saucer"))
        found["rocket"].append(cutouts.photographed("rocket-shuttle", "rocket", "shuttle"))
    else:
        found["rocket"].append(cutouts.photographed("rocket-falcon", "rocket", "falcon"))
    return {name: tuple(members) for name, members in found.items()}
