"""What the page shows, as HTML: how far it is, the result of a file, its timeline, and what went wrong."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import PurePath

import pandas as pd

from hicmae.figures.emotion_timeline import emotion_timeline
from hicmae.heads import Targets
from hicmae.inference.prediction_dicts import window_rows
from hicmae.inference.prediction_files import About, write_json_predictions
from hicmae.inference.predictor import Predictor
from hicmae.inference.results import FilePrediction, WindowPrediction
from hicmae.serve.watch import Failed, SoFar, Stopped

WELCOME = '<div class="hint">Drop a video. What the recogniser says appears here, window by window.</div>'

WAITING = '<div class="progress">waiting for its turn …</div>'


def about(predictor: Predictor, *, max_mb: int) -> str:
    """The line below the title: which model, what it takes, and what becomes of files."""
    targets, spec = predictor.targets, predictor.spec
    takes = " and ".join({"video": "picture", "audio": "sound"}[m] for m in predictor.modalities)
    faces = "The face is followed through each file. " if predictor.faces else ""
    return (
        '<div class="about"><h1>Emotion along a video</h1><p>'
        f"<b>{escape(predictor.name)}</b> takes {takes} in windows of "
        f"{spec.window_seconds:.2f} s and tells {escape(', '.join((*targets.classes, *targets.dimensions)))}. {faces}"
        f"Files of up to {max_mb} MB stay on the computer that serves this page and are deleted when the page is "
        "closed. It shows emotion as annotators of the training data perceived it, not what a person feels.</p></div>"
    )


def progress(state: SoFar, *, faces: bool) -> str:
    """How many windows are done, how fast, and how long the rest will take."""
    if not state.done:
        return f'<div class="progress">{"following the face" if faces else "reading the file"} …</div>'
    rate = state.done / max(state.seconds, 1e-9)
    left = (state.total - state.done) / rate
    text = f"window {state.done} of {state.total} · {rate:.1f} a second · about {_duration(left)} left"
    return f'<div class="progress">{_track(state.done / state.total)}<span>{text}</span></div>'


def failure(state: Failed | Stopped) -> str:
    """Why there is no result."""
    if isinstance(state, Stopped):
        where = f"after window {state.done} of {state.total}" if state.total else "before the first window"
        return f'<div class="problem stopped">Stopped {where}.</div>'
    return f'<div class="problem"><b>This file could not be worked on.</b><br>{escape(state.message)}</div>'


def verdict(prediction: FilePrediction) -> str:
    """What the file is taken for, in a word, or its values; and of how much that is the mean."""
    said = []
    if prediction.probabilities is not None:
        said.append(f'<b id="label">{escape(str(prediction.label))}</b> {prediction.probabilities.max():.0%}')
    if prediction.values is not None:
        values = zip(prediction.targets.dimensions, map(float, prediction.values), strict=True)
        said += [f'<span class="value">{escape(name)} <b>{value:+.2f}</b></span>' for name, value in values]
    count = len(prediction.windows)
    windows = f"mean of {count} windows" if count > 1 else "one window"
    return f'<div class="verdict">{" ".join(said)}<span class="facts">{windows}</span></div>'


def details(prediction: FilePrediction, settings: About) -> str:
    """Warnings, the mean of every class, and the table to download; ``settings`` goes into its JSON."""
    parts = [f'<div class="warning">{_warning(text)}</div>' for text in prediction.warnings]
    if prediction.probabilities is not None:
        means = zip(prediction.targets.classes, map(float, prediction.probabilities), strict=True)
        parts.append('<div class="bars">')
        parts += [_bar(name, share) for name, share in sorted(means, key=lambda pair: -pair[1])]
        parts.append("</div>")
    stem = PurePath(prediction.name).stem
    parts.append(
        '<div class="downloads">'
        + _download(f"{stem}.csv", "text/csv", pd.DataFrame(window_rows(prediction)).to_csv(index=False))
        + _download(f"{stem}.json", "application/json", _as_json(prediction, settings))
        + "</div>"
    )
    return "".join(parts)


def timeline(prediction: FilePrediction) -> str:
    """The figure, with where its time axis lies in it, for the marker and for clicks."""
    figure = emotion_timeline(prediction)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    box, (begin, end) = figure.axes[-1].get_position(), figure.axes[-1].get_xlim()
    above, below = 1 - figure.axes[0].get_position().y1, box.y0
    picture = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<div class="timeline" data-left="{box.x0:.5f}" data-right="{box.x1:.5f}" data-begin="{begin:.4f}" '
        f'data-end="{end:.4f}" title="click to go there"><img alt="emotions over time" '
        f'src="data:image/png;base64,{picture}"><div class="now" '
        f'style="top:{above:.2%};bottom:{below:.2%}"></div></div>'
    )


def partial(name: str, windows: Sequence[WindowPrediction], targets: Targets, model: str) -> FilePrediction:
    """The windows so far as if they were the whole file, to draw them."""
    return FilePrediction(
        name=name, duration_s=windows[-1].end_s, targets=targets, windows=tuple(windows), warnings=(), model=model
    )


def _as_json(prediction: FilePrediction, settings: About) -> str:
    buffer = io.StringIO()
    write_json_predictions(buffer, [prediction], [], about=settings)
    return buffer.getvalue()


def _bar(name: str, share: float) -> str:
    number = f'<span class="number">{share:.1%}</span>'
    return f'<div class="bar"><span class="name">{escape(name)}</span>{_track(share)}{number}</div>'


def _track(share: float) -> str:
    return f'<span class="track"><span class="fill" style="width:{share:.2%}"></span></span>'


def _warning(text: str) -> str:
    """Warnings begin with a code for counting, which is told apart from the sentence."""
    code, colon, sentence = text.partition(": ")
    return f"<b>{escape(code.replace('_', ' '))}</b>: {escape(sentence)}" if colon else escape(text)


def _download(name: str, kind: str, text: str) -> str:
    # The data is in the page: no file of results is written on the server.
    data = base64.b64encode(text.encode()).decode()
    return f'<a class="download" download="{escape(name)}" href="data:{kind};base64,{data}">{escape(name)}</a>'


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
