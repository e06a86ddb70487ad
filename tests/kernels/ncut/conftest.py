"""The adjacency storages that every test of this room runs on."""

import pytest
from array_modules import CUPY, module_named
from patch_graphs import BITS, DenseStorage


@pytest.fixture(scope="session", params=["bits", "numpy", CUPY])
def storage(request):
    """Bits; dense with NumPy in CuPy's place; dense with CuPy."""
    return BITS if request.param == "bits" else DenseStorage(module_named(request.param))
