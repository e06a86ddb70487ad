"""MaskCut: the public reference's own masks, graphs with known cuts, and the published quirks."""

import numpy as np
import pytest
import scipy.linalg
from array_modules import require_gpu
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_graphs import BITS

from kernels.backend import arrays_of
from kernels.ncut.adjacency import cosine_adjacency
from kernels.ncut.affinity import PatchGraphs
from kernels.ncut.eigen import Eigenpairs, second_smallest
from kernels.ncut.repeated_cuts import cut_repeatedly, maskcut, maskcut_batch, ncut_solver

GRID = (60, 60)


def keys_of_regions(regions):
    """One-hot keys: patches of the same region are alike, others orthogonal."""
    return np.eye(regions.max() + 1, dtype=np.float32)[regions.ravel()]


def random_keys(seed, grid, width):
    """Keys that vary smoothly over the grid, as a backbone's do."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(grid)
    waves = rng.standard_normal((3, width))
    phases = rng.uniform(0.2, 1.2, (3, 2))
    smooth = sum(
        np.cos(a * rows + b * columns)[..., None] * wave
        for (a, b), wave in zip(phases, waves, strict=True)
    )
    return (smooth + 0.3 * rng.standard_normal((*grid, width))).reshape(-1, width)


@pytest.fixture(scope="module")
def references(test_data):
    files = sorted((test_data / "reference" / "maskcut").glob("*.npz"))
    assert len(files) == 6
    return [np.load(file) for file in files]


def test_masks_of_the_reference_by_our_sign_rule(references):
    """The reference's signs are arbitrary (LAPACK's); ours change one mask of 18."""
    same = [
        np.array_equal(ours, theirs)
        for reference in references
        for ours, theirs in zip(
            maskcut(reference["features"], GRID).masks, reference["bip"], strict=True
        )
    ]

    assert len(same) == 18
    assert sum(same) == 17


def test_all_masks_and_vectors_of_the_reference_by_its_own_sign(references):
    for reference in references:
        solve = ncut_solver(cosine_adjacency(reference["features"][None], 0.15, np), 0.15, 1e-5)

        def like_reference(repetition, vectors, theirs=reference["eig"]):
            return vectors * np.sign(vectors @ theirs[repetition].ravel())

        (cut,) = cut_repeatedly(solve, (1, *GRID), max_masks=3, orient=like_reference)

        np.testing.assert_array_equal(cut.masks, reference["bip"])
        assert cut.dense_fallbacks == 0
        for ours, theirs in zip(cut.eigenvectors, reference["eig"], strict=True):
            # Theirs is stored in float32.
            np.testing.assert_allclose(ours, theirs, atol=2e-7 * np.abs(theirs).max())


def test_objects_on_a_background_are_found_one_after_another():
    regions = np.zeros((12, 15), int)
    regions[2:5, 2:5] = 1
    regions[6:10, 7:12] = 2

    cut = maskcut(keys_of_regions(regions), (12, 15))

    # Of disconnected regions the more balanced cut comes first; a third object is not there.
    np.testing.assert_array_equal(cut.masks[0], regions == 2)
    np.testing.assert_array_equal(cut.masks[1], regions == 1)
    assert not cut.masks[2].any()
    assert cut.eigenvalues[0] < cut.eigenvalues[1] < 1e-3
    assert cut.dense_fallbacks == 0


def test_two_regions_analytically():
    regions = np.zeros((6, 10), int)
    regions[1:5, 3:7] = 1
    size, inside, eps = 60, 16, 1e-5
    degree_in, degree_out = inside + (size - inside) * eps, (size - inside) + inside * eps

    cut = maskcut(keys_of_regions(regions), (6, 10), eps=eps, max_masks=1)

    np.testing.assert_array_equal(cut.masks[0], regions == 1)
    expected = (size - inside) * eps / degree_in + inside * eps / degree_out
    np.testing.assert_allclose(cut.eigenvalues, [expected], rtol=1e-8)
    values = cut.eigenvectors[0]
    np.testing.assert_allclose(
        values[2, 4] / values[0, 0], -(size - inside) * degree_out / (inside * degree_in)
    )


@pytest.mark.parametrize(
    "keys",
    [
        np.ones((20, 3)),
        np.zeros((20, 3)),
        np.eye(20),
        np.tile(np.eye(2), (10, 1)),
    ],
    ids=["all alike", "all zero", "none alike", "chessboard columns"],
)
def test_degenerate_images_give_masks_not_errors(keys):
    cut = maskcut(keys, (4, 5))

    assert cut.masks.shape == cut.eigenvectors.shape == (3, 4, 5)
    assert cut.masks[0].any()
    assert np.isfinite(cut.eigenvectors).all()
    assert (cut.masks.sum(axis=0) <= 1).all()
    assert cut.masks.tobytes() == maskcut(keys, (4, 5)).masks.tobytes()


@pytest.mark.parametrize("tau", [-0.999, 0.999])
def test_thresholds_that_connect_all_or_none(tau):
    keys = np.abs(np.random.default_rng(0).standard_normal((30, 6)))

    cut = maskcut(keys, (5, 6), tau=tau)

    assert np.isfinite(cut.eigenvalues).all()
    np.testing.assert_allclose(cut.eigenvalues[0], 1.0 if tau < 0 else 30e-5, rtol=1e-3)


def test_a_negative_threshold_connects_painted_patches_to_all():
    # Zero keys have cosine 0, which exceeds a negative tau: as with the keys really set to zero.
    keys = random_keys(5, (8, 8), 4)
    first = maskcut(keys, (8, 8), tau=-0.2, max_masks=1).masks[0]
    repainted = np.where(first.ravel()[:, None], 0.0, keys)

    second = maskcut(keys, (8, 8), tau=-0.2, max_masks=2)

    np.testing.assert_allclose(
        second.eigenvalues[1], maskcut(repainted, (8, 8), tau=-0.2, max_masks=1).eigenvalues[0]
    )


def test_one_patch_cannot_be_cut():
    cut = maskcut(np.ones((1, 4)), (1, 1))

    assert cut.masks.shape == (3, 1, 1)
    assert not cut.masks.any()
    assert np.isnan(cut.eigenvalues).all()


@pytest.mark.parametrize("grid", [(1, 2), (1, 9), (9, 1), (2, 2), (3, 7)])
def test_any_grid(grid):
    cut = maskcut(random_keys(1, grid, 5), grid)

    assert cut.masks.shape == (3, *grid)
    assert cut.masks[0].any()


def test_rows_and_columns_are_not_exchanged():
    regions = np.zeros((4, 9), int)
    regions[1:3, 6:8] = 1

    wide = maskcut(keys_of_regions(regions), (4, 9), max_masks=1).masks[0]
    tall = maskcut(keys_of_regions(regions.T), (9, 4), max_masks=1).masks[0]

    np.testing.assert_array_equal(wide, regions == 1)
    np.testing.assert_array_equal(tall, (regions == 1).T)


GRIDS = st.tuples(st.integers(2, 9), st.integers(2, 9))


@given(st.integers(0, 10_000), GRIDS, st.sampled_from([0.0, 0.15, 0.4]))
@settings(max_examples=25, deadline=None)
def test_masks_are_disjoint_and_largest_entries_positive(seed, grid, tau):
    cut = maskcut(random_keys(seed, grid, 6), grid, tau=tau)

    assert (cut.masks.sum(axis=0) <= 1).all()
    assert cut.masks[0].any()
    assert not cut.masks[0].all()
    magnitudes = np.abs(cut.eigenvectors).max(axis=(1, 2))
    np.testing.assert_allclose(cut.eigenvectors.max(axis=(1, 2)), magnitudes, rtol=1e-5)


@given(st.integers(0, 10_000), GRIDS)
@settings(max_examples=25, deadline=None)
def test_a_rotation_of_feature_space_changes_nothing(seed, grid):
    keys = random_keys(seed, grid, 5)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((5, 5)))
    unit = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    # Thresholds half-way between two cosines, so that rounding cannot move a patch across.
    cosines = np.unique(unit @ unit.T)
    widest = np.argmax(np.diff(cosines))
    tau = float(np.clip(cosines[widest : widest + 2].mean(), -0.9, 0.9))

    ours, rotated = (maskcut(k, grid, tau=tau) for k in (keys, keys @ rotation))

    np.testing.assert_array_equal(ours.masks, rotated.masks)
    np.testing.assert_array_equal(ours.eigenvectors, rotated.eigenvectors)


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_fewer_masks_are_the_first_of_more(seed):
    keys = random_keys(seed, (7, 8), 6)
    more = maskcut(keys, (7, 8), max_masks=5)

    for count in (1, 3):
        np.testing.assert_array_equal(
            maskcut(keys, (7, 8), max_masks=count).masks, more.masks[:count]
        )


class CountedSolutions:
    """Eigenvectors given by hand, one a solve; remembers what was painted."""

    def __init__(self, *vectors):
        self.vectors = list(vectors)
        self.painted = []

    def __call__(self, images, painted):
        assert images.tolist() == [0]
        self.painted.append(painted.copy())
        vector = self.vectors[len(self.painted) - 1].reshape(1, -1)
        return Eigenpairs(np.array([0.5]), vector, np.array([False]))


def bump(rows, columns, shape=(10, 10)):
    vector = np.full(shape, -0.1)
    vector[rows, columns] = 5.0
    return vector


def test_later_masks_lose_what_earlier_ones_have():
    solve = CountedSolutions(bump(slice(1, 5), slice(1, 5)), bump(slice(3, 9), slice(3, 9)))

    (cut,) = cut_repeatedly(solve, (1, 10, 10), max_masks=2)

    second = np.zeros((10, 10), bool)
    second[3:9, 3:9] = True
    second[3:5, 3:5] = False
    np.testing.assert_array_equal(cut.masks[1], second)
    np.testing.assert_array_equal(solve.painted[1].reshape(10, 10), cut.masks[0])


def test_a_mask_rejected_for_overlap_comes_back_without_a_new_solve():
    solve = CountedSolutions(bump(slice(1, 7), slice(1, 7)), bump(slice(1, 7), slice(1, 8)))

    (cut,) = cut_repeatedly(solve, (1, 10, 10), max_masks=3)

    assert len(solve.painted) == 2
    assert not cut.masks[1].any()
    expected = np.zeros((10, 10), bool)
    expected[1:7, 7] = True
    np.testing.assert_array_equal(cut.masks[2], expected)
    np.testing.assert_array_equal(cut.eigenvectors[2], cut.eigenvectors[1])


def test_a_mask_rejected_for_size_stays_rejected():
    solve = CountedSolutions(bump(slice(1, 7), slice(1, 7)), bump(slice(8, 9), slice(8, 9)))

    (cut,) = cut_repeatedly(solve, (1, 10, 10), max_masks=4)

    assert len(solve.painted) == 2
    assert cut.masks.any(axis=(1, 2)).tolist() == [True, False, False, False]


def test_the_first_mask_may_be_small():
    solve = CountedSolutions(bump(slice(8, 9), slice(8, 9)))

    assert cut_repeatedly(solve, (1, 10, 10), max_masks=1)[0].masks.sum() == 1


def test_dense_solutions_are_counted():
    keys = np.stack([random_keys(2, (8, 8), 6), np.ones((64, 6))])
    adjacency = cosine_adjacency(keys, 0.15, np)

    def solve(images, painted):
        graphs = PatchGraphs(adjacency.take(images), 1e-5, painted=painted)
        return second_smallest(graphs, max_steps=2)

    cuts = cut_repeatedly(solve, (2, 8, 8), max_masks=1)

    assert [cut.dense_fallbacks for cut in cuts] == [1, 0]


def smooth_images(count, grid):
    return np.stack([random_keys(seed, grid, 6) for seed in range(count)])


@pytest.mark.parametrize("tau", [0.15, -0.2])
def test_masks_do_not_depend_on_the_batch(tau):
    patches, grid = 63, (7, 9)
    degenerate = np.stack([np.ones((patches, 6)), np.zeros((patches, 6)), np.eye(patches, 6)])
    keys = np.concatenate([degenerate, smooth_images(5, grid)])

    together = maskcut_batch(keys.reshape(8, *grid, 6), tau=tau)

    for image, cut in zip(keys, together, strict=True):
        alone = maskcut(image, grid, tau=tau)
        assert cut.masks.tobytes() == alone.masks.tobytes()
        assert cut.eigenvectors.tobytes() == alone.eigenvectors.tobytes()


@pytest.mark.parametrize("tau", [0.15, -0.2])
def test_every_storage_cuts_alike(storage, tau):
    keys = smooth_images(6, (12, 10))

    expected, found = (
        cut_repeatedly(
            ncut_solver(each.of_keys(keys, tau), tau, 1e-5),
            (6, 12, 10),
            max_masks=4,
            arrays=arrays_of("cpu" if each.xp is np else "gpu"),
        )
        for each in (BITS, storage)
    )

    for ours, theirs in zip(expected, found, strict=True):
        np.testing.assert_array_equal(ours.masks, theirs.masks)
        np.testing.assert_allclose(ours.eigenvectors, theirs.eigenvectors, atol=1e-8)


def test_the_slow_solver_is_not_needed_for_images():
    # The tolerance of the steps is well within that of the final check: else one image in four
    # would be solved densely for nothing.
    cuts = maskcut_batch(smooth_images(200, (9, 9)).reshape(200, 9, 9, 6))

    assert sum(cut.dense_fallbacks for cut in cuts) == 0


def dense_solver(keys, tau, eps=1e-5):
    """LAPACK's generalised solver on the affinity of one image, written out."""

    def solve(_, painted):
        unit = np.where(painted[0][:, None], 0.0, keys).astype(np.float32)
        unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
        affinity = np.where(unit @ unit.T > tau, 1.0, eps)
        degrees = np.diag(affinity.sum(axis=1))
        values, vectors = scipy.linalg.eigh(degrees - affinity, degrees, subset_by_index=[1, 1])
        return Eigenpairs(values, vectors.T, np.array([True]))

    return solve


