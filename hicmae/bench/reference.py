"""The authors' own models and training steps, from a checkout that the user has, with the weights of ours.

What runs is theirs from end to end: model, targets, losses, gradient scaler, optimiser groups, ``train_one_epoch``.

Shapes: B clips, T frames, N tokens, V visible tokens.
"""

from __future__ import annotations

import contextlib
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from hicmae.bench.batch import SyntheticBatch
from hicmae.bench.reference_checkout import Checkout, quiet
from hicmae.bench.steps import FINETUNING
from hicmae.config import ModelConfig
from hicmae.pretraining import HiCMAE
from hicmae.recognition import EmotionRecognizer
from hicmae.reference import to_reference
from hicmae.training.optim import OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the functions that make a model are called in the authors' code."""

    pretraining: str
    recognizer: str


PUBLISHED = {
    "small": Published(
        pretraining="pretrain_hicmae_dim384_patch16_160_a256", recognizer="avit_dim384_patch16_160_a256"
    ),
    "base": Published(pretraining="pretrain_hicmae_dim512_patch16_160_a256", recognizer="avit_dim512_patch16_160_a256"),
}
"""Presets of which both models are published."""
LABEL_SMOOTHING = 0.1
"""Of the paper's fine-tuning."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The authors' code, ready to make training steps of."""

    checkout: Checkout
    published: Published
    preset: str
    config: ModelConfig
    device: torch.device

    @classmethod
    def at(cls, path: str | Path, preset: str, device: torch.device | str) -> Self:
        """The code in a checkout. This runs the code in it.

        Args:
            path: folder of the checkout.
            preset: small or base.
            device: where the steps compute.

        Raises:
            ValueError: a preset that is not published, no checkout, or one whose functions have other names.
        """
        if preset not in PUBLISHED:
            why = "its model of pre-training is not published" if preset == "tiny" else "it is not one of the paper's"
            raise ValueError(
                f"preset={preset!r} cannot be compared with the authors' code: {why}; choose {' or '.join(PUBLISHED)}"
            )
        published, checkout = PUBLISHED[preset], Checkout.at(path)
        for module, name in (
            ("modeling_pretrain_av", published.pretraining),
            ("modeling_finetune_av", published.recognizer),
            ("engine_for_pretraining_av", "train_one_epoch"),
            ("engine_for_finetuning_av", "train_one_epoch"),
            ("optim_factory", "create_optimizer"),
            ("optim_factory", "LayerDecayValueAssignerForAudioVisual"),
            ("utils", "NativeScalerWithGradNormCount"),
        ):
            checkout.get(module, name)
        return cls(
            checkout=checkout,
            published=published,
            preset=preset,
            config=ModelConfig.preset(preset),
            device=torch.device(device),
        )

    def pretraining_step(self, model: HiCMAE, batch: SyntheticBatch) -> ReferenceSteps:
        """Their steps of pre-training on ``batch``, with the weights and the objective of ``model``.

        Raises:
            ValueError: their model takes other arguments or has other weights.
        """
        config, objective = self.config, model.objective
        theirs = self._model(
            "modeling_pretrain_av",
            self.published.pretraining,
            to_reference(model),
            drop_path_rate=0.0,
            encoder_depth=config.depth,
            encoder_depth_audio=config.depth,
            decoder_depth=config.decoder_depth,
            decoder_depth_audio=config.decoder_depth,
            encoder_fusion_depth=config.fusion_depth,
            inter_contrastive_temperature=objective.temperature,
            return_intermediate_features=config.taps,
        )
        train_one_epoch = self.checkout.get("engine_for_pretraining_av", "train_one_epoch")
        video_mask = _mask(batch.video_visible, config.video_tokens)
        audio_mask = _mask(batch.audio_visible, config.audio_tokens)
        recipe = OptimizerConfig()
        rate = recipe.peak_lr(len(batch.video))

        def epoch(optimizer: Any, scaler: Any) -> Mapping[str, float]:
            return train_one_epoch(
                theirs,
                [(batch.video, video_mask, batch.log_mel, audio_mask)],
                optimizer,
                self.device,
                0,
                scaler,
                max_norm=None,
                normlize_target=True,
                start_steps=0,
                lr_schedule_values=[rate],
                loss_weight=objective.contrastive_weight,
                use_frame_diff_as_target=objective.frame_difference,
            )

        return ReferenceSteps(
            model=theirs,
            epoch=epoch,
            optimizer=self._optimizer(theirs, recipe, rate),
            scaler=self._scaler(),
            device=self.device,
        )

    def finetuning_step(self, model: EmotionRecognizer, batch: SyntheticBatch) -> ReferenceSteps:
        """Their steps of fine-tuning on ``batch``, with the weights of ``model``; no mixup, no stochastic depth.

        Raises:
            ValueError: as ``pretraining_step``, or the recogniser is not of a kind that they have.
        """
        config = self.config
        theirs = self._model(
            "modeling_finetune_av",
            self.published.recognizer,
            to_reference(model),
            num_classes=len(model.targets.classes),
            all_frames=config.num_frames,
            tubelet_size=config.tubelet_size,
            drop_path_rate=0.0,
            init_scale=1.0,
            depth=config.depth,
            depth_audio=config.depth,
            fusion_depth=config.fusion_depth,
        )
        train_one_epoch = self.checkout.get("engine_for_finetuning_av", "train_one_epoch")
        recipe = FINETUNING
        rate = recipe.peak_lr(len(batch.video))
        criterion = nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)

        def epoch(optimizer: Any, scaler: Any) -> Mapping[str, float]:
            return train_one_epoch(
                theirs,
                criterion,
                [((batch.video, batch.log_mel), batch.labels, None, None)],
                optimizer,
                self.device,
                0,
                scaler,
                max_norm=None,
                start_steps=0,
                lr_schedule_values=[rate],
                num_training_steps_per_epoch=1,
                update_freq=1,
            )

        layers = config.depth + config.fusion_depth
        scales = [recipe.layer_decay ** (layers + 1 - layer) for layer in range(layers + 2)]
        assigner = self.checkout.get("optim_factory", "LayerDecayValueAssignerForAudioVisual")(scales, config.depth)
        return ReferenceSteps(
            model=theirs,
            epoch=epoch,
            optimizer=self._optimizer(theirs, recipe, rate, assigner),
            scaler=self._scaler(),
            device=self.device,
        )

    def _model(self, module: str, name: str, weights: Mapping[str, Tensor], **arguments: Any) -> nn.Module:
        make = self.checkout.get(module, name)
        try:
            with quiet():
                model: nn.Module = make(**arguments)
        except TypeError as error:
            raise ValueError(f"{name} of {self.checkout.path} takes other arguments than expected: {error}") from error
        try:
            model.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise ValueError(f"the model of {self.checkout.path} has other weights than ours: {error}") from error
        return model.to(self.device)

    def _optimizer(
        self, model: nn.Module, recipe: OptimizerConfig, rate: float, assigner: Any = None
    ) -> torch.optim.Optimizer:
        arguments = Namespace(
            opt="adamw", lr=rate, weight_decay=recipe.weight_decay, opt_eps=recipe.eps, opt_betas=recipe.betas
        )
        by_layer = {} if assigner is None else dict(
            get_num_layer=assigner.get_layer_id, get_layer_scale=assigner.get_scale
        )  # fmt: skip
        with quiet():
            return self.checkout.get("optim_factory", "create_optimizer")(arguments, model, **by_layer)

    def _scaler(self) -> Any:
        with quiet():
            scaler = self.checkout.get("utils", "NativeScalerWithGradNormCount")()
        if self.device.type != "cuda":
            # What torch itself makes of theirs where there is no CUDA; their engine asks for a scale all the same.
            scaler._scaler = torch.amp.GradScaler("cpu", enabled=False)
            scaler.state_dict = lambda: {"scale": 1.0}
        return scaler


