"""Detections to tracks.

Why not a library: a track here must be moved on by the time between two frames, which differs when frames are dropped,
and not by frames. SORT, ByteTrack and norfair 2.3 count frames; supervision has no ByteTrack any longer; its sibling
``trackers`` 2.6 takes timestamps, but depends on ``opencv-python``, which cannot be installed beside
``opencv-python-headless``. The association is ByteTrack's, the assignment is SciPy's, and the filters of a track
are ours in any case.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssd_triton.config import TrackingConfig
from ssd_triton.driving.braking.association import match
from ssd_triton.driving.braking.corridor import Corridor
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.observation import Observation
from ssd_triton.driving.braking.track import Track


class Tracker:
    """Tracks by the time of frames; numbers count from 1 and are not used twice.

    Args:
        camera_height_m: Height of the lens above the road.
        settings: Thresholds, times and noise.
    """

    def __init__(self, camera_height_m: float, settings: TrackingConfig) -> None:
        self._camera_height_m = camera_height_m
        self._settings = settings
        self._tracks: list[Track] = []
        self._time_s = 0.0
        self._next_id = 1

    @property
    def tracks(self) -> tuple[Track, ...]:
        """Those that count: seen often enough, and not long ago."""
        return tuple(track for track in self._tracks if track.hits >= self._settings.confirm_hits)

    def reset(self) -> None:
        """End all tracks."""
        self._tracks = []

    def advance(self, time_s: float, ego: EgoMotion) -> None:
        """Move all tracks on to a later time."""
        for track in self._tracks:
            track.predict(time_s - self._time_s, ego)
        self._time_s = time_s

    def update(self, seen: Sequence[Observation], ego: EgoMotion, corridor: Corridor) -> None:
        """Take in what was seen at the time that the tracks have been moved on to, highest score first.

        Tracks end that count and have not been seen for too long; and that are not seen now and do not count yet,
        or were leaving the image.
        """
        settings = self._settings
        high = [item for item in seen if item.score > settings.high_score_thresh]
        low = [item for item in seen if item.score <= settings.high_score_thresh]
        lost, new = self._continue(self._tracks, high, ego, corridor)
        self._continue(lost, low, ego, corridor)
        self._tracks = [track for track in self._tracks if self._goes_on(track)]
        for item in new:
            track = Track(
                self._next_id,
                self._time_s,
                item,
                ego=ego,
                corridor=corridor,
                camera_height_m=self._camera_height_m,
                settings=settings,
            )
            self._tracks.append(track)
            self._next_id += 1

    def _continue(
        self, tracks: Sequence[Track], seen: Sequence[Observation], ego: EgoMotion, corridor: Corridor
    ) -> tuple[list[Track], list[Observation]]:
        """Continue tracks with observations; gives the tracks and the observations that are left over."""
        expected = np.array([track.box.box_xyxy for track in tracks]).reshape(-1, 4)
        pairs = match(expected, [track.group for track in tracks], seen, self._settings.match_iou_thresh)
        for row, column in pairs:
            tracks[row].update(self._time_s, seen[column], ego, corridor)
        rows, columns = {row for row, _ in pairs}, {column for _, column in pairs}
        return (
            [track for row, track in enumerate(tracks) if row not in rows],
            [item for column, item in enumerate(seen) if column not in columns],
        )

    def _goes_on(self, track: Track) -> bool:
        unseen_s = self._time_s - track.last_seen_s
        counts = track.hits >= self._settings.confirm_hits and not track.is_leaving
        return unseen_s == 0 or (counts and unseen_s <= self._settings.max_coast_s)
