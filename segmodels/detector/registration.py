"""Set-up of the MMDetection stack: call :func:`register` before using any of it."""

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from segmodels.detector.mmcv_ops import install_mmcv_ops, torchvision_works

# Warnings of the pinned versions that no user can act on.
_KNOWN_WARNINGS: tuple[tuple[str, type[Warning]], ...] = (
    (r"`torch\.jit\.(script|interface)` is deprecated", DeprecationWarning),
    (r"`broadcast_buffers` is deprecated", FutureWarning),
    (r"Setting (OMP|MKL)_NUM_THREADS environment variable", UserWarning),
    (r"``?MultiScaleDeformableAttention`` has been moved", ImportWarning),
)


@functools.cache
def register() -> None:
    """Install the operators and register our modules with MMDetection; cached.

    Raises:
        ImportError: a package of the stack is missing.
    """
    torchvision_works()
    install_mmcv_ops()
    with quiet_third_parties():
        from mmdet.utils import register_all_modules

        register_all_modules(init_default_scope=False)
        # Imported for their registrations.
        from segmodels.detector import dataset, drop_loss, panoptic_model, train_loop  # noqa: F401


@contextmanager
def quiet_third_parties() -> Iterator[None]:
    """Silence the known warnings of the stack, and only those."""
    with warnings.catch_warnings():
        for message, category in _KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=category)
        yield
