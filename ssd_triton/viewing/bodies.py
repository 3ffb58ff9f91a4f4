"""Reads request bodies within limits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus

import anyio
from starlette.requests import ClientDisconnect, Request

from ssd_triton.common.errors import UserError

_LONGEST_PAUSE_S = 30.0
"""Longest wait for the next part of a body."""


class RefusedError(UserError):
    """A request that the page's server refuses.

    Attributes:
        status: HTTP status of the answer.
    """

    def __init__(self, message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.status = status


async def parts_of(request: Request, limit_bytes: int, what: str) -> AsyncIterator[bytes]:
    """Yield the parts of a body as they arrive.

    Args:
        request: The request whose body is read.
        limit_bytes: Largest size of the body.
        what: What the body is, for the message.

    Raises:
        RefusedError: The body is larger, or stops arriving.
    """
    too_large = RefusedError(
        f"got {what} of more than {limit_bytes >> 20} MiB, expected a smaller one", HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    )
    if int(request.headers.get("content-length", "0")) > limit_bytes:
        raise too_large
    received = 0
    parts = request.stream().__aiter__()
    while True:
        try:
            with anyio.fail_after(_LONGEST_PAUSE_S):
                part = await anext(parts, None)
        except (TimeoutError, ClientDisconnect) as error:
            reason = f"got a part of {what}, expected all of it: send it again"
            raise RefusedError(reason, HTTPStatus.REQUEST_TIMEOUT) from error
        if part is None:
            return
        received += len(part)
        if received > limit_bytes:
            raise too_large
        yield part


async def read_body(request: Request, limit_bytes: int, what: str) -> bytes:
    """Read a whole body; see :func:`parts_of`."""
    return b"".join([part async for part in parts_of(request, limit_bytes, what)])
