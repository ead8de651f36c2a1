"""Small pictures as bytes."""

from __future__ import annotations

import io

from PIL import Image


def webp(image: Image.Image, quality: int = 70) -> bytes:
    """A WebP file; the same picture gives the same bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=quality, method=4)
    return buffer.getvalue()
