"""What the sections share: the run, its data, and features of some of its clips, each made once and when needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from hicmae.report.predictions import ShownPredictions, shown_predictions
from hicmae.report.run import NotAvailableError, Run

if TYPE_CHECKING:
    from PIL import Image

    from hicmae.data.source import ClipSource
    from hicmae.report.clip_choice import ClipChoice
    from hicmae.report.clip_features import ClipFeatures
    from hicmae.report.reconstructions import Played


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """How much of a run is looked at again."""

    clips: int = 300
    """Clips that are decoded for feature maps and retrieval; 0: none, and no section that needs any."""
    animated: int = 4
    """Clips whose reconstruction plays."""
    device: str = "auto"
    """auto, cpu or cuda."""
    data: tuple[str, ...] = ()
    """Where the run's data are now: a manifest or shard folders; empty: where its configuration says."""

    def __post_init__(self) -> None:
        for name in ("clips", "animated"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class Material:
    """A run and what can be had of it. Properties raise ``NotAvailableError`` with the reason where they cannot."""

    run: Run
    settings: ReportSettings = field(default_factory=ReportSettings)

    @cached_property
    def predictions(self) -> ShownPredictions:
        """The predictions that scores are shown of."""
        return shown_predictions(self.run)

    @cached_property
    def source(self) -> ClipSource:
        """The run's clips."""
        from hicmae.report.clip_choice import open_data

        return open_data(self.run, self.settings.data)

    @cached_property
    def choice(self) -> ClipChoice:
        """The clips that are looked at again."""
        from hicmae.report.clip_choice import choose_clips

        self._refuse_none()
        return choose_clips(self.run, self.source, self._predictions_if_any(), self.settings.clips)

    @cached_property
    def features(self) -> ClipFeatures:
        """Features of these clips."""
        from hicmae.report.clip_features import compute_features

        numbers = self.choice.numbers
        return compute_features(self.run, self.source, numbers, device=self.device)

    @cached_property
    def played(self) -> Played:
        """Reconstructions of some of them."""
        from hicmae.report.reconstructions import play_clips

        if self.run.kind != "pretrain":
            raise NotAvailableError("reconstructions are of pre-training alone: fine-tuning leaves the decoders out")
        if not self.settings.animated:
            raise NotAvailableError("left out by --animated 0")
        numbers = self.choice.numbers
        return play_clips(self.run, self.source, numbers, self.settings.animated, device=self.device)

    def frames_of(self, clip_ids: Sequence[str]) -> dict[str, Image.Image]:
        """The frame in the middle of each of these clips that has a picture and can be decoded."""
        from collections import Counter

        from hicmae.config import InputSpec
        from hicmae.report.clip_features import decode_middles, small

        self._refuse_none()
        source, wanted = self.source, set(clip_ids)
        numbers = [number for number in range(len(source)) if source.info(number).clip_id in wanted]
        clips = decode_middles(source, numbers, InputSpec(), ("video",), Counter())
        return {info.clip_id: small(clip.video[len(clip.video) // 2]) for info, clip in clips}

    @property
    def device(self) -> str:
        """Where models run."""
        import torch

        if self.settings.device != "auto":
            return self.settings.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    def _refuse_none(self) -> None:
        if not self.settings.clips:
            raise NotAvailableError("left out by --clips 0")

    def _predictions_if_any(self) -> ShownPredictions | None:
        try:
            return self.predictions
        except NotAvailableError:
            return None
