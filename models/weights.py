"""Pretrained weights from a local folder or the usual caches; missing files are an error."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.options import UsageError

# torchvision's IMAGENET1K_V1; the names end in their SHA-256.
RESNETS = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
}
RESNET_URL = "https://download.pytorch.org/models/"
TEXT_FILES = "config.json, model.safetensors or pytorch_model.bin, vocab.txt"
# The text encoder that needs no download: ELECTRA's architecture; `readout` is ours, see
# `models.sequences.TextEncoder`.
TINY: dict[str, Any] = {
    "readout": "largest",
    "hidden_size": 64,
    "embedding_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
}


def resnet_state(name: str, folder: Path | None) -> dict[str, torch.Tensor]:
    """ImageNet weights of a ResNet from `folder`, or from torch's cache if it is None."""
    file, cache = RESNETS[name], Path(torch.hub.get_dir()) / "checkpoints"
    path = (folder or cache) / file
    if not path.is_file():
        raise UsageError(
            f"--weights needs {path}, which does not exist: download it from {RESNET_URL}{file}"
            " on a machine with a network, give --weights <folder with the file>, or --weights none"
        )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    wanted = file.rsplit("-", 1)[1].removesuffix(".pth")
    if not found.startswith(wanted):
        raise UsageError(f"{path} is damaged or not that file: its SHA-256 starts with {found[:8]}")
    return torch.load(path, map_location="cpu", weights_only=True)


def text_body(model: str, pretrained: bool, vocabulary_size: int, max_tokens: int) -> nn.Module:
    """The transformer of a text encoder.

    `model`: "tiny", a name on the Hugging Face hub (read from its cache), or a folder. Without
    `pretrained`, the same architecture with random weights; "tiny" has no pretrained ones.
    """
    import transformers

    if model == "tiny":
        config = transformers.ElectraConfig(
            vocab_size=vocabulary_size, max_position_embeddings=max(max_tokens, 16), **TINY
        )
        return transformers.ElectraModel(config)
    try:
        config = transformers.AutoConfig.from_pretrained(model, local_files_only=True)
        if not pretrained:
            return transformers.AutoModel.from_config(config)
        body, info = transformers.AutoModel.from_pretrained(
            model, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--text_model {model} is not on this machine ({str(error).splitlines()[0]}); put"
            f" {TEXT_FILES} into a folder and give --text_model <folder>, fetch it with"
            f" `hf download {model}` if there is a network, or use --text_model tiny"
        ) from None
    if info["missing_keys"]:
        raise UsageError(
            f"--text_model {model}: its weights lack {len(info['missing_keys'])} tensors, the first"
            f" {sorted(info['missing_keys'])[0]!r}: they belong to another model"
        )
    return body
