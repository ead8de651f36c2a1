from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from hicmae.config import InputSpec
from hicmae.data.evaluation import EvaluationLoader
from hicmae.data.labels import LabelSpec
from hicmae.data.loader import LoaderSettings
from hicmae.data.manifest import read_manifest
from hicmae.data.source import ManifestSource
from hicmae.media.decode import decode_clip
from tests.corpus import EMOTIONS, make_corpus

SPEC = InputSpec(image_size=32, num_frames=4)
LABELS = LabelSpec(classes={"emotion": EMOTIONS}, dimensions={"valence": (0, 1)})


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ManifestSource:
    """Seven clips, of which clip003 is cut short."""
    return ManifestSource(make_corpus(tmp_path_factory.mktemp("evaluation"), 7, corrupt=(3,)))


def make_loader(source: ManifestSource, **settings: object) -> EvaluationLoader:
    defaults: dict = {"labels": LABELS, "segments": 2, "batch_size": 4, "max_skip_fraction": 0.5}
    own = {name: (defaults | settings)[name] for name in ("labels", "segments")}
    loader = {name: value for name, value in (defaults | settings).items() if name not in own}
    return EvaluationLoader(source, spec=SPEC, loader=LoaderSettings(**loader), **own)


@pytest.mark.parametrize(("world_size", "segments", "workers"), [(1, 2, 0), (2, 2, 0), (3, 1, 0), (5, 3, 0), (2, 2, 2)])
def test_each_segment_once_over_all_ranks(source: ManifestSource, world_size: int, segments: int, workers: int) -> None:
    seen: Counter[tuple[str, int]] = Counter()
    lengths = set()
    skipped = 0
    for rank in range(world_size):
        loader = make_loader(source, rank=rank, world_size=world_size, segments=segments, num_workers=workers)
        batches = list(loader)
        lengths.add(len(batches))
        assert len(batches) == len(loader)
        skipped += loader.skipped.total()
        for batch in batches:
            assert len(batch) == 4
            assert batch.video.shape == (4, 4, 32, 32, 3)
            for name, segment, valid, index in zip(
                batch.clip_ids, batch.segment.tolist(), batch.valid.tolist(), batch.index.tolist(), strict=True
            ):
                assert valid == (name not in ("", "clip003"))
                assert (index == -1) == (name == "")
                if name:
                    assert source.info(index).clip_id == name
                    seen[name, segment] += 1
        loader.close()
    assert len(lengths) == 1
    assert set(seen) == {(f"clip{i:03d}", segment) for i in range(7) for segment in range(segments)}
    assert set(seen.values()) == {1}
    assert skipped == segments  # counted on the ranks that met it, and never replaced


def test_segments_spread_from_start_to_end(source: ManifestSource) -> None:
    for segments, positions in ((1, [0.5]), (2, [0.0, 1.0]), (3, [0.0, 0.5, 1.0])):
        batch = next(iter(make_loader(source, segments=segments, batch_size=segments)))
        assert batch.segment.tolist() == list(range(segments))
        assert batch.crop_box.tolist() == [[0, 0, 32, 32]] * segments
        assert not batch.flip.any()
        assert (batch.gain == 1).all()
        stored = source.read(0)
        for row, position in enumerate(positions):
            decoded = decode_clip(stored.video, spec=SPEC, position=position, name="x")
            assert np.array_equal(batch.video[row].numpy(), decoded.video)
            assert np.array_equal(batch.waveform[row].numpy(), decoded.waveform)


def test_passes_are_equal_and_labels_right(source: ManifestSource) -> None:
    loader = make_loader(source)
    first, second = list(loader), list(loader)
    for a, b in zip(first, second, strict=True):
        assert a.clip_ids == b.clip_ids
        assert torch.equal(a.video, b.video)
        for name, emotion, valence in zip(a.clip_ids, a.labels["emotion"], a.labels["valence"], strict=True):
            number = int(name[-3:]) if name else 0
            assert emotion == number % 3
            assert valence == pytest.approx(number / 7)
    assert loader.skipped == {"truncated": 2}  # of one pass
    assert loader.skipped_clips == {"clip003": "truncated"}
    assert loader.wait_seconds > 0


def test_too_many_skips_and_bad_labels_stop_it(source: ManifestSource, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"max_skip_fraction=0\.05"):
        list(make_loader(source, max_skip_fraction=0.05))
    with pytest.raises(ValueError, match="lack a usable label"):
        make_loader(source, labels=LabelSpec(classes={"emotion": ("angry", "happy")}))
    assert next(iter(make_loader(source, labels=None))).labels == {}
    with pytest.raises(ValueError, match="segments=0"):
        make_loader(source, segments=0)
    manifest = read_manifest(make_corpus(tmp_path, 2).path)
    assert len(make_loader(ManifestSource(manifest), batch_size=8)) == 1
