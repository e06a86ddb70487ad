"""High-dimensional Gaussian filtering on the permutohedral lattice.

Method: Adams, Baek, Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice",
Eurographics 2010. Each point spreads its value over the d + 1 corners of the lattice simplex that
holds it (splat), the corners are blurred along the d + 1 lattice directions, and the points read
the corners back with the same weights (slice). The cost is linear in points and in d squared.
"""
