"""The backend's choice: names, fallbacks, and no silent replacement."""

import importlib.util

import numpy as np
import pytest
from array_modules import require_gpu

from kernels.backend import array_module, resolve_backend, to_numpy
from kernels.errors import BackendUnavailableError

WITHOUT_CUPY = importlib.util.find_spec("cupy") is None


def test_cpu_is_always_available():
    assert resolve_backend("cpu") == "cpu"
    assert array_module("cpu") is np


@pytest.mark.skipif(not WITHOUT_CUPY, reason="CuPy is installed")
def test_auto_falls_back_and_gpu_does_not():
    assert resolve_backend("auto") == "cpu"
    with pytest.raises(BackendUnavailableError, match=r"CuPy is not installed.*backend='auto'"):
        resolve_backend("gpu")


def test_other_names_are_refused():
    with pytest.raises(ValueError, match="backend must be 'auto', 'cpu' or 'gpu', got 'cuda'"):
        resolve_backend("cuda")


def test_the_library_that_computes_says_whether_a_gpu_can_be_used():
    assert resolve_backend("auto", lambda: None) == resolve_backend("gpu", lambda: None) == "gpu"
    assert resolve_backend("auto", lambda: "too old") == "cpu"
    assert resolve_backend("cpu", lambda: None) == "cpu"
    with pytest.raises(BackendUnavailableError, match=r"cannot run here \(too old\)"):
        resolve_backend("gpu", lambda: "too old")


def test_to_numpy_keeps_host_arrays():
    array = np.arange(3)

    assert to_numpy(array) is array


@pytest.mark.gpu
def test_arrays_go_to_the_device_and_back():
    require_gpu()

    device_array = array_module("gpu").arange(3)

    np.testing.assert_array_equal(to_numpy(device_array), [0, 1, 2])
