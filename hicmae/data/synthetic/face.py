"""Frames of a talking face: a head painted on its own canvas, moved over the backdrop, with a sensor's noise."""

from __future__ import annotations

import numpy as np

from hicmae.data.synthetic.features import paint_features
from hicmae.data.synthetic.head import BOTTOM, LEFT, RIGHT, TOP, Head, paint_head
from hicmae.data.synthetic.performance import Performance
from hicmae.data.synthetic.scene import HEAD_SCALE, Scene, paint_backdrop, tint
from hicmae.data.synthetic.speaker import Look
from hicmae.data.synthetic.warp import compose, pack


def render_frames(look: Look, scene: Scene, performance: Performance, *, size: int) -> np.ndarray:
    """All frames of a clip: uint8 RGB (T, size, size, 3)."""
    backdrop = paint_backdrop(scene, look, size)
    tint(backdrop, scene)
    unit = HEAD_SCALE * scene.zoom * size
    head = paint_head(look, scene, unit)
    layers = _head_layers(head, look, scene, performance)

    background = np.moveaxis(backdrop, 0, -1).astype(np.uint8)
    packed_background = pack(np.concatenate([background, np.zeros_like(background[..., :1])], axis=-1))
    frames = np.repeat(background[None], performance.frames, axis=0)
    for frame, layer, matrix in zip(frames, layers, placements(scene, performance, size=size), strict=True):
        compose(layer, packed_background, _to_canvas(matrix, unit), _reach(matrix, size), frame)
    _add_noise(frames, scene)
    return frames


def placements(scene: Scene, performance: Performance, *, size: int) -> np.ndarray:
    """(T, 2, 3) float64: takes (x, y, 1) in face coordinates to column and row of the frame."""
    yaw, pitch, roll = performance.turn.T
    right, down, log_size = performance.shift.T
    unit = HEAD_SCALE * scene.zoom * size
    wide, high = unit * np.exp(log_size) * np.cos(yaw), unit * np.exp(log_size) * np.cos(pitch)
    column = scene.centre[0] * size + unit * right
    row = scene.centre[1] * size + unit * down
    # The head turns about the neck, one unit below the face's centre.
    column = column + unit * np.sin(roll)
    row = row + unit * (1 - np.cos(roll))
    return np.stack(
        [
            np.stack([wide * np.cos(roll), -high * np.sin(roll), column], axis=1),
            np.stack([wide * np.sin(roll), high * np.cos(roll), row], axis=1),
        ],
        axis=1,
    )


def _head_layers(head: Head, look: Look, scene: Scene, performance: Performance) -> np.ndarray:
    """(T, rows, columns) packed pictures of the head, colours multiplied by alpha."""
    inner, rows, columns = paint_features(head, look, scene, performance)
    tint(inner, scene)
    outer = head.colour.copy()
    tint(outer, scene)
    alpha = head.alpha.copy()
    # A transparent border lets sampling outside the canvas find nothing.
    alpha[[0, -1]] = 0
    alpha[:, [0, -1]] = 0
    still = np.empty((*alpha.shape, 4), np.uint8)
    still[..., :3] = np.moveaxis(outer * alpha, 0, -1)
    still[..., 3] = np.round(255 * alpha)
    layers = np.repeat(pack(still)[None], performance.frames, axis=0)
    inner *= alpha[rows, columns]
    pixels = np.empty((*inner.shape[1:], 4), np.uint8)
    pixels[..., :3] = np.moveaxis(inner, 0, -1)
    pixels[..., 3] = still[rows, columns, 3]
    layers[:, rows, columns] = pack(pixels)
    return layers


def _to_canvas(matrix: np.ndarray, unit: float) -> np.ndarray:
    """From frame pixels to canvas pixels, pixel centres at integers on both sides."""
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    inverse[:, 2] += inverse[:, :2] @ (0.5, 0.5)
    return inverse * unit + np.array([[0, 0, -LEFT * unit - 0.5], [0, 0, -TOP * unit - 0.5]])


def _reach(matrix: np.ndarray, size: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the frame's pixels that the canvas covers."""
    corners = matrix @ np.array([[LEFT, RIGHT, LEFT, RIGHT], [TOP, TOP, BOTTOM, BOTTOM], [1, 1, 1, 1]])
    low, high = np.floor(corners.min(axis=1)), np.ceil(corners.max(axis=1))
    left, top = (int(np.clip(value, 0, size)) for value in low)
    right, bottom = (int(np.clip(value, 0, size)) for value in high)
    return left, top, right, bottom


def _add_noise(frames: np.ndarray, scene: Scene) -> None:
    """Sensor noise in place: pieces of one field of noise, cut elsewhere for every frame."""
    rng = np.random.default_rng(scene.texture_seed + 2)
    size = frames.shape[1]
    field = np.clip(rng.standard_normal((size + 64, size + 64, 1), dtype=np.float32) * scene.noise, -12, 12)
    # Pixels lie in 12..243, so adding modulo 256 never wraps and needs no wider type.
    grain = np.broadcast_to(np.round(field).astype(np.int8).view(np.uint8), (size + 64, size + 64, 3)).copy()
    for frame, (top, left) in zip(frames, rng.integers(0, 64, (len(frames), 2)), strict=True):
        frame += grain[top : top + size, left : left + size]
