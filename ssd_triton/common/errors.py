"""Errors that a user can correct, as opposed to bugs.

The message is one line: what was found, what was expected, and what to do next. Commands print it without a traceback
and exit with 1; every other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence

_LISTED = 6
"""Names shown in a message; further ones are only counted."""


class UserError(Exception):
    """A mistake that the user can correct; the message says what is wrong and how to correct it."""


class ConfigError(UserError):
    """``config.yml`` or a model configuration holds something unknown, missing or out of range."""


class WeightsError(UserError):
    """A weights file is missing, unreadable, or does not fit the network."""


class ExportError(UserError):
    """An exported model differs from the model it was exported from."""


class ServerError(UserError):
    """The embedded server could not be found, started or kept running."""


class ImageError(UserError):
    """An image file could not be read or decoded."""


class VideoError(UserError):
    """A video, image folder or camera could not be read, or a video could not be written."""


def listing(names: Sequence[str]) -> str:
    """Join the first names for a message, followed by the number of the remaining ones."""
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + rest
