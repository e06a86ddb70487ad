"""The key of a clustering: the number of clusters, the round of the thing masks, the seed."""

import re
from dataclasses import dataclass
from typing import Self

GRAMMAR = "k0800[-r2][-s1]"
_PATTERN = re.compile(r"k(?P<k>[0-9]{1,9})(-r(?P<r>[0-9]{1,4}))?(-s(?P<s>[0-9]{1,9}))?", re.ASCII)


@dataclass(frozen=True, order=True)
class ClusteringKey:
    """A clustering; each has exactly one text form.

    Attributes:
        num_clusters: at least 1.
        round: CutLER round of the clustered masks, at least 1; None for the masks that the
            settings choose.
        seed: of the clustering and of the training on it, at least 0.
    """

    num_clusters: int
    round: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_clusters < 1:
            raise ValueError(f"num_clusters must be at least 1, got {self.num_clusters}")
        if self.round is not None and self.round < 1:
            raise ValueError(f"round must be at least 1, got {self.round}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")

    def __str__(self) -> str:
        round_ = "" if self.round is None else f"-r{self.round}"
        seed = "" if self.seed == 0 else f"-s{self.seed}"
        return f"k{self.num_clusters:04d}{round_}{seed}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a key.

        Raises:
            ValueError: the text is no key, or not in its canonical form.
        """
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise ValueError(
                f"a clustering key reads {GRAMMAR} (number of clusters in four digits, then "
                f"optionally the self-training round and the seed), got {text!r}"
            )
        try:
            round_ = None if match["r"] is None else int(match["r"])
            key = cls(int(match["k"]), round_, int(match["s"] or 0))
        except ValueError as error:
            raise ValueError(f"a clustering key reads {GRAMMAR}, got {text!r}: {error}") from error
        if str(key) != text:
            raise ValueError(f"a clustering key reads {GRAMMAR}: write {key}, not {text!r}")
        return key
