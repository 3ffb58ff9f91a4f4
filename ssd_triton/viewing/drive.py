"""A drive that browsers watch: one thread detects and decides, and each browser takes the newest frame when ready.

A frame is encoded as JPEG only when a browser asks for it. A slow browser therefore gets fewer frames, and slows down
neither the drive nor another browser.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import struct
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import cv2

from ssd_triton.client.client import DetectorClient
from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import UserError
from ssd_triton.driving.braking.decision import FrameDecision
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.demo.feed import FileFeed
from ssd_triton.driving.demo.notices import NoticeBoard
from ssd_triton.driving.demo.pace import Pace
from ssd_triton.driving.demo.picture_watch import PictureWatch
from ssd_triton.driving.demo.run import DemoSettings
from ssd_triton.driving.demo.timing import StageTimes
from ssd_triton.driving.drawing.notices import Notice
from ssd_triton.driving.drawing.road_marks import Trails
from ssd_triton.driving.drawing.trigger_ranges import trigger_ranges
from ssd_triton.media.video import Frame, VideoSource
from ssd_triton.viewing.evidence import frame_record, timeline_record
from ssd_triton.viewing.player import Player
from ssd_triton.viewing.road import road_record

_LONGEST_TIMELINE = 6000
"""Most points of the timeline that a browser gets when it joins: five minutes at 20 frames a second."""
_WIDEST_PX = 1280
"""Wider frames are scaled down for the browser; boxes stay in pixels of the original frame."""
_JPEG_QUALITY = 80

Opener = Callable[[], tuple[VideoSource, DemoSettings]]
"""Opens the clip from its beginning, with the settings of its drive."""


class Run:
    """The timeline of one run through the clip.

    Attributes:
        number: Number of the run, which rises with each run.
        points: Points of the timeline so far, in order.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.points: list[list[float | str | None]] = []


class Shown:
    """What browsers currently show: a frame, or only a message.

    Args:
        run: The run that it belongs to, with the points of the timeline so far.
        header: Makes the header, as JSON values.
        image_rgb: The frame, UINT8 [H, W, 3] RGB; None for a message.
    """

    def __init__(self, run: Run, header: Callable[[], dict[str, Any]], image_rgb: UInt8Array | None) -> None:
        self.number = 0
        self.run = run
        self.points = len(run.points)
        self._header = header
        self._image_rgb = image_rgb
        self._made: tuple[bytes, bytes] | None = None
        self._making = threading.Lock()

    def message(self, run: int, points: int, about: dict[str, Any]) -> bytes:
        """Serialize it for a browser; call it in a thread, since it takes some milliseconds the first time.

        Args:
            run: Number of the run that the browser has.
            points: Number of points of that run's timeline that the browser has.
            about: Values that may change without a new frame.

        Returns:
            The header as JSON after its length in 4 bytes, the news (new points and ``about``) likewise, and the JPEG.
        """
        with self._making:
            if self._made is None:
                header = json.dumps(self._header(), allow_nan=False, separators=(",", ":")).encode()
                self._made = header, b"" if self._image_rgb is None else _as_jpeg(self._image_rgb)
                self._image_rgb = None
            header, jpeg = self._made
        first = max(0 if run != self.run.number else points, self.points - _LONGEST_TIMELINE)
        new = self.run.points[first : self.points]
        news = {"run": self.run.number, "first": first, "points": new, **about}
        return b"".join((_with_length(header), _with_length(json.dumps(news).encode()), jpeg))


class _Decider:
    """Makes decisions for the frames of one run, as the demo does for those of a file.

    Attributes:
        settings: Settings of the drive.
        camera: The best calibration of the camera so far.
        trails: Trails of the tracked objects.
    """

    def __init__(self, settings: DemoSettings) -> None:
        self.settings = settings
        self.camera = settings.camera
        self.trails = Trails()
        self._pipeline = settings.pipeline()
        self._board, self._pace = NoticeBoard(), Pace(settings.demo.min_rate_hz)
        self._watch = None if settings.closed_loop is not None else PictureWatch(settings.camera, settings.assumed)
        if settings.closed_loop is None:
            self._board.put("REPLAY", "a recording: its car does not react to the decisions")

    @property
    def notices(self) -> tuple[Notice, ...]:
        """Notices in force on the last frame."""
        return self._board.in_force

    def decide(self, frame: Frame, detections: Detections | None) -> FrameDecision:
        """Make the decision for the next frame, and pass it to the car of a rendered drive."""
        self._pace.add(frame.time_s, has_data=detections is not None)
        self._board.put("DEGRADED", self._pace.doubt, self._pace.figures)
        ego = self.settings.ego.at(frame.time_s)
        if self._watch is not None:
            self._look(self._watch, frame, ego)
        decision = self._pipeline.step(frame.time_s, detections, ego)
        if self.settings.closed_loop is not None:
            self.settings.closed_loop.react(frame.time_s, brake=decision.state is State.BRAKE)
        return decision

    def _look(self, watch: PictureWatch, frame: Frame, ego: EgoMotion) -> None:
        """Watch the picture for a cut, a better calibration, or a motion that contradicts the given speed."""
        is_cut = watch.look(frame.time_s, frame.image_rgb, ego)
        if is_cut:
            self._pipeline.reset()
        if watch.camera is not self.camera:
            self.camera = watch.camera
            self._pipeline.set_camera(watch.camera)
        self._board.put("CUT", "another scene: tracks and calibration begin anew" if is_cut else "")
        self._board.put("UNCALIBRATED", watch.doubt_of_camera, f"{watch.calibration[0]}; no BRAKE on range alone")
        self._board.put("SPEED", watch.doubt_of_speed)


