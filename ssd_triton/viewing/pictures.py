"""Handles pictures that a browser sends: detections, previews, and results as files."""

from __future__ import annotations

import io
import json
import tempfile
import time
import uuid
from pathlib import Path
from typing import Annotated, Any, cast

import anyio
import anyio.to_thread
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ssd_triton.client.client import DetectorClient
from ssd_triton.client.results import Result, open_results, results_path
from ssd_triton.client.transport import Transport
from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import ImageError
from ssd_triton.common.result_format import ResultFormat
from ssd_triton.detector.export.samples import sample_photograph
from ssd_triton.media.decoding import image_size_px, open_rgb
from ssd_triton.media.images import HEAD_BYTES, MAX_FILE_BYTES, exif_orientation, image_format, refuse_foreign
from ssd_triton.viewing.bodies import RefusedError, read_body
from ssd_triton.viewing.clips import is_clip
from ssd_triton.viewing.stages import timed

MAX_PICTURES = 100
"""Most pictures on one page, since a browser decodes and keeps them all."""
MAX_RESULTS_BYTES = 16 << 20
"""Largest body with results: three times that of :data:`MAX_PICTURES` pictures with 200 detections each."""
_BODIES = 16
"""Most pictures in memory at once."""
_PREVIEW_QUALITY = 90

_MEDIA_TYPES: dict[ResultFormat, str] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "coco": "application/json",
}
"""Formats in which a page can download results."""


class _Found(BaseModel):
    """A detection, as the page received it."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    box_xyxy: tuple[float, float, float, float]
    score: float = Field(ge=0, le=1)
    class_id: int = Field(ge=1, lt=1 << 15)


class _Shown(BaseModel):
    """A picture and its shown detections; ``file`` is a name to print, never a path."""

    model_config = ConfigDict(extra="forbid")

    file: str = Field(max_length=1024)
    size_px: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    detections: list[_Found] | None = Field(default=None, max_length=1000)
    error: str | None = Field(default=None, max_length=10_000)


_SHOWN = TypeAdapter(list[_Shown])


class Pictures:
    """Handles requests of the pages for pictures and for the browser's camera.

    Args:
        client: Client of the server that detects.
        transport: A connection for reading the server's counters.
        labels: Class names by id, the background first.
    """

    def __init__(self, client: DetectorClient, transport: Transport, labels: tuple[str, ...]) -> None:
        self._client = client
        self._transport = transport
        self._labels = labels
        self._bodies = anyio.Semaphore(_BODIES)
        self._threads = anyio.CapacityLimiter(client.in_flight)
        self._page = uuid.uuid4().hex[:8]
        self._requests = 0

    def routes(self) -> list[Route]:
        """Return the routes of these requests."""
        return [
            Route("/api/sample", self._sample),
            Route("/api/detect", self._detect, methods=["POST"]),
            Route("/api/preview", self._preview, methods=["POST"]),
            Route("/api/results", self._results, methods=["POST"]),
        ]

    async def _sample(self, request: Request) -> Response:
        """Return a bundled photograph, so that the page shows detections before the user adds a picture."""
        return Response(await anyio.to_thread.run_sync(sample_photograph), media_type="image/jpeg")

    async def _detect(self, request: Request) -> Response:
        """Return the detections in the picture in the body; with ``?stages=1`` also the times of the stages."""
        start_s = time.perf_counter()
        self._requests += 1
        request_id = f"page-{self._page}-{self._requests}"
        with_stages = request.query_params.get("stages") == "1"
        async with self._bodies:
            file = await read_body(request, MAX_FILE_BYTES, "a picture")
            received_ms = (time.perf_counter() - start_s) * 1e3
            answer = await anyio.to_thread.run_sync(self._found, file, request_id, with_stages, limiter=self._threads)
        answer["times_ms"] |= {"received": round(received_ms, 2)}
        return JSONResponse(answer)

    def _found(self, file: bytes, request_id: str, with_stages: bool) -> dict[str, Any]:
        kind = image_format(file[:HEAD_BYTES])
        if kind is None and is_clip(file):
            raise ImageError("image: got a video, expected a picture: Drive plays videos")
        refuse_foreign(file, "image")
        start_s = time.perf_counter()
        stages: dict[str, Any] = {}
        if with_stages:
            found, stages = timed(self._transport, lambda: self._client.detect(file, request_id=request_id))
        else:
            found = self._client.detect(file, request_id=request_id)
        request_ms = (time.perf_counter() - start_s) * 1e3
        return {
            "request_id": request_id,
            "detections": found.with_labels(self._labels).to_json(),
            "size_px": image_size_px(file),
            "format": kind,
            # HEIC and AVIF are already turned when they are decoded.
            "turned": kind not in ("HEIC", "AVIF") and exif_orientation(file) != 1,
            "times_ms": {"request": round(request_ms, 2)},
            "stages": stages,
        }

    async def _preview(self, request: Request) -> Response:
        """Return the picture in the body as JPEG, in the pixels that the detector sees."""
        async with self._bodies:
            file = await read_body(request, MAX_FILE_BYTES, "a picture")
            jpeg = await anyio.to_thread.run_sync(_as_jpeg, file, limiter=self._threads)
        return Response(jpeg, media_type="image/jpeg")

    async def _results(self, request: Request) -> Response:
        """Return the results in the body as the file that ``ssd-triton detect --format`` would write."""
        kind = cast(ResultFormat, request.query_params.get("format", ""))
        if kind not in _MEDIA_TYPES:
            raise RefusedError(f"got the format {kind[:20]!r}, expected one of {', '.join(_MEDIA_TYPES)}")
        body = await read_body(request, MAX_RESULTS_BYTES, "results")
        try:
            shown = _SHOWN.validate_python(json.loads(body))
        except (ValueError, RecursionError) as error:  # ValidationError is a ValueError
            raise RefusedError("got results that are none of this page, expected a list: reload the page") from error
        if any(one.class_id >= len(self._labels) for picture in shown for one in picture.detections or ()):
            raise RefusedError("got a class that the model does not have: reload the page")
        content = await anyio.to_thread.run_sync(self._as_file, kind, shown)
        return Response(content, media_type=_MEDIA_TYPES[kind])

    def _as_file(self, kind: ResultFormat, shown: list[_Shown]) -> bytes:
        with tempfile.TemporaryDirectory(prefix="ssd-view-") as folder:
            with open_results(Path(folder), kind, self._labels) as write:
                for number, picture in enumerate(shown):
                    write(self._result(picture, f"{number:06d}"))
            return results_path(Path(folder), kind).read_bytes()

    def _result(self, picture: _Shown, stem: str) -> Result:
        found = picture.detections
        if found is None:
            return Result(picture.file, stem, error=picture.error or "not answered")
        boxes = np.array([one.box_xyxy for one in found], np.float32).reshape(-1, 4)
        scores = np.array([one.score for one in found], np.float32)
        class_ids = np.array([one.class_id for one in found], np.int32)
        detections = Detections(boxes, scores, class_ids, labels=self._labels)
        return Result(picture.file, stem, detections, picture.size_px)


def _as_jpeg(file: bytes) -> bytes:
    jpeg = io.BytesIO()
    open_rgb(file).save(jpeg, "JPEG", quality=_PREVIEW_QUALITY)
    return jpeg.getvalue()
