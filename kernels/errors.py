"""Typed errors of the numerics; each also is the built-in error that callers expect."""


class ExNihiloError(Exception):
    """Base of every error that this project raises by a type of its own."""


class EigenConvergenceError(ExNihiloError, RuntimeError):
    """An iterative eigen-solver stopped before its residual met the tolerance."""


class BackendUnavailableError(ExNihiloError, RuntimeError):
    """A backend was asked for by name that this machine cannot offer."""


class TooFewPointsError(ExNihiloError, ValueError):
    """There are fewer points than the method needs, e.g. fewer than clusters."""
