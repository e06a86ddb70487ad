"""A small renderer: a depth buffer over triangles, then texture and light for visible pixels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from segmodels.datasets.sample.mesh import Mesh, rotation
from segmodels.datasets.sample.sprite import Pose, Sprite, crop

_SUPERSAMPLING = 3
_COARSE = 90.0
_PERSPECTIVE = 0.12
_AMBIENT = 0.42
_DIFFUSE = 0.72


@dataclass(frozen=True)
class Material:
    """A surface.

    Attributes:
        colour: Maps uv (n, 2) to rgb (n, 3) in [0, 1].
        gloss: Strength of highlights, in [0, 1].
    """

    colour: Callable[[np.ndarray], np.ndarray]
    gloss: float = 0.0


def render(mesh: Mesh, materials: Sequence[Material], pose: Pose) -> Sprite:
    """Draw a mesh at its pose so that it covers about `pose.area` pixels."""
    sign = -1.0 if pose.mirrored else 1.0
    turned = mesh.moved(rotation(turn=pose.turn, pitch=pose.pitch, lean=sign * pose.lean))
    screen = turned.vertices.copy()
    screen -= (screen.min(axis=0) + screen.max(axis=0)) / 2
    screen /= np.abs(screen).max()
    screen[:, :2] /= 1 - _PERSPECTIVE * screen[:, 2:]
    screen[:, 0] *= sign
    screen[:, 1] *= -1
    seen = replace(turned, normals=turned.normals * [sign, -1, 1])
    coarse, _ = _project(screen, mesh.faces, _COARSE)
    scale = _COARSE * np.sqrt(pose.area / max(int((coarse >= 0).sum()), 1))
    face, weights = _project(screen, mesh.faces, scale * _SUPERSAMPLING)
    rgb, alpha = _shade(seen, materials, face, weights, np.asarray(pose.light))
    return _reduce(rgb, alpha)


def _project(screen: np.ndarray, faces: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    points = screen * scale
    points[:, :2] += 1 - points[:, :2].min(axis=0)
    width, height = (np.ceil(points[:, :2].max(axis=0)) + 2).astype(int)
    return _rasterise(points, faces, int(height), int(width))


@njit(cache=True)
def _rasterise(
    points: np.ndarray, faces: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:  # pragma: no cover - compiled
    face_of = np.full((height, width), -1, np.int32)
    weights = np.zeros((height, width, 3))
    depth = np.full((height, width), -1e30)
    for f in range(len(faces)):
        a, b, c = points[faces[f, 0]], points[faces[f, 1]], points[faces[f, 2]]
        area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
        if abs(area) < 1e-9:
            continue
        top = max(int(np.floor(min(a[1], b[1], c[1]))), 0)
        bottom = min(int(np.ceil(max(a[1], b[1], c[1]))), height - 1)
        left = max(int(np.floor(min(a[0], b[0], c[0]))), 0)
        right = min(int(np.ceil(max(a[0], b[0], c[0]))), width - 1)
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                wa = ((b[0] - x) * (c[1] - y) - (c[0] - x) * (b[1] - y)) / area
                wb = ((c[0] - x) * (a[1] - y) - (a[0] - x) * (c[1] - y)) / area
                wc = 1.0 - wa - wb
                if wa >= 0 and wb >= 0 and wc >= 0:
                    z = wa * a[2] + wb * b[2] + wc * c[2]
                    if z > depth[y, x]:
                        depth[y, x] = z
                        face_of[y, x] = f
                        weights[y, x, 0] = wa
                        weights[y, x, 1] = wb
                        weights[y, x, 2] = wc
    return face_of, weights


def _shade(
    mesh: Mesh,
    materials: Sequence[Material],
    face: np.ndarray,
    weights: np.ndarray,
    light: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    seen = face >= 0
    corners = mesh.faces[face[seen]]
    weight = weights[seen][..., None]
    normal = (mesh.normals[corners] * weight).sum(axis=1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    normal *= np.where(normal[:, 2:] < 0, -1.0, 1.0)  # plates are lit on the side that is seen
    uv = (mesh.uv[corners] * weight).sum(axis=1)
    material = mesh.materials[face[seen]]
    half = light + np.array([0.0, 0.0, 1.0])
    half /= np.linalg.norm(half)
    lit = _AMBIENT + _DIFFUSE * np.clip(normal @ light, 0, 1)
    shine = np.clip(normal @ half, 0, 1) ** 28
    colour = np.zeros((len(uv), 3))
    for index, surface in enumerate(materials):
        of = material == index
        if of.any():
            colour[of] = (
                surface.colour(uv[of]) * lit[of, None] + (surface.gloss * shine[of])[:, None]
            )
    rgb = np.zeros((*face.shape, 3))
    rgb[seen] = np.clip(colour, 0, 1)
    return rgb, seen.astype(np.float64)


def _reduce(rgb: np.ndarray, alpha: np.ndarray) -> Sprite:
    factor = _SUPERSAMPLING
    height, width = (-(-n // factor) * factor for n in alpha.shape)
    padding = ((0, height - alpha.shape[0]), (0, width - alpha.shape[1]))
    planes = np.dstack([np.pad(rgb * alpha[..., None], (*padding, (0, 0))), np.pad(alpha, padding)])
    small = planes.reshape(height // factor, factor, width // factor, factor, 4).mean(axis=(1, 3))
    return crop(small[..., :3], small[..., 3])
