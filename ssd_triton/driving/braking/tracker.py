"""Tracking of observations over time.

Why not a library: tracks here advance by the time between two frames, which varies when frames are dropped. SORT,
ByteTrack and norfair 2.3 count frames; supervision no longer has ByteTrack; its sibling ``trackers`` 2.6 takes
timestamps, but depends on ``opencv-python``, which cannot be installed beside ``opencv-python-headless``. The
association follows ByteTrack, the assignment is SciPy's, and the filters are specific to this project.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssd_triton.config import TrackingConfig
from ssd_triton.driving.braking.association import match
from ssd_triton.driving.braking.corridor import Corridor
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.observation import Observation
from ssd_triton.driving.braking.ranging import RangeFilter
from ssd_triton.driving.braking.track import Track
from ssd_triton.driving.camera import Camera


class Tracker:
    """Keeps the tracks; their numbers count from 1 and are never reused.

    Args:
        camera: Its height and pitch uncertainty are used.
        settings: Thresholds, times and noise.
    """

    def __init__(self, camera: Camera, settings: TrackingConfig) -> None:
        self._camera = camera
        self._settings = settings
        self._tracks: list[Track] = []
        self._time_s = 0.0
        self._next_id = 1

    @property
    def tracks(self) -> tuple[Track, ...]:
        """The confirmed tracks."""
        return tuple(track for track in self._tracks if track.hits >= self._settings.confirm_hits)

    def set_camera(self, camera: Camera) -> None:
        """Continue all tracks with another calibration."""
        self._camera = camera
        for track in self._tracks:
            track.set_camera(camera)

    def reset(self) -> None:
        """End all tracks."""
        self._tracks = []

    def advance(self, time_s: float, ego: EgoMotion) -> None:
        """Advance all tracks to a later time."""
        RangeFilter.predict_all([track.range for track in self._tracks], time_s - self._time_s, ego)
        for track in self._tracks:
            track.predict(time_s - self._time_s, ego)
        self._time_s = time_s

    def update(self, seen: Sequence[Observation], ego: EgoMotion, corridor: Corridor) -> None:
        """Update the tracks by observations at the time of the last :meth:`advance`, highest score first.

        A confirmed track ends when it is unseen for too long. An unconfirmed track, and one that was leaving the image,
        ends at once when unseen.
        """
        settings = self._settings
        high = [item for item in seen if item.score > settings.high_score_thresh]
        low = [item for item in seen if item.score <= settings.high_score_thresh]
        lost, new = self._continue(self._tracks, high, ego, corridor)
        self._continue(lost, low, ego, corridor)
        self._tracks = [track for track in self._tracks if self._is_alive(track)]
        for item in new:
            track = Track(
                self._next_id,
                self._time_s,
                item,
                ego=ego,
                corridor=corridor,
                camera=self._camera,
                settings=settings,
            )
            self._tracks.append(track)
            self._next_id += 1

    def _continue(
        self, tracks: Sequence[Track], seen: Sequence[Observation], ego: EgoMotion, corridor: Corridor
    ) -> tuple[list[Track], list[Observation]]:
        """Continue tracks with observations; returns the unmatched tracks and observations."""
        expected = np.array([track.box.box_xyxy for track in tracks]).reshape(-1, 4)
        pairs = match(expected, [track.group for track in tracks], seen, self._settings.match_iou_thresh)
        RangeFilter.update_all(
            [tracks[row].range for row, _ in pairs], [seen[column] for _, column in pairs], corridor.curvature_per_m
        )
        for row, column in pairs:
            tracks[row].update(self._time_s, seen[column], ego, corridor)
        rows, columns = {row for row, _ in pairs}, {column for _, column in pairs}
        return (
            [track for row, track in enumerate(tracks) if row not in rows],
            [item for column, item in enumerate(seen) if column not in columns],
        )

    def _is_alive(self, track: Track) -> bool:
        unseen_s = self._time_s - track.last_seen_s
        counts = track.hits >= self._settings.confirm_hits and not track.is_leaving
        return unseen_s == 0 or (counts and unseen_s <= self._settings.max_coast_s)
