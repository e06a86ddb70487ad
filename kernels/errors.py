"""Typed errors of the numerics; each also is the built-in error that callers expect."""


class EigenConvergenceError(RuntimeError):
    """An iterative eigen-solver stopped before its residual met the tolerance."""


class BackendUnavailableError(RuntimeError):
    """A backend was asked for by name that this machine cannot offer."""


class TooFewPointsError(ValueError):
    """There are fewer points than the method needs, e.g. fewer than clusters."""