class ReferenceSteps:
    """Training steps of the authors' code on one batch.

    Args:
        model: theirs.
        epoch: their ``train_one_epoch`` over that batch, given an optimiser and a scaler.
        optimizer, scaler: theirs.
        device: where the model is.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        epoch: Callable[[Any, Any], Mapping[str, float]],
        optimizer: torch.optim.Optimizer,
        scaler: Any,
        device: torch.device,
    ) -> None:
        self.model = model
        self._epoch = epoch
        self._optimizer = optimizer
        self._scaler = scaler
        self._device = device

    def whole(self) -> float:
        """Their whole step, weights changed: the loss before it."""
        return self._run(self._optimizer, self._scaler)

    def forward_backward(self) -> float:
        """Their targets, model, loss and backward pass, without scaler and optimiser: the loss."""
        return self._run(_NoOptimizer(self.model), _NoScaler())

    def full_precision_loss(self) -> float:
        """As ``forward_backward``, without the autocast that their step does on a GPU; no gradients are left."""
        with _full_precision():
            loss = self.forward_backward()
        self.model.zero_grad(set_to_none=True)
        return loss

    def _run(self, optimizer: Any, scaler: Any) -> float:
        with quiet(), _no_device_to_wait_for(self._device):
            return float(self._epoch(optimizer, scaler)["loss"])


class _NoOptimizer:
    """In the optimiser's place: clears gradients and changes nothing."""

    def __init__(self, model: nn.Module) -> None:
        self.param_groups: list[dict[str, Any]] = []
        self._model = model

    def zero_grad(self) -> None:
        self._model.zero_grad(set_to_none=True)


class _NoScaler:
    """In the scaler's place: the backward pass alone."""

    def __call__(self, loss: Tensor, *_: object, **__: object) -> None:
        loss.backward()

    def state_dict(self) -> dict[str, float]:
        return {"scale": 1.0}


def _mask(visible: Tensor, tokens: int) -> Tensor:
    """Their masks: int64 (B, V) -> bool (B, N), true where a token is masked."""
    return torch.ones(len(visible), tokens, dtype=torch.bool, device=visible.device).scatter_(1, visible, False)


@contextlib.contextmanager
def _no_device_to_wait_for(device: torch.device) -> Iterator[None]:
    """Their engines wait for a GPU after each step, also where there is none."""
    before = torch.cuda.synchronize
    if device.type != "cuda":
        torch.cuda.synchronize = lambda device=None: None
    try:
        yield
    finally:
        torch.cuda.synchronize = before


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    autocast, convolutions = torch.cuda.amp.autocast, torch.backends.cudnn.allow_tf32
    torch.cuda.amp.autocast = contextlib.nullcontext  # type: ignore[misc, assignment]
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.cuda.amp.autocast, torch.backends.cudnn.allow_tf32 = autocast, convolutions  # type: ignore[misc]
