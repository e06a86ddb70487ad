"""Families of rendered objects: each exemplar has its own shape, colours and texture."""

import numpy as np

from segmodels.datasets.sample import mesh as solids
from segmodels.datasets.sample.materials import (
    banded,
    hsv,
    panels,
    photographic,
    planks,
    spotted,
    tinted,
)
from segmodels.datasets.sample.mesh import Mesh
from segmodels.datasets.sample.render import Material, render
from segmodels.datasets.sample.sprite import Exemplar, Pose, Sprite
from segmodels.datasets.sample.textures import Split

_CREAM = (0.96, 0.94, 0.88)
_GOLDEN = 0.618  # hues this far apart stay distinct for any number of them


def _exemplar(name: str, category: str, mesh: Mesh, materials: list[Material]) -> Exemplar:
    def draw(pose: Pose) -> Sprite:
        return render(mesh, materials, pose)

    return Exemplar(name, category, draw)


def ball(name: str, split: Split, number: int, rng: np.random.Generator) -> Exemplar:
    """Return a ball: every third in a photograph's own pattern, the others of panels."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, 36)
    sphere = solids.revolve(np.stack([np.cos(angle), np.sin(angle)], axis=1), 0)
    turned = sphere.moved(solids.rotation(turn=rng.uniform(0, 360), pitch=rng.uniform(20, 70)))
    cover = str(rng.choice(["tissue", "retina", "moon"]))
    if number % 3 == 2:
        surface = photographic(
            cover, split, texels=420, gain=hsv(rng.uniform(), 0.2, 1.15), gloss=0.35
        )
    else:
        hue = 0.02 + _GOLDEN * number
        pair = (
            hsv(hue, 0.85, 0.95),
            hsv(hue + rng.uniform(0.3, 0.5), rng.choice([0.05, 0.8]), 0.97),
        )
        surface = panels(cover, split, pair, count=int(rng.integers(2, 5)), gloss=0.4)
    return _exemplar(name, "ball", turned, [surface])


def crate(name: str, split: Split, number: int, rng: np.random.Generator) -> Exemplar:
    """Return a wooden crate of its own proportions, number of boards and stain."""
    width, height, depth = 1.0, rng.uniform(0.6, 1.05), rng.uniform(0.65, 1.0)
    tone = hsv(rng.uniform(0.06, 0.115), rng.uniform(0.5, 0.75), rng.uniform(0.72, 0.98))
    boards = 3 + number % 3
    frame = rng.uniform(0.07, 0.11)
    solid = solids.box(width, height, depth, (0, 1))
    sides = planks(split, tone, size=(width, height), boards=boards, frame=frame)
    lid = planks(split, tone, size=(width, depth), boards=boards, frame=frame)
    return _exemplar(name, "crate", solid, [sides, lid])


def mushroom(name: str, split: Split, number: int, rng: np.random.Generator) -> Exemplar:
    """Return a mushroom: the curve of the cap, stem and spots are its own."""
    cap_radius, cap_height = rng.uniform(0.62, 0.95), rng.uniform(0.38, 0.75)
    stem, height = rng.uniform(0.16, 0.27), rng.uniform(0.75, 1.15)
    rise = np.linspace(0, 1, 14)
    foot = 1 + rng.uniform(0.2, 0.6) * (1 - rise) ** 3
    stalk = solids.revolve(np.stack([stem * foot, height * rise], axis=1), 0)
    angle = np.linspace(0, np.pi / 2, 20)
    fullness = rng.uniform(0.75, 1.15)
    dome = np.stack(
        [cap_radius * np.cos(angle) ** fullness, height - 0.06 + cap_height * np.sin(angle)], axis=1
    )
    under = np.stack(
        [np.linspace(stem * 0.9, cap_radius, 6), np.linspace(height, height - 0.06, 6)], axis=1
    )
    cap = tinted(
        "retina",
        split,
        hsv(rng.uniform(-0.03, 0.07), 0.88, rng.uniform(0.72, 0.95)),
        texels=300,
        gloss=0.25,
    )
    count = int(rng.integers(14, 26))
    centres = np.stack([rng.uniform(0, 1, count), rng.uniform(0.08, 0.95, count)], axis=1)
    spots = spotted(
        cap, centres, rng.uniform(0.04, 0.09, count), _CREAM, lambda v: 5 * np.cos(v * np.pi / 2)
    )
    stem_surface = tinted("tissue", split, _CREAM, texels=180, depth=0.25)
    gills = tinted("tissue", split, (0.8, 0.72, 0.6), texels=200, depth=0.4)
    whole = solids.join(stalk, solids.revolve(dome, 1), solids.revolve(under, 2))
    return _exemplar(name, "mushroom", whole, [stem_surface, spots if number % 4 else cap, gills])


def cup(name: str, split: Split, number: int, rng: np.random.Generator) -> Exemplar:
    """Return a mug with a handle: taper, bulge, glaze and bands are its own; it holds coffee."""
    foot, rim, height = rng.uniform(0.5, 0.8), rng.uniform(0.7, 0.95), rng.uniform(1.2, 1.75)
    bulge = rng.uniform(-0.05, 0.14)
    rise = np.linspace(0, 1, 22)
    radius = foot + (rim - foot) * rise + bulge * np.sin(np.pi * rise)
    bottom = np.array([[0.0, 0.0], [foot * 0.98, 0.0]])
    outside = solids.revolve(
        np.concatenate([bottom, np.stack([radius, height * rise + 0.02], axis=1)]), 0
    )
    wall = 0.11
    down = np.linspace(1, 0.75, 8)
    inner_radius = foot + (rim - foot) * down + bulge * np.sin(np.pi * down) - wall
    lip = np.array([[rim, height + 0.02], [rim - wall / 2, height + 0.05]])
    inside = solids.revolve(
        np.concatenate([lip, np.stack([inner_radius, height * down + 0.02], axis=1)]), 1
    )
    level = height * down[-1] + 0.04
    coffee = solids.revolve(np.array([[inner_radius[-1] + 0.02, level], [0.0, level]]), 2)
    reach, spread = rng.uniform(0.38, 0.55), rng.uniform(0.3, 0.42) * height
    arc = np.linspace(-np.pi / 2, np.pi / 2, 18)
    ends = height * 0.52 + spread * np.sin(arc)
    surface = np.interp(ends, height * rise + 0.02, radius)
    ring = np.stack([surface - 0.01 + reach * np.cos(arc), ends, 0 * arc], axis=1)
    glaze = hsv(
        0.55 + _GOLDEN * number + rng.uniform(-0.05, 0.05),
        rng.uniform(0.55, 0.9),
        rng.uniform(0.55, 0.95),
    )
    cover = tinted("moon", split, glaze, texels=420, depth=0.3, gloss=0.5)
    start = rng.uniform(0.45, 0.7)
    stripes = banded(cover, ((start, start + rng.uniform(0.06, 0.16), _CREAM),))
    white = tinted("moon", split, _CREAM, texels=200, depth=0.12, gloss=0.2)
    brew = tinted("moon", split, (0.45, 0.25, 0.1), texels=200, depth=0.3, gloss=0.2)
    whole = solids.join(outside, inside, coffee, solids.tube(ring, rng.uniform(0.075, 0.11), 3))
    return _exemplar(name, "cup", whole, [stripes if number % 2 else cover, white, brew, cover])


def rocket(name: str, split: Split, number: int, rng: np.random.Generator) -> Exemplar:
    """Return a rocket: length, nose, fins and livery are its own."""
    length, radius = rng.uniform(2.2, 3.4), rng.uniform(0.34, 0.48)
    nose = rng.uniform(0.7, 1.2)
    body = np.linspace(0, 1, 12)
    tip = np.linspace(0, 1, 16)[1:]
    waist = radius * (0.86 + 0.14 * np.sin(np.pi * np.clip(body + 0.1, 0, 1)))
    sides = np.concatenate(
        [
            np.stack([waist, length * body], axis=1),
            np.stack([waist[-1] * (1 - tip ** rng.uniform(1.5, 2.2)), length + nose * tip], axis=1),
        ]
    )
    paint = hsv(
        0.98 + _GOLDEN * number + rng.uniform(-0.05, 0.05),
        rng.uniform(0.7, 0.95),
        rng.uniform(0.6, 0.9),
    )
    shell = tinted("moon", split, (0.94, 0.94, 0.95), texels=260, depth=0.22, gloss=0.35)
    low = rng.uniform(0.1, 0.3)
    livery = [(0.74, 1.01, paint), (low, low + rng.uniform(0.05, 0.1), paint)]
    if number % 2:
        livery.append((0.55, 0.58, (0.15, 0.15, 0.18)))
    span, root = rng.uniform(0.35, 0.6), rng.uniform(0.6, 0.95)
    sweep = rng.uniform(0.35, 0.6)
    fin = solids.plate(
        np.array(
            [
                [radius * 0.7, 0.05, 0.0],
                [radius + span, 0.05 - sweep, 0.0],
                [radius * 0.7, 0.05 + root, 0.0],
            ]
        ),
        (0.0, 0.0, 1.0),
        1,
        (1.0, 1.0),
    )
    count = 3 + number % 2
    fins = [fin.moved(solids.rotation(turn=360.0 * k / count + 20)) for k in range(count)]
    nozzle = solids.revolve(np.array([[radius * 0.75, -0.22], [radius * 0.45, 0.02]]), 2)
    window = spotted(
        banded(shell, tuple(livery)),
        np.array([[0.25, 0.62], [0.75, 0.62]]),
        np.full(2, 0.035),
        (0.2, 0.3, 0.45),
        lambda v: np.full_like(v, 0.7),
    )
    fin_surface = tinted("moon", split, paint, texels=160, depth=0.3, gloss=0.2)
    engine = tinted("gravel", split, (0.35, 0.35, 0.38), texels=160, depth=0.5)
    return _exemplar(
        name,
        "rocket",
        solids.join(solids.revolve(sides, 0), *fins, nozzle),
        [window, fin_surface, engine],
    )
