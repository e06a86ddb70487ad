"""Background connectivity: hand-made scenes, and path lengths against SciPy's."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from kernels.saliency import _path_lengths, background_saliency


def scene(rows=10, columns=12):
    """A light box on dark ground, and a light stripe that leaves the image."""
    cells = np.zeros((rows, columns, 3))
    box, stripe = np.zeros((2, rows, columns), bool)
    box[3:6, 3:6] = True
    stripe[:, columns - 2 :] = True
    cells[box | stripe, 0] = 60.0
    return cells, box, stripe


def test_what_touches_the_border_at_length_is_background():
    cells, box, stripe = scene()

    saliency = background_saliency(cells)

    assert saliency[box].min() > 2 * saliency[~box].max()
    assert saliency[stripe].max() < 0.3


def test_an_object_cut_by_the_border_still_stands_out():
    cells = np.zeros((10, 10, 3))
    cells[6:, 4:7, 1] = 50.0

    saliency = background_saliency(cells)

    inside = cells[..., 1] > 0
    assert saliency[inside].min() > saliency[~inside].max()


def test_a_constant_image_is_constant():
    assert np.ptp(background_saliency(np.full((5, 6, 3), 40.0))) < 1e-6


def test_mirrored_images_have_mirrored_saliency():
    cells = np.random.default_rng(0).uniform(0, 60, (7, 9, 3))

    plain = background_saliency(cells)

    for flip in (np.s_[::-1], np.s_[:, ::-1]):
        np.testing.assert_allclose(background_saliency(cells[flip]), plain[flip], atol=1e-5)
    np.testing.assert_allclose(background_saliency(cells.swapaxes(0, 1)), plain.T, atol=1e-5)
    assert plain.dtype == np.float32
    assert plain.min() >= 0
    assert plain.max() <= 1


@pytest.mark.parametrize("shape", [(2, 2), (3, 8), (8, 3), (9, 9)])
def test_paths_are_as_short_as_dijkstras(shape):
    rows, columns = shape
    cells = np.random.default_rng(rows).uniform(0, 40, (rows, columns, 3))
    graph = np.zeros((rows * columns, rows * columns))
    for one in range(rows * columns):
        for other in range(rows * columns):
            away = np.abs(np.subtract(divmod(one, columns), divmod(other, columns)))
            if away.max() == 1:
                step = np.linalg.norm(cells[divmod(one, columns)] - cells[divmod(other, columns)])
                graph[one, other] = max(step - 3.0, 1e-6)

    np.testing.assert_allclose(_path_lengths(cells), dijkstra(csr_matrix(graph)), rtol=1e-9)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 2), (1, 5, 3)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"cells must be \(gh, gw, 3\), at least 2 x 2"):
        background_saliency(np.zeros(shape))
