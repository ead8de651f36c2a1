"""``from_pretrained``, ``save_pretrained`` and ``push_to_hub`` of the models, by huggingface_hub's mixin.

What they read and write is the exported folder of ``hicmae.exported``, on this disk or in a repository of a model hub.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from huggingface_hub import ModelHubMixin, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from hicmae.config import InputSpec, ModelConfig

if TYPE_CHECKING:  # these import the models
    from hicmae.backbone import Modality
    from hicmae.exported import Export
    from hicmae.transform import ClipTransform

_DOWNLOAD = frozenset(["revision", "token", "cache_dir", "force_download", "local_files_only"])


class HubModel(ModelHubMixin):
    """A model that is saved as an exported folder."""

    kind: ClassVar[Literal["backbone", "recognizer", "pretraining"]]
    config: ModelConfig
    modalities: tuple[Modality, ...]
    spec: InputSpec | None = None
    """The input that it was trained on; ``None``: the paper's timing at the size of ``config``."""
    origin: Export | None = None
    """What the folder said that the model was loaded from."""

    @property
    def transform(self) -> ClipTransform:
        """From a path or bytes of a media file to this model's inputs."""
        from hicmae.transform import ClipTransform

        return ClipTransform(self._spec, modalities=self.modalities)

    def came_from(self, export: Export) -> None:
        """Remember the folder that the model was loaded from."""
        self.spec, self.origin = export.spec, export

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **download: Any) -> Self:
        """The model of an exported folder, in evaluation mode; ``model.transform`` feeds it.

        Args:
            pretrained_model_name_or_path: a folder, or a repository of a model hub (``owner/name``).
            download: ``revision``, ``token``, ``cache_dir``, ``force_download``, ``local_files_only``, as
                huggingface_hub has them.

        Raises:
            FileNotFoundError, ValueError: as ``load_backbone``, ``load_recognizer`` and ``load_pretraining``.
        """
        if unknown := sorted(set(download) - _DOWNLOAD):
            raise TypeError(
                f"from_pretrained got {unknown}; beside the name it takes {sorted(_DOWNLOAD)}: the folder says the rest"
            )
        from hicmae import exported

        directory = Path(pretrained_model_name_or_path)
        if not directory.is_dir():
            directory = _download(directory, **download)
        load: Any = getattr(exported, f"load_{cls.kind}")
        return load(directory)[0]

    def save_pretrained(
        self, save_directory: str | Path, *, push_to_hub: bool = False, repo_id: str | None = None, **settings: Any
    ) -> str | None:
        """Write an exported folder (of a ``HiCMAE``, with its decoder); one that is there is replaced.

        Where the weights are those that were loaded, their provenance is kept; where they changed, it becomes that of
        what they are derived from.

        Args:
            save_directory: the folder.
            push_to_hub: upload it, too.
            repo_id: the repository then; by default it is named as the folder.
            settings: of ``push_to_hub``, as huggingface_hub has them.

        Returns:
            The URL of the commit, where it was pushed.

        Raises:
            ValueError: the folder exists and is no export.
        """
        from hicmae.export_folder import replacing

        directory = Path(save_directory).resolve()
        with replacing(directory) as draft:  # the mixin takes an older config.json away before it begins
            super().save_pretrained(draft)
        return self.push_to_hub(repo_id=repo_id or directory.name, **settings) if push_to_hub else None

    def _save_pretrained(self, save_directory: Path) -> None:
        from hicmae.exported import read_export, save_export

        def save(provenance: dict[str, Any]) -> None:
            model: Any = self
            pretraining = self.kind == "pretraining"
            save_export(
                save_directory,
                model.backbone if pretraining else model,
                spec=self._spec,
                provenance=provenance,
                decoder=model if pretraining else None,
            )

        save({} if self.origin is None else self.origin.provenance)
        if self.origin is None:
            return
        weights = {name: digest for name, digest in read_export(save_directory).sha256.items() if name != "README.md"}
        if weights != {name: digest for name, digest in self.origin.sha256.items() if name in weights}:
            save(self.origin.derived())

    @property
    def _spec(self) -> InputSpec:
        return self.spec or InputSpec.for_model(self.config)


def _download(name: Path, **options: Any) -> Path:
    """The files of an exported folder in a repository of a model hub, and no others."""
    from hicmae.exported import FILES

    if name.is_absolute() or len(name.parts) > 2:  # the name of no repository
        raise FileNotFoundError(f"no exported folder at {name}")
    try:
        return Path(snapshot_download(str(name), allow_patterns=list(FILES), **options))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError) as error:  # huggingface_hub says which
        error.add_note(f"There is no folder {name} here, so it was taken for a repository of a model hub.")
        raise
