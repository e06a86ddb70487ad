"""The choice between NumPy/SciPy on the CPU and CuPy on a GPU.

Kernels take `backend="auto" | "cpu" | "gpu"`, resolve it once, and write array code against the
module that `array_module` returns. A backend asked for by name is never replaced by another.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np
from scipy import ndimage

from kernels.errors import BackendUnavailableError

Backend = Literal["auto", "cpu", "gpu"]
ResolvedBackend = Literal["cpu", "gpu"]


def cupy_obstacle() -> str | None:
    """Why CuPy can use no GPU, in a few words; None where it can."""
    try:
        import cupy
    except ImportError:
        return "CuPy is not installed"
    try:
        device_count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CUDA does not answer: {error}"
    return None if device_count else "CuPy sees no CUDA device"


def resolve_backend(
    backend: Backend, gpu_obstacle: Callable[[], str | None] = cupy_obstacle
) -> ResolvedBackend:
    """Resolve 'auto' to 'cpu' or 'gpu'.

    Args:
        backend: "auto" is "gpu" where the library can use one and "cpu" elsewhere.
        gpu_obstacle: Says why the library that computes can use no GPU, None where it can.

    Raises:
        BackendUnavailableError: backend is "gpu" and no GPU can be used.
        ValueError: backend is none of the three.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be 'auto', 'cpu' or 'gpu', got {backend!r}")
    if backend == "cpu":
        return "cpu"
    obstacle = gpu_obstacle()
    if obstacle is None:
        return "gpu"
    if backend == "auto":
        return "cpu"
    raise BackendUnavailableError(
        f"backend='gpu' cannot run here ({obstacle}): install the `gpu` extra on a machine with "
        "a CUDA device, or use backend='auto' or 'cpu'."
    )


@dataclass(frozen=True)
class Arrays:
    """An array library and its image operations.

    Attributes:
        xp: NumPy or CuPy.
        ndimage: scipy.ndimage or cupyx.scipy.ndimage.
    """

    xp: ModuleType
    ndimage: ModuleType


def arrays_of(backend: ResolvedBackend) -> Arrays:
    """Return NumPy and SciPy for "cpu", CuPy for "gpu"."""
    if backend == "cpu":
        return CPU_ARRAYS
    import cupy
    import cupyx.scipy.ndimage

    return Arrays(cupy, cupyx.scipy.ndimage)


def array_module(backend: ResolvedBackend) -> ModuleType:
    """Return NumPy for "cpu", CuPy for "gpu"."""
    return arrays_of(backend).xp


CPU_ARRAYS = Arrays(np, ndimage)


def to_numpy(array: Any) -> np.ndarray:
    """Return the array as NumPy, copied from the GPU if it is there."""
    if isinstance(array, np.ndarray):
        return array
    host: np.ndarray = array.get()
    return host
