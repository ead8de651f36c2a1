"""The picture of emotions over time: what it shows of one window, of an hour, of many classes, and where there are
gaps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.image import imread

from hicmae.figures.emotion_timeline import _columns, _spans, draw_emotion_timeline, emotion_timeline, window_spans
from hicmae.heads import Targets
from hicmae.inference.results import FilePrediction, LeftOut, WindowPrediction


def prediction(
    windows: int, classes: int, dimensions: int = 0, *, without: Sequence[int] = (), hop_s: float = 2.56
) -> FilePrediction:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(max(1, classes), 0.3), windows).astype(np.float32)
    values = rng.normal(size=(windows, dimensions)).astype(np.float32)
    spans = [(number * hop_s, number * hop_s + 2.56) for number in range(windows)]
    names = tuple(f"class {k}" for k in range(classes))
    return FilePrediction(
        name="some/talk.mp4",
        duration_s=spans[-1][1],
        targets=Targets(classes=names, dimensions=tuple(f"value {k}" for k in range(dimensions))),
        windows=tuple(
            WindowPrediction(
                start_s=begin, end_s=end, modalities=("video",), probabilities=shares[number] if classes else None,
                values=values[number] if dimensions else None,
            )
            for number, (begin, end) in enumerate(spans)
            if number not in without
        ),
        warnings=(),
        left_out=tuple(LeftOut(start_s=spans[n][0], end_s=spans[n][1], reason="no_face") for n in without),
        model="tiny",
    )  # fmt: skip


def test_a_window_stands_for_its_time_up_to_the_middle_of_what_it_shares_with_the_next() -> None:
    overlapping = window_spans(prediction(3, 2, hop_s=0.56).windows)
    np.testing.assert_allclose(overlapping, [(0, 1.56), (1.56, 2.12), (2.12, 3.68)])
    apart = window_spans(prediction(4, 2, without=(1,)).windows)
    np.testing.assert_allclose(apart, [(0, 2.56), (5.12, 7.68), (7.68, 10.24)])


def test_of_overlapping_windows_those_left_out_leave_a_gap_as_well() -> None:
    spans = _spans(prediction(5, 2, without=(1, 2), hop_s=0.56))
    np.testing.assert_allclose(spans, [(0, 1.56), (2.68, 3.24), (3.24, 4.8)])


def test_all_classes_have_a_colour_until_there_are_too_many_and_then_the_winners_have() -> None:
    few = _columns(prediction(20, 8))
    assert [column.name for column in few] == [f"class {k}" for k in range(8)]
    assert len({column.colour for column in few}) == 8
    many = prediction(30, 43)
    columns = _columns(many)
    assert columns[-1].name == "36 others"
    assert len(columns) == 8
    np.testing.assert_allclose(sum(column.shares for column in columns), np.ones(30), atol=1e-6)
    wins = np.bincount([int(np.argmax(w.probabilities)) for w in many.windows], minlength=43)  # type: ignore[arg-type]
    named = {int(column.name.split()[1]) for column in columns[:-1]}
    assert min(wins[k] for k in named) >= max(wins[k] for k in range(43) if k not in named)


@pytest.mark.parametrize(("windows", "classes", "dimensions"), [(1, 2, 2), (400, 43, 2), (3, 0, 3)])
@pytest.mark.filterwarnings("error")
def test_any_size_is_drawn(windows: int, classes: int, dimensions: int, tmp_path: Path) -> None:
    path = draw_emotion_timeline(prediction(windows, classes, dimensions), tmp_path / "new" / "x.png")
    picture = imread(path)
    assert picture.shape[1] > 900
    assert picture[..., :3].std() > 0.05
    assert [file.name for file in path.parent.iterdir()] == ["x.png"]


def test_shares_are_stacked_to_one_and_gaps_stay_empty_and_are_hatched() -> None:
    found = prediction(10, 3, 1, without=(0, 4, 5, 9))
    figure = emotion_timeline(found)
    winners, shares, values = figure.axes
    *areas, hatched = [drawn for drawn in shares.collections if isinstance(drawn, PolyCollection)]
    columns, spans = _columns(found), window_spans(found.windows)
    floor = np.zeros(len(spans))
    for area, column in zip(areas, columns, strict=True):
        before, after = (path.vertices for path in area.get_paths())  # the gap in the middle is left out
        for piece, window in ((before, 0), (after, 3)):
            at_begin = piece[np.isclose(piece[:, 0], spans[window, 0]), 1]
            np.testing.assert_allclose(
                (at_begin.min(), at_begin.max()), (floor[window], floor[window] + column.shares[window]), atol=1e-6
            )
        floor += column.shares
    np.testing.assert_allclose(extents(hatched), [(0, 2.56), (4 * 2.56, 6 * 2.56), (9 * 2.56, 10 * 2.56)])
    np.testing.assert_allclose(extents(values.collections[-1]), extents(hatched))
    line = values.lines[0].get_ydata()
    assert np.isnan(line).sum() == 2
    strip = extents(winners.collections[0])
    assert (strip[0][0], strip[-1][1]) == (pytest.approx(2.56), pytest.approx(9 * 2.56))


def extents(bars: PolyCollection) -> list[tuple[float, float]]:
    return [(float(path.vertices[:, 0].min()), float(path.vertices[:, 0].max())) for path in bars.get_paths()]


def test_the_strip_has_the_winner_of_each_window_and_the_title_the_file_and_the_model() -> None:
    found = prediction(6, 3, without=(2,))
    figure = emotion_timeline(found)
    names = [text.get_text() for text in figure.axes[0].texts]
    best = [f"class {int(np.argmax(w.probabilities))}" for w in found.windows]  # type: ignore[arg-type]
    runs = [name for number, name in enumerate(best) if number in (0, 2) or name != best[number - 1]]
    assert names == runs
    title = figure.get_suptitle()
    assert title.startswith("talk.mp4\n" + str(found.label))
    assert "tiny" in title
    assert "5 windows" in title
    assert "1 left out (no_face)" in title