class Drive:
    """A drive through one clip, which browsers can restart.

    Args:
        open_clip: See :data:`Opener`.
        client: Client of the server that detects.
        loop: Event loop of the connections to the browsers.

    Attributes:
        thread: The drive's thread, which ends some time after :meth:`close`.
        watching: Number of browsers that watch.
    """

    def __init__(self, open_clip: Opener, client: DetectorClient, loop: asyncio.AbstractEventLoop) -> None:
        self.watching = 0
        self._player = Player()
        self._open_clip = open_clip
        self._client = client
        self._loop = loop
        self._numbers = itertools.count(1)
        self._latest: Shown | None = None
        self._changed = asyncio.Event()
        self._this_run = Run(0)
        self.thread = threading.Thread(target=self._run, name="view-drive", daemon=True)
        self.thread.start()

    def control(self, command: dict[str, Any]) -> None:
        """Execute a browser's command, see :meth:`Player.control`, and notify all browsers, even between two frames."""
        self._player.control(command)
        if self._latest is not None:
            self._change_to(self._latest)

    def news(self) -> dict[str, Any]:
        """Return the values that may change without a new frame."""
        return {"paused": self._player.paused, "speed": self._player.speed, "watching": self.watching}

    def close(self) -> None:
        """Ask the thread to end, which may first wait for an answer of the server."""
        self._player.close()

    async def newer_than(self, number: int) -> Shown:
        """Return the newest frame, once it is newer than the one that the browser has."""
        while self._latest is None or self._latest.number <= number:
            changed = self._changed
            await changed.wait()
        return self._latest

    def _run(self) -> None:
        while True:
            self._this_run = Run(self._this_run.number + 1)
            try:
                self._say("opening the clip")
                what = self._play()
            except UserError as error:
                logging.info("drive: %s", error)
                self._say(str(error), ended=True)
                what = self._player.wait(float("inf"))
            except Exception:
                if self._player.closed:  # the client is closed, too
                    return
                logging.exception("drive: a fault of the page itself")
                self._say("the drive has ended by a fault of the page itself: see its log", ended=True)
                what = self._player.wait(float("inf"))
            if what == "close":
                return

    def _play(self) -> str:
        """Play the clip once, wait at its end, and return what to do next."""
        source, settings = self._open_clip()
        with source:
            if self._player.closed:
                return "close"
            car = settings.closed_loop
            in_flight = settings.in_flight if car is None else min(settings.in_flight, car.frames_ahead)
            feed = FileFeed(source, self._client, in_flight)
            decider = _Decider(settings)
            last: dict[str, Any] = {}
            with closing(feed.answers()) as answers:
                for answer in answers:
                    frame = answer.captured.frame
                    if (what := self._player.wait(frame.time_s)) != "frame":
                        return what
                    with feed.times.measure("decide"):
                        decision = decider.decide(frame, answer.detections)
                    feed.times.finish_frame()
                    last = self._about(source, feed.times, frame.index)
                    self._show(decision, answer.detections, frame.image_rgb, decider, last)
            self._say("the clip has ended", ended=True, **last)
        return self._player.wait(float("inf"))

    def _about(self, source: VideoSource, times: StageTimes, index: int) -> dict[str, Any]:
        return {
            "frame": index,
            "frames": source.frame_count,
            "size_px": source.size_px,
            "undecodable": source.undecodable_frames,
            "rates": [[rate.name, _rounded(rate.ms), _rounded(rate.fps)] for rate in times.recent()],
        }

    def _show(
        self,
        decision: FrameDecision,
        detections: Detections | None,
        image_rgb: UInt8Array,
        decider: _Decider,
        about: dict[str, Any],
    ) -> None:
        settings, camera, notices = decider.settings, decider.camera, decider.notices
        trails = decider.trails.follow(decision)
        self._this_run.points.append(timeline_record(decision))
        shown = None if detections is None else detections.filter(score_thresh=settings.demo.score_thresh)

        def header() -> dict[str, Any]:
            ranges = trigger_ranges(decision, settings.braking)
            drawn = frame_record(decision, shown, notices, camera=camera, ranges=ranges)
            return {**about, **drawn, "road": road_record(decision, ranges, trails, settings.demo.view_range_m)}

        self._publish(header, image_rgb)

    def _say(self, words: str, **about: Any) -> None:
        self._publish(lambda: {**about, "words": words}, None)

    def _publish(self, header: Callable[[], dict[str, Any]], image_rgb: UInt8Array | None) -> None:
        shown = Shown(self._this_run, header, image_rgb)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._change_to, shown)

    def _change_to(self, shown: Shown) -> None:
        """Publish the newest frame to the waiting browsers; runs in the event loop."""
        self._latest = shown
        shown.number = next(self._numbers)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _as_jpeg(image_rgb: UInt8Array) -> bytes:
    height_px, width_px = image_rgb.shape[:2]
    if width_px > _WIDEST_PX:
        size_px = (_WIDEST_PX, max(1, round(height_px * _WIDEST_PX / width_px)))
        image_rgb = cv2.resize(image_rgb, size_px, interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR)
    _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return jpeg.tobytes()


def _with_length(part: bytes) -> bytes:
    return struct.pack("<I", len(part)) + part


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
