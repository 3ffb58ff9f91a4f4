"""Images that the tests encode."""

from __future__ import annotations

import io

from PIL import Image


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def noise() -> Image.Image:
    return Image.effect_noise((16, 16), 50).convert("RGB")
