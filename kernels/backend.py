"""The one choice between NumPy/SciPy on the CPU and CuPy on a GPU.

Kernels take `backend="auto" | "cpu" | "gpu"`, resolve it once, and write the array code
against the module that `array_module` returns. A named backend is never replaced by another.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np
from scipy import ndimage

from kernels.errors import BackendUnavailableError

Backend = Literal["auto", "cpu", "gpu"]
ResolvedBackend = Literal["cpu", "gpu"]


def resolve_backend(backend: Backend) -> ResolvedBackend:
    """Turn a wish into the backend that will run.

    Args:
        backend: "cpu"; "gpu"; or "auto", which means "gpu" where CuPy imports and sees a device
            and "cpu" everywhere else.

    Raises:
        BackendUnavailableError: "gpu" was asked for and there is none.
        ValueError: any other word.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be 'auto', 'cpu' or 'gpu', got {backend!r}")
    if backend == "cpu":
        return "cpu"
    obstacle = _gpu_obstacle()
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
    """NumPy and SciPy for "cpu", CuPy for "gpu"."""
    if backend == "cpu":
        return ON_HOST
    import cupy
    import cupyx.scipy.ndimage

    return Arrays(cupy, cupyx.scipy.ndimage)


def array_module(backend: ResolvedBackend) -> ModuleType:
    """NumPy for "cpu", CuPy for "gpu"."""
    return arrays_of(backend).xp


ON_HOST = Arrays(np, ndimage)


def to_numpy(array: Any) -> np.ndarray:
    """The array as NumPy, copied from the device if it lies on one."""
    if isinstance(array, np.ndarray):
        return array
    host: np.ndarray = array.get()
    return host


def _gpu_obstacle() -> str | None:
    """Why no GPU can be used, in a few words; None where one can."""
    try:
        import cupy
    except ImportError:
        return "CuPy is not installed"
    try:
        device_count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CUDA does not answer: {error}"
    return None if device_count else "CuPy sees no CUDA device"
