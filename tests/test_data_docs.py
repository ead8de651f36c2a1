"""The page about data keeps to what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from hicmae.data.manifest import FIXED_COLUMNS, NUMBER_LABELS, TEXT_LABELS
from hicmae.data.tar_members import AUDIO_EXTENSIONS, VIDEO_EXTENSIONS

PAGE = (Path(__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")


def test_every_column_and_extension_is_documented() -> None:
    for name in (*FIXED_COLUMNS, *TEXT_LABELS, *NUMBER_LABELS):
        assert f"`{name}`" in PAGE
    assert f"({', '.join(VIDEO_EXTENSIONS)})" in PAGE
    assert f"({', '.join(AUDIO_EXTENSIONS)})" in PAGE


def test_the_example_runs(tmp_path: Path, monkeypatch) -> None:
    from hicmae.data.shard_writer import write_shards
    from tests.corpus import make_corpus

    write_shards(make_corpus(tmp_path / "corpus", 4), tmp_path / "shards" / "train")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    code = code.replace("batch_size=40", "batch_size=2").replace("num_workers=8", "num_workers=0")
    code = code.replace("range(100)", "range(1)").replace("...", "seen.append(batch)")
    seen: list = []
    exec(code, {"seen": seen})
    assert [tuple(batch.video.shape) for batch in seen] == [(2, 16, 160, 160, 3)] * 2
