"""Array modules that the GPU's code runs on in tests: NumPy everywhere, CuPy where there is a GPU."""

import pytest

from kernels.backend import array_module, resolve_backend
from kernels.errors import BackendUnavailableError

CUPY = pytest.param("cupy", marks=pytest.mark.gpu)


def require_gpu():
    """Skip the test where CuPy sees no GPU."""
    try:
        resolve_backend("gpu")
    except BackendUnavailableError as error:
        pytest.skip(str(error))


def module_named(name):
    """Import "numpy" or "cupy"; skip the test where CuPy sees no GPU."""
    if name == "cupy":
        require_gpu()
    return array_module("gpu" if name == "cupy" else "cpu")
