"""Formats of detections in files."""

from __future__ import annotations

from typing import Literal

ResultFormat = Literal["json", "jsonl", "csv", "coco", "yolo"]
