"""Statistics of predictions that need no ground truth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ClusterStatistics:
    """Counts of predictions by cluster and image.

    Attributes:
        thing_counts: (K,) predicted instances of each thing cluster.
        stuff_pixels: (S,) predicted pixels of each stuff cluster.
        thing_pixels: pixels that are thing in the semantic maps.
        predictions_per_image: (n,) predicted instances per image.
        scores: (m,) scores of all predicted instances.
    """

    thing_counts: NDArray[np.int64]
    stuff_pixels: NDArray[np.int64]
    thing_pixels: int
    predictions_per_image: NDArray[np.int64]
    scores: NDArray[np.float64]

    def as_dict(self) -> dict[str, float | int]:
        """Summarise as plain numbers; entropies in bits, scores in [0, 1], shares in percent."""
        per_image, counts = self.predictions_per_image, self.thing_counts
        total_pixels = int(self.stuff_pixels.sum()) + self.thing_pixels
        summary: dict[str, float | int] = {
            "images": len(per_image),
            "predictions": int(counts.sum()),
            "predictions_per_image": _rounded(per_image.mean() if len(per_image) else 0.0),
            "images_without_predictions": int(np.count_nonzero(per_image == 0)),
            "thing_clusters": len(counts),
            "thing_clusters_used": int(np.count_nonzero(counts)),
            "thing_entropy_bits": _rounded(entropy_bits(counts)),
            "thing_clusters_effective": _rounded(2.0 ** entropy_bits(counts)),
            "largest_thing_cluster_percent": _percent(
                int(counts.max(initial=0)), int(counts.sum())
            ),
            "stuff_clusters": len(self.stuff_pixels),
            "stuff_clusters_used": int(np.count_nonzero(self.stuff_pixels)),
            "stuff_entropy_bits": _rounded(entropy_bits(self.stuff_pixels)),
            "thing_pixels_percent": _percent(self.thing_pixels, total_pixels),
        }
        if len(self.scores):
            low, middle, high = np.quantile(self.scores, [0.1, 0.5, 0.9])
            summary |= {
                "mean_score": _rounded(self.scores.mean()),
                "score_10_percent": _rounded(low),
                "score_median": _rounded(middle),
                "score_90_percent": _rounded(high),
            }
        return summary


def cluster_statistics(
    clusters: Sequence[int] | NDArray[np.integer],
    scores: Sequence[float] | NDArray[np.floating],
    predictions_per_image: Sequence[int] | NDArray[np.integer],
    semantic_pixels: NDArray[np.integer],
    num_things: int,
) -> ClusterStatistics:
    """Count predictions by cluster.

    Args:
        clusters: (m,) thing cluster of each predicted instance, 1..K.
        scores: (m,) scores of the same.
        predictions_per_image: (n,) predicted instances per image.
        semantic_pixels: (S + 1,) pixels of things (0) and of stuff clusters 1..S in the semantic maps.
        num_things: K.

    Raises:
        ValueError: if a cluster is out of range.
    """
    labels = np.asarray(clusters, dtype=np.int64)
    if labels.size and not 1 <= labels.min() <= labels.max() <= num_things:
        raise ValueError(
            f"predicted clusters must be in [1, {num_things}], got {labels.min()}..{labels.max()}"
        )
    return ClusterStatistics(
        thing_counts=np.bincount(labels, minlength=num_things + 1)[1:].astype(np.int64),
        stuff_pixels=np.asarray(semantic_pixels[1:], dtype=np.int64),
        thing_pixels=int(semantic_pixels[0]),
        predictions_per_image=np.asarray(predictions_per_image, dtype=np.int64),
        scores=np.asarray(scores, dtype=np.float64),
    )


def entropy_bits(counts: NDArray[np.integer]) -> float:
    """Entropy of a distribution given by counts; 0 without counts."""
    shares = counts[counts > 0] / max(int(counts.sum()), 1)
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def _rounded(value: float) -> float:
    return round(float(value), 4)


def _percent(part: int, whole: int) -> float:
    return round(100.0 * part / whole, 2) if whole else 0.0
