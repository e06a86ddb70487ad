import numpy as np

from kernels.ncut.keys import center_keys


def test_center_keys_removes_the_common_part():
    keys = np.random.default_rng(2).standard_normal((3, 4, 5)).astype(np.float16)

    centered = center_keys(keys + np.float16(3))

    assert centered.dtype == np.float32
    np.testing.assert_allclose(centered.reshape(-1, 5).mean(axis=0), 0, atol=1e-6)
    np.testing.assert_array_equal(
        center_keys(keys).reshape(12, 5), center_keys(keys.reshape(12, 5))
    )
