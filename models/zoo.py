"""Convolutional and transformer trunks from timm and transformers, by name.

`timm:<name>` is a model of timm (optional: requirements-timm.txt), `hf:<name or folder>` one of
transformers that reads pictures (`pixel_values`) or spectrograms (`input_values`, [B, T, F]).
Weights come from the caches of these libraries or from a folder, never from a network.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.files import shown
from common.options import UsageError, unknown


class TimmTrunk(nn.Module):
    """A timm model without classifier: [B, C, H, W] -> its pooled features [B, D, 1, 1].

    `folder`: where <name>.safetensors or <name>.pth is; None: timm's cache. Raises `UsageError` for
    an unknown name, missing weights, or if timm is not installed.
    """

    def __init__(self, name: str, channels: int, pretrained: bool, folder: Path | None):
        super().__init__()
        try:
            import timm
        except ImportError:
            raise UsageError(
                "--encoder timm: needs: pip install -r requirements-timm.txt"
            ) from None
        if not timm.is_model(name):
            raise unknown("timm model", name, timm.list_models())
        how: dict[str, Any] = {"num_classes": 0, "in_chans": channels, "pretrained": pretrained}
        if pretrained and folder:
            how["pretrained_cfg_overlay"] = {"file": str(weight_file(folder, name))}
        any_size: dict[str, Any] = {"dynamic_img_size": True, "dynamic_img_pad": True}
        try:
            try:  # transformers with a fixed input size then take any
                self.net = timm.create_model(name, **any_size, **how)
            except TypeError:
                self.net = timm.create_model(name, **how)
        except (OSError, RuntimeError) as error:
            raise UsageError(
                f"--encoder timm:{name} has no weights on this machine"
                f" ({str(error).splitlines()[0]}): give --weights <folder> or --weights none"
            ) from None
        self.name = name
        self.width = getattr(self.net, "head_hidden_size", None) or self.net.num_features

    def forward(self, x: Tensor) -> Tensor:
        try:
            return self.net(x)[:, :, None, None]
        except AssertionError as error:  # how timm's models refuse a size
            raise unfit(f"timm:{self.name}", x, str(error)) from None


def unfit(encoder: str, x: Tensor, why: str) -> UsageError:
    """The error for inputs of a size that an encoder does not take."""
    size = " x ".join(map(str, x.shape[2:]))
    return UsageError(
        f"--encoder {encoder} does not take inputs of {size} ({shown(why, 120)}): use another"
        " encoder for this modality, such as small,video=timm:<name>"
    )


def weight_file(folder: Path, name: str) -> Path:
    """<name>.safetensors or <name>.pth in a folder."""
    for ending in (".safetensors", ".pth"):
        if (folder / f"{name}{ending}").is_file():
            return folder / f"{name}{ending}"
    raise UsageError(f"{folder} has no {name}.safetensors or {name}.pth")


class HubTrunk(nn.Module):
    """A model of transformers: [B, C, H, W] -> its pooled features [B, D, 1, 1].

    `name` is read from the cache, or is a folder. Raises `UsageError` if it is not there, or reads
    neither pictures of `channels` channels nor spectrograms.
    """

    def __init__(self, name: str, channels: int, pretrained: bool):
        super().__init__()
        import transformers

        try:
            config = transformers.AutoConfig.from_pretrained(name, local_files_only=True)
            load = transformers.AutoModel
            self.net: Any = (
                load.from_pretrained(name, local_files_only=True)
                if pretrained
                else load.from_config(config)
            )
        except (OSError, ValueError) as error:
            raise UsageError(
                f"--encoder hf:{name} is not on this machine ({str(error).splitlines()[0]}): give a"
                f" folder, or fetch it with `hf download {name}` if there is a network"
            ) from None
        reads = self.net.main_input_name
        takes = getattr(config, "num_channels", 1)
        if reads not in ("pixel_values", "input_values") or takes != channels:
            what = f"reads {reads} with {takes} channel(s)"
            raise UsageError(f"--encoder hf:{name} {what}; this modality has {channels}")
        self.name, self.spectrogram = name, reads == "input_values"
        sizes = getattr(config, "hidden_sizes", None)
        self.width = sizes[-1] if sizes else config.hidden_size

    def forward(self, x: Tensor) -> Tensor:
        given = {"pixel_values": x}
        if self.spectrogram:  # [B, 1, F, T] -> [B, T, F]
            given = {"input_values": x[:, 0].transpose(1, 2)}
        try:
            out = self.net(**given)
        except torch.OutOfMemoryError:
            raise
        except (ValueError, RuntimeError) as error:  # how transformers' models refuse a size
            if "size" not in str(error):
                raise
            raise unfit(f"hf:{self.name}", x, str(error)) from None
        pooled = getattr(out, "pooler_output", None)
        if pooled is None:
            last = out.last_hidden_state
            pooled = last.mean(1) if last.ndim == 3 else last.mean((2, 3))
        return pooled.flatten(1)[:, :, None, None]
