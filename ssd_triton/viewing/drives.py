"""Handles the page's requests for drives: the list of clips, uploads, and a WebSocket for each browser that watches."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from ssd_triton.client.client import DetectorClient
from ssd_triton.common.errors import UserError
from ssd_triton.common.units import KMH_PER_MPS
from ssd_triton.config import Config
from ssd_triton.driving.braking.ego import ConstantEgo, EgoMotion, EgoSource, load_ego_csv
from ssd_triton.driving.camera import configured_camera
from ssd_triton.driving.camera.file import assumed
from ssd_triton.driving.camera.self_calibration import presumed
from ssd_triton.driving.demo.run import DemoSettings
from ssd_triton.media.video import VideoSource, open_source
from ssd_triton.simulation.rendered_drive import open_default_drive
from ssd_triton.viewing.bodies import RefusedError, parts_of
from ssd_triton.viewing.clips import Clip, Clips
from ssd_triton.viewing.drive import Drive

_END_S = 10.0
"""Time for the drives' threads to end after their client was closed."""


class Drives:
    """All drives that are being watched; a context manager that ends them at its end.

    Args:
        config: The configuration in force.
        labels: Class names by id, the background first.
        client: Client of the server that detects.
    """

    def __init__(self, config: Config, labels: tuple[str, ...], client: DetectorClient) -> None:
        self._config = config
        self._labels = labels
        self._client = client
        self._drives: dict[str, Drive] = {}
        self._threads: set[threading.Thread] = set()
        self._upload_bytes = config.view.upload_mib << 20
        self._clips = Clips(config.view.clips, self._upload_bytes, self._drives.__contains__)

    def __enter__(self) -> Drives:
        self._clips.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        for drive in self._drives.values():
            drive.close()
        self._clips.__exit__(*error)

    def join(self) -> None:
        """Wait for the threads of all drives, after their client has been closed."""
        for thread in self._threads:
            thread.join(_END_S)

    def routes(self) -> list[BaseRoute]:
        """Return the routes of these requests."""
        return [
            Route("/api/clips", self._list, methods=["GET"]),
            Route("/api/clips", self._upload, methods=["POST"]),
            WebSocketRoute("/api/drive", self._watch),
        ]

    async def _list(self, request: Request) -> Response:
        return JSONResponse(self._clips.to_json())

    async def _upload(self, request: Request) -> Response:
        """Store the clip in the request body until the page ends."""
        name = unquote(request.headers.get("x-clip-name", ""), errors="replace")
        parts = parts_of(request, self._upload_bytes, "a clip")
        clip = await self._clips.upload(name, parts)
        return JSONResponse({"id": clip.clip_id, "name": clip.name}, HTTPStatus.CREATED)

    async def _watch(self, socket: WebSocket) -> None:
        """Show a drive to one browser, and let the browser control it.

        The browser sends ``{"run": number, "points": number}`` when it has drawn a frame and wants the next one.
        """
        await socket.accept()
        try:
            clip = self._clips.find(socket.query_params.get("clip", ""))
            drive = self._join(clip)
        except RefusedError as error:
            await socket.close(1008, str(error)[:120])
            return
        drive.watching += 1
        try:
            async with anyio.create_task_group() as tasks:
                wanted: asyncio.Queue[tuple[int, int]] = asyncio.Queue(1)
                tasks.start_soon(self._send, socket, drive, wanted)
                await self._listen(socket, drive, wanted)
                tasks.cancel_scope.cancel()
        finally:
            drive.watching -= 1
            if not drive.watching:
                self._drives.pop(clip.clip_id)
                drive.close()

    def _join(self, clip: Clip) -> Drive:
        """Return the drive through this clip that others watch, or a new one.

        Raises:
            RefusedError: The largest number of drives is already running.
        """
        if clip.clip_id not in self._drives:
            limit = self._config.view.max_drives
            if len(self._drives) >= limit:
                raise RefusedError(f"got one drive more than the {limit} that may run: close one (view.max_drives)")
            loop = asyncio.get_running_loop()
            drive = self._drives[clip.clip_id] = Drive(lambda: self._open(clip), self._client, loop)
            self._threads = {thread for thread in self._threads if thread.is_alive()} | {drive.thread}
        return self._drives[clip.clip_id]

    @staticmethod
    async def _listen(socket: WebSocket, drive: Drive, wanted: asyncio.Queue[tuple[int, int]]) -> None:
        """Receive commands and requests for frames from a browser until it leaves."""
        with suppress(WebSocketDisconnect):
            while True:
                try:
                    command = dict(json.loads(await socket.receive_text()))
                    if "run" not in command:
                        drive.control(command)
                    elif not wanted.full():
                        wanted.put_nowait((int(command["run"]), max(0, int(command["points"]))))
                except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
                    await socket.close(1008, "got no command of this page: reload it")
                    return

    @staticmethod
    async def _send(socket: WebSocket, drive: Drive, wanted: asyncio.Queue[tuple[int, int]]) -> None:
        """Send the newest frame whenever the browser wants one."""
        with suppress(WebSocketDisconnect, RuntimeError):
            number = 0
            while True:
                run, points = await wanted.get()
                shown = await drive.newer_than(number)
                number = shown.number
                message = await anyio.to_thread.run_sync(shown.message, run, points, drive.news())
                await socket.send_bytes(message)

    def _open(self, clip: Clip) -> tuple[VideoSource, DemoSettings]:
        """Open a clip with the camera and speed that the configuration gives for it.

        Raises:
            UserError: The clip cannot be read, or the camera does not fit it.
        """
        config = self._config
        shared: dict[str, Any] = {
            "labels": self._labels,
            "braking": config.braking,
            "tracking": config.tracking,
            "demo": config.demo,
            "in_flight": config.client.in_flight,
        }
        if clip.path is None:
            car = open_default_drive(config, real_time=False)
            return car, DemoSettings(camera=car.camera, ego=car, closed_loop=car, **shared)
        ego: EgoSource = ConstantEgo(EgoMotion(config.braking.ego_speed_kmh / KMH_PER_MPS))
        if (ego_table := clip.path.with_suffix(".ego.csv")).is_file():
            ego = load_ego_csv(ego_table, config.demo.max_ego_gap_s)
        try:
            source = open_source(str(clip.path), image_folder_fps=config.demo.image_folder_fps)
        except UserError as error:
            raise RefusedError(str(error).replace(str(clip.path), clip.name)) from error
        camera, mounting = configured_camera(config.camera, source.size_px), config.camera
        if mounting.file is None and mounting.pitch_deg is None:
            camera = presumed(camera)
        return source, DemoSettings(camera=camera, ego=ego, assumed=assumed(mounting), **shared)
