"""Triangle meshes of simple solids: surfaces of revolution, boxes, tubes and flat plates.

Object space: x right, y up, z towards the eye.
"""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Mesh:
    """Triangles with smooth normals.

    Attributes:
        vertices: (n, 3) float64 positions.
        normals: (n, 3) float64 unit vectors.
        uv: (n, 2) float64 surface coordinates, in the units that the material of the face reads.
        faces: (m, 3) int32 vertex indices.
        materials: (m,) int32 index of each face's material.
    """

    vertices: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    faces: np.ndarray
    materials: np.ndarray

    def moved(self, rotation: np.ndarray, shift: tuple[float, float, float] = (0, 0, 0)) -> "Mesh":
        """Return the mesh rotated by rotation (3, 3), then shifted."""
        vertices = self.vertices @ rotation.T + np.asarray(shift)
        return replace(self, vertices=vertices, normals=self.normals @ rotation.T)


def join(*meshes: Mesh) -> Mesh:
    """Return one mesh that holds all of them."""
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes[:-1])])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.uv for mesh in meshes]),
        np.concatenate(
            [mesh.faces + start for mesh, start in zip(meshes, starts, strict=True)]
        ).astype(np.int32),
        np.concatenate([mesh.materials for mesh in meshes]),
    )


def revolve(profile: np.ndarray, material: int, *, segments: int = 56) -> Mesh:
    """Turn a profile about the upright axis.

    Args:
        profile: (k, 2) radius and height from bottom to top; outward is to its right. From top to
            bottom it makes an inner wall.
        material: index for every face.
        segments: steps around.

    Returns:
        A mesh whose uv are turns around [0, 1] and length along the profile [0, 1].
    """
    profile = np.asarray(profile, dtype=np.float64)
    step = np.gradient(profile, axis=0)
    outward = np.stack([step[:, 1], -step[:, 0]], axis=1)
    outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(profile, axis=0), axis=1))])
    turn = np.linspace(0, 2 * np.pi, segments + 1)
    cosine, sine = np.cos(turn)[None], np.sin(turn)[None]

    def spin(pairs: np.ndarray) -> np.ndarray:
        radius, height = pairs[:, :1], pairs[:, 1:]
        return np.stack([radius * cosine, height + 0 * cosine, radius * sine], axis=-1)

    uv = np.stack(
        np.broadcast_arrays(turn[None] / (2 * np.pi), (length / max(length[-1], 1e-9))[:, None]),
        axis=-1,
    )
    return _sheet(spin(profile), spin(outward), uv, material)


def tube(path: np.ndarray, radius: float, material: int, *, segments: int = 16) -> Mesh:
    """Return a round tube along a path (k, 3) which lies in a plane of constant z."""
    path = np.asarray(path, dtype=np.float64)
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    side = np.cross(along, [0.0, 0.0, 1.0])
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    normals = (
        side[:, None] * np.cos(angle)[None, :, None]
        + np.array([0.0, 0.0, 1.0]) * np.sin(angle)[None, :, None]
    )
    grid = np.stack(
        np.broadcast_arrays(
            np.linspace(0, 1, segments + 1)[None], np.linspace(0, 1, len(path))[:, None]
        ),
        axis=-1,
    )
    return _sheet(path[:, None] + radius * normals, normals, grid, material)


def plate(
    corners: np.ndarray,
    normal: tuple[float, float, float],
    material: int,
    size: tuple[float, float],
) -> Mesh:
    """Return a flat parallelogram.

    Args:
        corners: (3, 3) origin, end of the u side, end of the v side.
        normal: unit vector, the lit side.
        material: index for both faces.
        size: uv at the far corner.
    """
    origin, along_u, along_v = np.asarray(corners, dtype=np.float64)
    vertices = np.stack([[origin, along_u], [along_v, along_u + along_v - origin]])
    uv = np.array([[[0, 0], [size[0], 0]], [[0, size[1]], [size[0], size[1]]]], dtype=np.float64)
    return _sheet(
        vertices, np.broadcast_to(np.asarray(normal, dtype=np.float64), (2, 2, 3)), uv, material
    )


def box(width: float, height: float, depth: float, materials: tuple[int, int]) -> Mesh:
    """Return a box around the origin; materials: of its four sides, of its top and bottom.

    The uv of every face run from 0 to the lengths of its sides.
    """
    half = np.array([width, height, depth]) / 2
    faces = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            normal = np.zeros(3)
            normal[axis] = sign
            u_axis, v_axis = ((2, 1), (0, 2), (0, 1))[axis]
            origin = -half.copy()
            origin[axis] = sign * half[axis]
            ends = [origin.copy(), origin.copy()]
            ends[0][u_axis] += 2 * half[u_axis]
            ends[1][v_axis] += 2 * half[v_axis]
            faces.append(
                plate(
                    np.stack([origin, *ends]),
                    (normal[0], normal[1], normal[2]),
                    materials[1] if axis == 1 else materials[0],
                    (2 * half[u_axis], 2 * half[v_axis]),
                )
            )
    return join(*faces)


def rotation(*, turn: float = 0.0, pitch: float = 0.0, lean: float = 0.0) -> np.ndarray:
    """Return the (3, 3) rotation of three angles in degrees.

    First the turn about the upright axis, then the pitch of the top towards the eye, then the lean
    in the image plane.
    """
    t, p, a = np.deg2rad([turn, pitch, lean])
    about_y = np.array([[np.cos(t), 0, np.sin(t)], [0, 1, 0], [-np.sin(t), 0, np.cos(t)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_x @ about_y)


def _sheet(vertices: np.ndarray, normals: np.ndarray, uv: np.ndarray, material: int) -> Mesh:
    rows, columns = vertices.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    faces = np.concatenate(
        [np.stack([a, b, c], -1).reshape(-1, 3), np.stack([b, d, c], -1).reshape(-1, 3)]
    )
    return Mesh(
        vertices.reshape(-1, 3),
        np.ascontiguousarray(normals).reshape(-1, 3),
        np.ascontiguousarray(uv, dtype=np.float64).reshape(-1, 2),
        faces.astype(np.int32),
        np.full(len(faces), material, np.int32),
    )
