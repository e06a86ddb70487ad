"""What every benchmark is told."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """How much to measure, and on what.

    Attributes:
        quick: smaller sizes and fewer repetitions, to see that everything runs.
        data: folder with real photographs and reference outputs (`data/`, `reference/`); without
            it the benchmarks use the embedded sample.
    """

    quick: bool = False
    data: Path | None = None