@pytest.mark.parametrize("tau", [0.15, -0.2])
def test_masks_are_those_of_the_dense_solver(tau):
    for keys in smooth_images(40, (11, 9)):
        (theirs,) = cut_repeatedly(dense_solver(keys, tau), (1, 11, 9), max_masks=3)
        ours = maskcut(keys, (11, 9), tau=tau)
        np.testing.assert_array_equal(ours.masks, theirs.masks)


def test_no_images():
    assert maskcut_batch(np.zeros((0, 4, 5, 3))) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"keys": np.ones((7, 2))},
            r"keys must be \(gh \* gw, d\) for grid .*\(2, 3\), got \(7, 2\)",
        ),
        ({"keys": np.ones((2, 3, 2))}, r"keys must be .* got \(2, 3, 2\)"),
        ({"keys": np.full((6, 2), np.nan)}, "keys must be finite"),
        ({"keys": np.full((1, 2), np.inf), "grid": (1, 1)}, "keys must be finite"),
        ({"grid": (0, 6), "keys": np.ones((0, 2))}, "keys must be"),
        ({"tau": 1.0}, r"tau must be in \(-1, 1\), got 1.0"),
        ({"tau": np.nan}, r"tau must be in \(-1, 1\)"),
        ({"eps": 0.0}, r"eps must be in \(0, 1\), got 0.0"),
        ({"max_masks": 0}, "max_masks must be at least 1, got 0"),
        ({"backend": "tpu"}, "backend must be"),
    ],
)
def test_wrong_arguments_are_refused(changed, message):
    arguments = {"keys": np.ones((6, 2)), "grid": (2, 3)} | changed

    with pytest.raises(ValueError, match=message):
        maskcut(arguments.pop("keys"), arguments.pop("grid"), **arguments)


@pytest.mark.gpu
def test_both_backends_find_the_same_masks():
    require_gpu()
    keys = random_keys(3, (20, 30), 16)

    on_device, on_host = (maskcut(keys, (20, 30), backend=name) for name in ("gpu", "cpu"))

    # Cosines within rounding of tau may fall on either side, so a few patches may differ.
    assert np.mean(on_device.masks == on_host.masks) > 0.995
    assert on_device.dense_fallbacks == 0
