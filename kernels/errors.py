"""Typed errors of the numerics; each also is the built-in error that callers expect."""


class ExNihiloError(Exception):
    """Base of all typed errors of this project."""


class EigenConvergenceError(ExNihiloError, RuntimeError):
    """An eigensolver stopped before its residual met the tolerance."""


class BackendUnavailableError(ExNihiloError, RuntimeError):
    """A backend was asked for by name that this machine does not have."""


class TooFewPointsError(ExNihiloError, ValueError):
    """There are fewer points than the method needs, e.g. fewer than clusters."""
