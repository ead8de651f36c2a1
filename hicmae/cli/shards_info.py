"""What ``hicmae shards info`` shows: counts, sizes, labels, quality, and a sheet of clips."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from hicmae.data.shard_index import ShardIndex
    from hicmae.figures.contact_sheet import SheetClip


def info_table(index: ShardIndex, title: str) -> Table:
    """The index in two columns."""
    from rich.table import Table

    totals, clips = index.totals(), index.clips
    table = Table(show_header=False, title=title)
    table.add_row(
        "clips", f"{totals['samples']} ({totals['with_video']} with picture, {totals['with_audio']} with sound)"
    )
    table.add_row("shards", _shards(index))
    table.add_row("stored as", str(index.storage))
    for role in ("video", "audio"):
        if text := _sizes(index, role):
            table.add_row("picture files" if role == "video" else "sound files", text)
    lengths = sorted(value for value in clips.values("duration_s") if value is not None)
    if lengths:
        table.add_row(
            "durations",
            f"{totals['seconds'] / 3600:.2f} hours; clips of {lengths[0]:.2f} to {lengths[-1]:.2f} s, "
            f"median {lengths[len(lengths) // 2]:.2f} s",
        )
    if index.quality:
        table.add_row("quality", quality_text(index.quality))
    table.add_row("subjects", str(len({subject for subject in clips.values("subject") if subject})))
    table.add_row("splits", counts_text([split or "(none)" for split in clips.values("split")]))
    for name in clips.label_names:
        values = [value for value in clips.values(f"label:{name}") if value is not None]
        numbers = [value for value in values if isinstance(value, float)]
        text = f"{min(numbers):g} to {max(numbers):g} ({len(numbers)} clips)" if numbers else counts_text(values)
        table.add_row(name, text)
    table.add_row("rejected", f"{totals['rejected']}  {counts_text([reject.reason for reject in index.rejected])}")
    table.add_row("made by", ", ".join(f"{name}={value}" for name, value in index.made_by.items()))
    return table


def quality_text(quality: dict[str, Any]) -> str:
    """One line for what was measured."""
    parts = []
    for key, name in (("luma_psnr_db", "luma PSNR"), ("sound_snr_db", "sound SNR")):
        if key in quality:
            parts.append(f"{name} {quality[key]['mean']:.1f} dB (lowest {quality[key]['min']:.1f})")
    return f"{', '.join(parts)}; measured on {quality['clips']} clips"


def counts_text(values: list[str]) -> str:
    """How often each value occurs, the most frequent first."""
    counts = Counter(values).most_common()
    more = f", and {len(counts) - 20} more" if len(counts) > 20 else ""
    return ", ".join(f"{value} {count}" for value, count in counts[:20]) + more


def sheet_clips(folder: Path, count: int) -> list[SheetClip]:
    """Clips drawn at random, always the same ones, decoded as in evaluation: the window in the middle."""
    import torch

    from hicmae.config import InputSpec
    from hicmae.data.order import generator
    from hicmae.data.shard_source import ShardSource
    from hicmae.data.source import ClipUnreadableError
    from hicmae.figures.contact_sheet import SheetClip
    from hicmae.media.clip import DecodeError
    from hicmae.media.decode import decode_clip
    from hicmae.media.log_mel import LogMel

    source, spec = ShardSource(folder), InputSpec()
    log_mel = LogMel(spec)
    clips = []
    for number in sorted(generator("sheet").permutation(len(source))[:count].tolist()):
        info = source.info(number)
        title = " ".join(filter(None, (info.clip_id, str(info.labels.get("emotion", "")))))
        try:
            stored = source.read(number)
            clip = decode_clip(
                stored.video, stored.audio, spec=spec, span_s=stored.span_s, square=stored.square, name=info.clip_id
            )
        except (DecodeError, ClipUnreadableError) as error:
            clips.append(SheetClip(title=title, frames=None, log_mel=None, problem=str(error)))
            continue
        spectrogram = None
        if clip.has_audio:
            sound = torch.from_numpy(clip.waveform)[None]
            spectrogram = log_mel(sound, torch.tensor([clip.sound_samples]))[0, 0].numpy()
        clips.append(SheetClip(title=title, frames=clip.video if clip.has_video else None, log_mel=spectrogram))
    return clips


def _shards(index: ShardIndex) -> str:
    sizes = [shard.bytes for shard in index.shards]
    if not sizes:
        return "0"
    return f"{len(sizes)}, {sum(sizes) / 1e6:.1f} MB; {min(sizes) / 1e6:.1f} to {max(sizes) / 1e6:.1f} MB each"


def _sizes(index: ShardIndex, role: str) -> str:
    """Count and mean size of the members of a role, by extension."""
    sizes: dict[str, list[int]] = {}
    rows = zip(index.clips.values(f"{role}_extension"), index.clips.values(f"{role}_bytes"), strict=True)
    for extension, size in rows:
        if extension is not None:
            sizes.setdefault(extension, []).append(size)
    return ", ".join(
        f"{len(values)} {extension} of {sum(values) / len(values) / 1024:.1f} KiB on average"
        for extension, values in sizes.items()
    )
