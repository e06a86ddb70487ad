"""Errors in a user's images and annotations."""

from enum import StrEnum

from kernels.errors import ExNihiloError


class InputError(ExNihiloError, ValueError):
    """Input that the user must change; the message says how in one sentence."""


class AnnotationError(InputError):
    """An annotation file that contradicts itself, its images or the format it claims."""


class RejectReason(StrEnum):
    """Why a file of a source is not among the images."""

    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    EMPTY_FILE = "empty_file"
    NOT_AN_IMAGE = "not_an_image"
    OVER_PIXEL_LIMIT = "over_pixel_limit"
    UNREADABLE_FILE = "unreadable_file"
    UNREADABLE_NAME = "unreadable_name"
    REPLACED_MEMBER = "replaced_member"
    DUPLICATE_CONTENT = "duplicate_content"
    SIZE_MISMATCH = "size_mismatch"


class UnreadableImageError(ExNihiloError):
    """A file that cannot be read as an image.

    Attributes:
        reason: Kind of fault.
        detail: Particulars, for messages.
    """

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail
