"""Sprites: colours and coverage of a drawn object, to be composited over a background."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class Sprite:
    """A drawn object: rgb (h, w, 3) float32 in [0, 1]; alpha (h, w) float32 coverage in [0, 1]."""

    rgb: np.ndarray
    alpha: np.ndarray


@dataclass(frozen=True)
class Pose:
    """How a scene shows an exemplar.

    Attributes:
        area: covered pixels to aim at.
        mirrored: left and right exchanged.
        lean: rotation in the image plane, degrees, counter-clockwise.
        turn: rotation about the upright axis, degrees; narrows a cut-out.
        pitch: height of the eye above the object, degrees (rendered objects).
        light: unit vector to the light, x right, y down, z towards the eye.
    """

    area: float
    mirrored: bool
    lean: float
    turn: float
    pitch: float
    light: tuple[float, float, float]


@dataclass(frozen=True)
class Exemplar:
    """One object, shown by any number of scenes; annotations record its name."""

    name: str
    category: str
    draw: Callable[[Pose], Sprite]


def place_cut_out(
    rgb: np.ndarray, alpha: np.ndarray, pose: Pose, *, squeeze: float = 1.0
) -> Sprite:
    """Scale, turn and mirror a flat cut-out to its pose.

    Args:
        rgb: (h, w, 3) float32 in [0, 1].
        alpha: (h, w) float32 coverage.
        pose: area, lean and mirroring are used.
        squeeze: factor on the width before leaning.
    """
    scale = float(np.sqrt(pose.area / max(float(alpha.sum()) * squeeze, 1.0)))
    across = scale * squeeze * (-1.0 if pose.mirrored else 1.0)
    angle = np.deg2rad(pose.lean)
    cosine, sine = np.cos(angle), np.sin(angle)
    forward = np.array([[cosine, sine], [-sine, cosine]]) @ np.diag([across, scale])  # on (x, y)
    height, width = alpha.shape
    corners = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]]) * [width / 2, height / 2]
    reach = np.abs(corners @ forward.T).max(axis=0)
    out_w, out_h = (int(np.ceil(2 * r)) + 2 for r in reach)
    grid_y, grid_x = np.mgrid[0:out_h, 0:out_w].astype(np.float64)
    offsets = np.stack([grid_x - (out_w - 1) / 2, grid_y - (out_h - 1) / 2])
    back = np.linalg.inv(forward)
    x, y = np.tensordot(back, offsets, axes=1)
    position = np.stack([y + (height - 1) / 2, x + (width - 1) / 2])
    blur = max(0.0, 0.42 / scale - 0.25)
    premultiplied = np.dstack([rgb * alpha[..., None], alpha])
    if blur > 0:
        premultiplied = ndimage.gaussian_filter(premultiplied, (blur, blur, 0))
    planes = [
        ndimage.map_coordinates(premultiplied[..., k], position, order=1, mode="constant")
        for k in range(4)
    ]
    return crop(np.stack(planes[:3], axis=-1), planes[3])


def crop(premultiplied: np.ndarray, alpha: np.ndarray) -> Sprite:
    """Return the sprite of premultiplied rgb (h, w, 3) and coverage (h, w), cropped."""
    covered = alpha >= 1 / 255
    rows = np.flatnonzero(covered.any(axis=1))
    columns = np.flatnonzero(covered.any(axis=0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    alpha = alpha[box]
    rgb = premultiplied[box] / np.maximum(alpha, 1e-3)[..., None]
    return Sprite(np.clip(rgb, 0, 1).astype(np.float32), alpha.astype(np.float32))
