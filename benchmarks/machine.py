"""What the machine is, and the most that it can do: ceilings to hold kernels against."""

import datetime
import importlib.metadata
import os
import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numba import get_num_threads, njit, prange
from numpy.typing import NDArray

from benchmarks.timing import time_each

_PACKAGES = [
    "numpy",
    "scipy",
    "numba",
    "torch",
    "faiss-cpu",
    "cupy-cuda12x",
    "scikit-learn",
    "ncut-pytorch",
    "pydensecrf2",
    "pycocotools",
    "faster-coco-eval",
]
_SIDE = 2048
_MEMORY_BYTES = 1 << 28  # far beyond any cache
_CACHE_BYTES = 1 << 23  # in the last-level cache, out of the first two


@dataclass(frozen=True)
class Ceilings:
    """Measured on this machine, with all of its cores.

    Attributes:
        flops_f32: float32 multiply-adds of a matrix product, counted as two, per second.
        flops_bf16: the same with bfloat16 factors.
        memory_bytes: read from memory per second.
        cache_bytes: read from the last-level cache per second.
    """

    flops_f32: float
    flops_bf16: float
    memory_bytes: float
    cache_bytes: float


@lru_cache
def ceilings() -> Ceilings:
    """Measure once a process; some seconds."""
    factor = torch.rand(_SIDE, _SIDE)
    short = factor.bfloat16()
    far, near = np.ones(_MEMORY_BYTES // 8), np.ones(_CACHE_BYTES // 8)
    timings = time_each(
        {
            "f32": lambda: factor @ factor,
            "bf16": lambda: short @ short,
            "memory": lambda: _read(far, 1),
            "cache": lambda: _read(near, 32),
        },
        repeats=7,
    )
    fastest = {name: timing.fastest for name, timing in timings.items()}
    return Ceilings(
        flops_f32=2 * _SIDE**3 / fastest["f32"],
        flops_bf16=2 * _SIDE**3 / fastest["bf16"],
        memory_bytes=_MEMORY_BYTES / fastest["memory"],
        cache_bytes=32 * _CACHE_BYTES / fastest["cache"],
    )


def description() -> str:
    """Hardware, date, versions and ceilings, as a Markdown paragraph."""
    limits = ceilings()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version}" for name, version in _versions().items())
    return (
        f"{os.cpu_count()} cores of {_processor()}, {memory:.0f} GiB, "
        f"{datetime.datetime.now(datetime.UTC).date()}, Python {platform.python_version()}, "
        f"{versions}. Ceilings measured beside the tables: {limits.flops_f32 / 1e9:.0f} GFLOP/s "
        f"in float32, {limits.flops_bf16 / 1e9:.0f} in bfloat16, "
        f"{limits.memory_bytes / 1e9:.0f} GB/s from memory, "
        f"{limits.cache_bytes / 1e9:.0f} GB/s from the last-level cache."
    )


def _processor() -> str:
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return names[0] if names else platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@njit(cache=True, fastmath=True)
def _sum(values: NDArray[np.float64]) -> float:
    total = 0.0
    for place in range(values.size):
        total += values[place]
    return total


@njit(parallel=True)
def _read(values: NDArray[np.float64], passes: int) -> float:
    parts = get_num_threads()
    size = values.size // parts
    totals = np.zeros(parts)
    for part in prange(parts):
        for _ in range(passes):
            totals[part] += _sum(values[part * size : (part + 1) * size])
    return totals.sum()
