"""Image files, recognised by their suffix."""

from __future__ import annotations

from pathlib import Path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm")
"""Lower case; files may also have them in upper case."""


def is_image(path: Path) -> bool:
    """Whether a path has the suffix of an image; its content is not read."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def list_images(folder: Path) -> list[Path]:
    """Return the images of a folder, sorted by name; other files are skipped; none if it is missing."""
    return sorted(path for path in folder.glob("*") if is_image(path))
