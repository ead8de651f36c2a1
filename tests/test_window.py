"""Frames are chosen by time, and windows stay within the clip."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hicmae.config import InputSpec
from hicmae.media.window import TOLERANCE_S, choose_window

SPEC = InputSpec()


def test_every_fourth_frame_at_25_fps() -> None:
    window = choose_window(np.arange(100) / 25, 4.0, SPEC, position=1.0, span_s=None)
    assert window is not None
    assert window.frames.tolist() == list(range(36, 100, 4))
    assert window.sound_end_s is None


def test_a_time_rounded_to_milliseconds_still_counts() -> None:
    times = np.round(np.arange(200) / 30, 3) + 0.001
    window = choose_window(times, 7.0, SPEC, position=0.0, span_s=None)
    assert window is not None
    assert window.frames[:4].tolist() == [0, 4, 9, 14]  # 0, .16, .32, .48 s at 30 fps: 0, 4.8, 9.6, 14.4


def test_nothing_within_the_span() -> None:
    times = np.arange(10) / 25
    assert choose_window(times, 0.4, SPEC, position=0.0, span_s=(0.4, 1.0)) is None
    assert choose_window(times + 2, 2.4, SPEC, position=0.0, span_s=(0.0, 1.0)) is None


@given(
    steps=st.lists(st.floats(0.001, 0.5), min_size=1, max_size=80),
    position=st.floats(0, 1),
    span=st.one_of(st.none(), st.tuples(st.floats(0, 5), st.floats(0.01, 10))),
)
def test_any_frame_rate_any_span(steps: list[float], position: float, span: tuple[float, float] | None) -> None:
    times = np.concatenate([[0.0], np.cumsum(steps)])
    end = float(times[-1]) + 0.04
    span_s = None if span is None else (span[0], span[0] + span[1])
    window = choose_window(times, end, SPEC, position=position, span_s=span_s)
    if window is None:
        assert span_s is not None
        assert span_s[0] >= end or span_s[1] <= 0
        return
    assert len(window.frames) == SPEC.num_frames
    assert (np.diff(window.frames) >= 0).all()
    assert window.start_s == times[window.frames[0]]
    wanted = window.start_s + np.arange(SPEC.num_frames) * SPEC.frame_interval_s
    # Each frame is the last one due, unless the next one belongs to another span.
    for frame, instant in zip(window.frames[1:], wanted[1:], strict=True):
        assert times[frame] <= instant + TOLERANCE_S
        following = frame + 1
        if following < len(times) and (span_s is None or times[following] < span_s[1] - TOLERANCE_S):
            assert times[following] > instant + TOLERANCE_S
    if span_s is not None and np.any((times >= span_s[0]) & (times < span_s[1] - TOLERANCE_S)):
        assert times[window.frames[0]] >= span_s[0] - TOLERANCE_S
        assert times[window.frames[-1]] < span_s[1]


@pytest.mark.parametrize("position", [0.0, 0.5, 1.0])
def test_a_clip_of_one_frame(position: float) -> None:
    window = choose_window(np.array([0.2]), 0.24, SPEC, position=position, span_s=None)
    assert window is not None
    assert window.frames.tolist() == [0] * 16
    assert window.start_s == 0.2
