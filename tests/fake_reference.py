"""A folder that looks to ``hicmae bench --against`` like a checkout of the authors' code, and computes as ours does."""

from __future__ import annotations

from pathlib import Path

MODELING_PRETRAIN = """
from modeling_finetune_av import Wrapped, visible_tokens
from timm.models.registry import register_model
from hicmae.config import ModelConfig
from hicmae.pretraining import HiCMAE


class Pretraining(Wrapped):
    def forward(self, video, video_mask, log_mel, audio_mask):
        output = self.inner(video, log_mel, visible_tokens(video_mask), visible_tokens(audio_mask))
        return output.video_loss + output.audio_loss, output.contrastive_loss


@register_model
def pretrain_fake(**arguments):
    return Pretraining(HiCMAE(ModelConfig.preset("micro")), arguments)
"""

MODELING_FINETUNE = """
from torch import nn
from timm.models.layers import drop_path, to_2tuple, trunc_normal_
from timm.models.registry import register_model
from hicmae.backbone import Backbone
from hicmae.config import ModelConfig
from hicmae.heads import categorical
from hicmae.recognition import EmotionRecognizer
from hicmae.reference.names import our_name, our_value


class Wrapped(nn.Module):
    def __init__(self, inner, arguments):
        super().__init__()
        self.inner = inner
        self.arguments = arguments

    def load_state_dict(self, state, strict=True):
        ours = {our_name(name): our_value(our_name(name), value) for name, value in state.items()}
        missing, unexpected = self.inner.load_state_dict(ours, strict=False)
        if unexpected or not all(name.endswith("layer_weights") for name in missing):
            raise RuntimeError(f"{missing} {unexpected}")


class Recognizer(Wrapped):
    def forward(self, video, log_mel):
        return self.inner(video, log_mel).logits


def visible_tokens(mask):
    return (~mask).nonzero()[:, 1].view(len(mask), -1)


@register_model
def avit_fake(num_classes, **arguments):
    print("making a model")
    return Recognizer(EmotionRecognizer(Backbone(ModelConfig.preset("micro")), categorical(num_classes)), arguments)
"""

_STEP = """
            for group in optimizer.param_groups:
                group["lr"] = lr_schedule_values[start_steps + step] * group["lr_scale"]
            optimizer.zero_grad()
            loss_scaler(loss, optimizer, clip_grad=max_norm, parameters=model.parameters())
            print("scale", loss_scaler.state_dict()["scale"])
            torch.cuda.synchronize()
        return {"loss": loss.item()}
"""

ENGINE_PRETRAIN = f"""
import torch
import utils

def train_one_epoch(model, data_loader, optimizer, device, epoch, loss_scaler, max_norm=0, normlize_target=True,
                    start_steps=None, lr_schedule_values=None, loss_weight=0.1, use_frame_diff_as_target=False):
        assert normlize_target and use_frame_diff_as_target
        for step, (video, video_mask, log_mel, audio_mask) in enumerate(data_loader):
            with torch.cuda.amp.autocast():
                mse, contrastive = model(video, video_mask.flatten(1).to(torch.bool), log_mel, audio_mask)
                loss = mse + loss_weight * contrastive
{_STEP}
"""

ENGINE_FINETUNE = f"""
import torch
import utils
from scipy.special import softmax
from timm.utils import accuracy, ModelEma

def train_one_epoch(model, criterion, data_loader, optimizer, device, epoch, loss_scaler, max_norm=0, start_steps=None,
                    lr_schedule_values=None, num_training_steps_per_epoch=None, update_freq=None):
        assert num_training_steps_per_epoch == update_freq == 1
        for step, ((video, log_mel), labels, _, _) in enumerate(data_loader):
            with torch.cuda.amp.autocast():
                loss = criterion(model(video, log_mel), labels)
{_STEP}
"""

OPTIM_FACTORY = """
import torch
from timm.optim.adafactor import Adafactor
from timm.optim.nadam import Nadam
from timm.optim.radam import RAdam


class LayerDecayValueAssignerForAudioVisual:
    def __init__(self, values, num_modality_specific_layers):
        self.values = values

    def get_scale(self, layer):
        return self.values[layer]

    def get_layer_id(self, name):
        return 0 if "embed" in name else len(self.values) - 1


def create_optimizer(args, model, get_num_layer=None, get_layer_scale=None):
    assert args.opt == "adamw" and args.weight_decay == 0.05
    groups = []
    for name, parameter in model.named_parameters():
        scale = get_layer_scale(get_num_layer(name)) if get_num_layer else 1.0
        groups.append({"params": [parameter], "lr_scale": scale, "weight_decay": 0.0, "name": name})
    return torch.optim.AdamW(groups, lr=args.lr, betas=args.opt_betas, eps=args.opt_eps)
"""

UTILS = """
import torch
from tensorboardX import SummaryWriter
from torch._six import inf


class NativeScalerWithGradNormCount:
    def __init__(self):
        self._scaler = torch.cuda.amp.GradScaler()

    def __call__(self, loss, optimizer, clip_grad=None, parameters=None):
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(optimizer)
        if clip_grad is not None:
            torch.nn.utils.clip_grad_norm_(parameters, clip_grad)
        self._scaler.step(optimizer)
        self._scaler.update()

    def state_dict(self):
        return self._scaler.state_dict()
"""

FILES = {
    "modeling_pretrain_av": MODELING_PRETRAIN,
    "modeling_finetune_av": MODELING_FINETUNE,
    "engine_for_pretraining_av": ENGINE_PRETRAIN,
    "engine_for_finetuning_av": ENGINE_FINETUNE,
    "optim_factory": OPTIM_FACTORY,
    "utils": UTILS,
}


def write_checkout(folder: Path, **changed: str) -> Path:
    """Write the files into ``folder``; some with other contents, by the module's name."""
    for name, text in (FILES | changed).items():
        (folder / f"{name}.py").write_text(text)
    return folder
