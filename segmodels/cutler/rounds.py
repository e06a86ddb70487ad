"""CutLER's self-training rounds (CutLER sec. 3.3); not built yet."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CutlerSettings:
    """Self-training of a class-agnostic detector on the MaskCut masks.

    Attributes:
        rounds: number of rounds; with 0 the stage's table stays empty.
    """

    rounds: int = 0

    def __post_init__(self) -> None:
        if self.rounds != 0:
            raise ValueError(
                f"rounds must be 0 (self-training rounds are not built yet), got {self.rounds}"
            )
