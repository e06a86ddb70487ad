"""k-means over arrays that need not fit in memory."""

from kernels.kmeans.fit import KMeansResult, kmeans

__all__ = ["KMeansResult", "kmeans"]
