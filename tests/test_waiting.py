"""Whole training steps without an operator that makes a GPU wait for the host, or the host for a GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hicmae.backbone import Backbone
from hicmae.config import InputSpec
from hicmae.heads import Targets
from hicmae.losses import dimensional_loss, soft_cross_entropy
from hicmae.media.batch_transform import BatchTransform
from hicmae.media.rand_augment import OPERATIONS, FrameOp
from hicmae.media.random_erasing import Erasure
from hicmae.recognition import EmotionRecognizer
from hicmae.training.optim import OptimizerConfig, build_optimizer
from tests.tiny_model import TINY, masks, pretraining_model
from tests.waiting import WaitsError, no_waiting

SPEC = InputSpec.for_model(TINY)
BOXES = torch.tensor([[0.0, 0.0, 40.0, 36.0], [2.0, 3.0, 30.0, 30.0]])


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: bool(x.any()),
        lambda x: float(x.mean()),
        lambda x: x[x > 0],
        lambda x: x.index_put_((x > 0,), torch.zeros(3)),
        lambda x: x.nonzero(),
        lambda x: x.masked_select(x > 0),
        lambda x: x.unique(),
        lambda x: torch.equal(x, x),
        lambda x: x.new_ones(3).cpu(),
        lambda x: torch.tensor([1.0, 2.0]),
    ],
)
def test_waiting_is_noticed(waits):
    x = torch.randn(3)
    with pytest.raises(WaitsError), no_waiting():
        waits(x)


def test_choosing_by_numbers_and_filling_do_not_wait():
    with no_waiting():
        x = torch.randn(3)[torch.arange(2)]
        x[x > 0] = 1.0


def clips() -> tuple[Tensor, Tensor]:
    """Two clips as workers ship them."""
    frames = torch.randint(0, 256, (2, TINY.num_frames, 48, 48, 3), dtype=torch.uint8)
    return frames, torch.randint(-3000, 3000, (2, SPEC.audio_samples), dtype=torch.int16)


def train_without_waiting(model: nn.Module, loss: Callable[[], Tensor]) -> None:
    """Two steps: the optimiser's first differs from the rest."""
    optimizer, schedule = build_optimizer(
        model, OptimizerConfig(layer_decay=0.75), global_batch=2, steps_per_epoch=2, epochs=10, depth=4, fusion_depth=2
    )
    for _ in range(2):
        with no_waiting():
            loss().backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()


def test_a_step_of_pre_training_never_waits():
    model, transform = pretraining_model(), BatchTransform(SPEC)
    (frames, waveform), visible = clips(), masks(2)
    present = torch.tensor([True, False])
    options = {"sound_samples": torch.tensor([40000, 9000]), "crop_box": BOXES, "flip": present, "gain": torch.rand(2)}

    def loss() -> Tensor:
        inputs = transform(frames, waveform, **options)
        result: Tensor = model(*inputs, *visible, has_video=present, has_audio=~present).loss
        return result

    train_without_waiting(model, loss)


def test_a_step_of_fine_tuning_never_waits():
    targets = Targets(classes=("sad", "glad", "mad"), dimensions=("valence", "arousal"))
    model, transform = EmotionRecognizer(Backbone(TINY, drop_path=0.5), targets), BatchTransform(SPEC)
    frames, waveform = clips()
    every_op = [FrameOp(name, operation.amount(0.7, 1.0)) for name, operation in OPERATIONS.items()]
    labels, values, weight = torch.tensor([[0.1, 0.9, 0.0], [0.0, 0.0, 1.0]]), torch.rand(2, 2), torch.rand(3)
    stripes = torch.tensor([[[0.0, 8.0, 0.0, 32.0]], [[0.0, 64.0, 4.0, 6.0]]])

    def loss() -> Tensor:
        erasures = [Erasure(1, 2, 9, 7, 3), None]
        video = transform.frames(frames, crop_box=BOXES, frame_ops=[every_op, []], erasures=erasures)
        output = model(video, transform.sound(waveform, stripes=stripes))
        classes = soft_cross_entropy(output.logits, labels, label_smoothing=0.1, weight=weight)
        return classes + dimensional_loss("ccc")(output.values, values)

    train_without_waiting(model, loss)
