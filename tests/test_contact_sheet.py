from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from hicmae.figures.contact_sheet import SheetClip, draw_contact_sheet


def test_clips_lie_in_reading_order_and_what_is_missing_is_said(tmp_path: Path) -> None:
    red, blue = (np.full((16, 40, 40, 3), colour, dtype=np.uint8) for colour in ((200, 0, 0), (0, 0, 200)))
    log_mel = np.tile(np.linspace(1, 0, 128, dtype=np.float32), (256, 1))  # loud at low frequencies
    clips = [
        SheetClip(title="one", frames=red, log_mel=log_mel),
        SheetClip(title="two", frames=blue, log_mel=None),
        SheetClip(title="three", frames=None, log_mel=log_mel),
        SheetClip(title="four", frames=None, log_mel=None, problem="cannot be read " * 40),
    ]
    path = draw_contact_sheet(clips, tmp_path / "new" / "sheet.png", columns=2, tile=50)
    assert [file.name for file in path.parent.iterdir()] == ["sheet.png"]
    with Image.open(path) as image:
        sheet = np.asarray(image.convert("RGB")).astype(int)
    assert sheet.shape == (2 * (14 + 50 + 56 + 8) + 8, 2 * 208 + 8, 3)

    def patch(row: int, column: int, top: int, bottom: int) -> np.ndarray:
        left, down = 8 + 208 * column + 100, 8 + 128 * row + 14
        return sheet[down + top : down + bottom, left : left + 90].mean(axis=(0, 1))

    np.testing.assert_allclose(patch(0, 0, 5, 45), (200, 0, 0), atol=8)
    np.testing.assert_allclose(patch(0, 1, 5, 45), (0, 0, 200), atol=8)
    assert patch(0, 0, 95, 105).sum() > patch(0, 0, 52, 62).sum() + 200  # low frequencies below
    np.testing.assert_allclose(patch(0, 1, 80, 105), (224, 224, 224), atol=8)
    np.testing.assert_allclose(patch(1, 0, 25, 45), (224, 224, 224), atol=8)
    warning = sheet[8 + 128 + 14 : 8 + 128 + 64, 8 + 208 : 8 + 408]
    assert (warning[..., 0] > warning[..., 1] + 100).sum() > 100  # in red


def test_colours_are_those_of_the_frames(tmp_path: Path) -> None:
    shades = np.zeros((16, 40, 40, 3), dtype=np.uint8)
    shades[..., 0], shades[..., 1] = np.arange(40) * 6, np.arange(40)[:, None] * 6
    path = draw_contact_sheet([SheetClip(title="shades", frames=shades, log_mel=None)], tmp_path / "sheet.png", tile=40)
    with Image.open(path) as image:
        shown = np.asarray(image.convert("RGB"))[8 + 14 : 8 + 14 + 40, 8 : 8 + 40]
    np.testing.assert_array_equal(shown, shades[0])  # as smooth as the frame, without steps of a palette
