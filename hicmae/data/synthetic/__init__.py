"""Synthetic talking faces: a procedural audio-visual corpus with known emotions.

It exists to run and test the whole pipeline without anybody's face or licence. Nothing here was recorded or
learnt from people, and results on it say nothing about recognising human emotion. ``docs/synthetic.md`` has the
table from emotion to cues. Who speaks is in ``speaker.py``, what the emotions are in ``emotions.py``, what
happens over time in ``speech.py`` and ``performance.py``; ``face.py`` draws it (``scene.py``, ``head.py``,
``features.py`` on ``paint.py`` and ``warp.py``), ``voice.py`` makes it audible, ``corpus.py`` writes the files.
"""

from hicmae.data.synthetic.corpus import CorpusSettings, plan_clips, render_clip, write_corpus
from hicmae.data.synthetic.emotions import EMOTIONS

__all__ = ["EMOTIONS", "CorpusSettings", "plan_clips", "render_clip", "write_corpus"]
