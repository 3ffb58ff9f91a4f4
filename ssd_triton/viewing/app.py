"""The web application behind the page: its static files and its API."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ssd_triton.client.errors import (
    ClientError,
    DeadlineExceededError,
    RequestRefusedError,
    ServerNotReadyError,
    ServerOverloadedError,
    ServerUnreachableError,
)
from ssd_triton.common.errors import ImageError, UserError
from ssd_triton.media.images import EXPECTED, MAX_FILE_BYTES
from ssd_triton.media.untrusted import printable
from ssd_triton.viewing.bodies import RefusedError
from ssd_triton.viewing.drives import Drives
from ssd_triton.viewing.monitor import Monitor
from ssd_triton.viewing.pictures import MAX_PICTURES, Pictures
from ssd_triton.viewing.player import SPEEDS

STATIC = Path(__file__).parent / "static"
_STATUSES: dict[type[UserError], HTTPStatus] = {
    RequestRefusedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ImageError: HTTPStatus.UNPROCESSABLE_ENTITY,
    DeadlineExceededError: HTTPStatus.GATEWAY_TIMEOUT,
    ServerUnreachableError: HTTPStatus.SERVICE_UNAVAILABLE,
    ServerNotReadyError: HTTPStatus.SERVICE_UNAVAILABLE,
    ServerOverloadedError: HTTPStatus.SERVICE_UNAVAILABLE,
    ClientError: HTTPStatus.BAD_GATEWAY,
}
"""The first entry that matches applies."""


def make_app(
    pictures: Pictures, drives: Drives, monitor: Monitor, *, score_thresh: float, labels: tuple[str, ...]
) -> Starlette:
    """Assemble the web application.

    Args:
        pictures: Handles requests for pictures.
        drives: Handles requests for drives; entered while the page runs.
        monitor: Watches the server's state while the page runs.
        score_thresh: Initial value of the page's score slider.
        labels: Class names by id, the background first.
    """
    settings = {
        "labels": labels,
        "score_thresh": score_thresh,
        "max_file_bytes": MAX_FILE_BYTES,
        "max_pictures": MAX_PICTURES,
        "speeds": SPEEDS,
        "expected": EXPECTED,
    }

    async def index(request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def get_settings(request: Request) -> Response:
        return JSONResponse(settings)

    async def get_status(request: Request) -> Response:
        since = request.query_params.get("since", "0")
        return JSONResponse(monitor.state(int(since) if since.isdecimal() and len(since) < 10 else 0))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        looking = asyncio.create_task(monitor.run())
        try:
            with drives:
                yield
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking

    return Starlette(
        routes=[
            Route("/", index),
            Route("/api/settings", get_settings),
            Route("/api/status", get_status),
            *pictures.routes(),
            *drives.routes(),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        exception_handlers={UserError: _refused, HTTPException: _no_page, Exception: _failed},
        lifespan=lifespan,
    )


async def _refused(request: Request, error: Exception) -> Response:
    """Answer with a user's error, and log it."""
    if isinstance(error, RefusedError):
        status = error.status
    else:
        status = next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), HTTPStatus.BAD_REQUEST)
    reason = printable(error)
    request_id = error.request_id if isinstance(error, ClientError) else None
    logging.info("refused: %s: %s", request.url.path, reason)
    return JSONResponse({"error": reason, "request_id": request_id}, status)


async def _no_page(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.NOT_FOUND
    return JSONResponse({"error": "got an address without a page: open /"}, status)


async def _failed(request: Request, error: Exception) -> Response:
    """Answer after a fault of the page itself, which Starlette logs with its traceback."""
    return JSONResponse({"error": "a fault of the page itself: see its log"}, HTTPStatus.INTERNAL_SERVER_ERROR)
