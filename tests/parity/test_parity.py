"""MaskCut and its CRF on photographs, against their definitions solved densely in float64.

`make_case.py` made the case: keys of the embedded backbone, not of an official DINO.
"""

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage

from kernels.crf import MASKCUT_CRF, refine_masks
from kernels.ncut import maskcut
from kernels.ncut.keys import center_keys

TAU, EPS, REPETITIONS = 0.25, 1e-5, 6
SEED = 4  # one whose masks each rule decides
RULES = frozenset({"corners", "overlap", "area"})


@pytest.fixture(scope="module")
def case():
    with np.load(Path(__file__).with_name("case.npz")) as stored:
        return {name: stored[name] for name in stored.files}


def second_eigenvector(keys):
    """Solve (D - W) x = lambda D x (MaskCut, eq. 1), W of equation 2; the largest entry positive."""
    lengths = np.maximum(np.linalg.norm(keys, axis=1, keepdims=True), 1e-12)
    unit = keys / lengths
    affinity = np.where(unit @ unit.T > TAU, 1.0, EPS)
    degrees = np.diag(affinity.sum(axis=1))
    values, vectors = scipy.linalg.eigh(degrees - affinity, degrees, subset_by_index=[1, 1])
    vector = vectors[:, 0]
    return values[0], vector * np.sign(vector[np.abs(vector).argmax()])


def foreground(vector, grid, rules=RULES):
    """Bipartition at the mean; three corners or no peak exchange the sides (MaskCut, sec. 3.1)."""
    above = (vector > vector.mean()).reshape(grid)
    corners = above[[0, 0, -1, -1], [0, -1, 0, -1]].sum()
    if ("corners" in rules and corners >= 3) or not above.flat[np.abs(vector).argmax()]:
        above, vector = ~above, -vector
    components, _ = scipy.ndimage.label(above)
    return components == components.flat[vector.argmax()]


def dense_maskcut(keys, rules=RULES):
    """The published repetitions, each from the dense problem: masks, eigenvalues, eigenvectors.

    `rules` are those of the mask choice that are kept; without all of them it is not MaskCut.
    """
    grid, keys = keys.shape[:2], keys.reshape(-1, keys.shape[2]).astype(np.float64)
    painted, previous = np.zeros(grid, bool), np.zeros(grid, bool)
    masks, values, vectors = [], [], []
    for repetition in range(REPETITIONS):
        value, vector = second_eigenvector(keys * ~painted.reshape(-1, 1))
        found = foreground(vector, grid, rules)
        common, union = (found & previous).sum(), (found | previous).sum()
        is_small = "area" in rules and found.mean() <= 0.01
        is_repeated = "overlap" in rules and common > 0.5 * union
        if repetition and (is_small or is_repeated):
            found = np.zeros(grid, bool)
        masks.append(found & ~painted)
        values.append(value)
        vectors.append(vector.reshape(grid))
        painted, previous = painted | found, found
    return np.array(masks), np.array(values), np.array(vectors)


def test_masks_are_those_of_the_dense_problem(case):
    areas = []
    for stored in case["keys"]:
        keys = center_keys(stored)
        expected, values, vectors = dense_maskcut(keys)
        grid = keys.shape[:2]
        cut = maskcut(
            keys.reshape(-1, keys.shape[2]),
            grid,
            tau=TAU,
            eps=EPS,
            max_masks=REPETITIONS,
            backend="cpu",
        )
        np.testing.assert_array_equal(cut.masks, expected)
        np.testing.assert_allclose(cut.eigenvalues, values, rtol=1e-6, atol=1e-12)
        for ours, theirs in zip(cut.eigenvectors, vectors, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6 * np.abs(theirs).max())
        assert cut.dense_fallbacks == 0
        areas += expected.sum(axis=(1, 2)).tolist()
    # Objects of several sizes: the comparison is not one of empty masks.
    assert len({area for area in areas if area}) >= 4


@pytest.fixture(scope="module")
def generated():
    """Keys of six made-up images of 12 by 12 patches: smooth fields, one in each dimension."""
    fields = np.random.default_rng(SEED).standard_normal((6, 12, 12, 8))
    return center_keys_of(scipy.ndimage.gaussian_filter(fields, (0, 1.2, 1.2, 0)))


def center_keys_of(images):
    return np.stack([center_keys(keys.astype(np.float32)) for keys in images])


def masks_of(keys):
    flat = keys.reshape(-1, keys.shape[2])
    cut = maskcut(flat, keys.shape[:2], tau=TAU, eps=EPS, max_masks=REPETITIONS, backend="cpu")
    return cut.masks


def test_generated_keys_give_the_masks_of_the_dense_problem(generated):
    for keys in generated:
        np.testing.assert_array_equal(masks_of(keys), dense_maskcut(keys)[0])


@pytest.mark.parametrize("rule", sorted(RULES))
def test_each_rule_decides_a_mask_of_the_generated_keys(generated, rule):
    without = [dense_maskcut(keys, RULES - {rule})[0] for keys in generated]
    ours = [masks_of(keys) for keys in generated]
    assert any((a != b).any() for a, b in zip(ours, without, strict=True))


def exact_refinement(image, mask):
    """Mean field of the two-class dense CRF with full kernel matrices (CutLER's constants)."""
    rows, columns = np.indices(mask.shape).reshape(2, -1) * 1.0
    place = np.stack([rows, columns], axis=1)
    colour = image.reshape(-1, 3) / MASKCUT_CRF.colour_std
    features = {
        MASKCUT_CRF.smooth_compat: place / MASKCUT_CRF.smooth_std,
        MASKCUT_CRF.bilateral_compat: np.hstack([place / MASKCUT_CRF.bilateral_std, colour]),
    }
    message = np.zeros((mask.size, mask.size))
    for weight, points in features.items():
        squared = (points**2).sum(axis=1)
        kernel = np.exp(points @ points.T - (squared[:, None] + squared) / 2)
        scale = kernel.sum(axis=1) ** -0.5
        message += weight * scale[:, None] * kernel * scale
    unary = np.where(mask.ravel(), 1.0, -1.0)
    odds = unary
    for _ in range(MASKCUT_CRF.steps):
        odds = unary + message @ np.tanh(odds / 2)
    return (odds > 0).reshape(mask.shape)


def test_refined_masks_are_close_to_the_exact_mean_field(case):
    side = case["images"].shape[1]
    changed = []
    for image, stored in zip(case["images"], case["keys"], strict=True):
        keys = center_keys(stored)
        first = maskcut(keys.reshape(-1, keys.shape[2]), keys.shape[:2], tau=TAU).masks[0]
        at = np.arange(side) * len(first) // side
        mask = first[np.ix_(at, at)]
        exact = exact_refinement(image, mask)
        refined = refine_masks(image, mask[None], backend="cpu")[0]
        assert (refined != exact).mean() < 0.03
        changed.append((exact != mask).mean())
    assert max(changed) > 0.05
