"""Encoders from timm and transformers: outputs, weights from folders, refusals."""

import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file

from common.options import UsageError
from models.build import Choice, Stream, build_classifier, encoders_of
from models.zoo import HubTrunk

PICTURE = Stream("image", ([0.5] * 3, [0.25] * 3))
SOUND = Stream("audio", (0.0, 1.0), 1)
NAME = "test_vit"


def model_of(encoder, streams, weights="none", seed=0):
    return build_classifier(streams, 4, Choice(encoder, weights=weights), seed=seed)


def vit(folder, channels=3):
    """A tiny random model of pictures of 32 pixels, in a folder."""
    small = dict(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    config = transformers.ViTConfig(image_size=32, patch_size=8, num_channels=channels, **small)
    transformers.ViTModel(config).save_pretrained(folder)
    return str(folder)


def spectrogram_transformer(folder):
    """A tiny random model of spectrograms of 40 frames and 16 bands, in a folder."""
    small = dict(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    config = transformers.ASTConfig(num_mel_bins=16, max_length=40, patch_size=8, **small)
    transformers.ASTModel(config).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_a_model_of_timm_reads_pictures_frames_and_spectrograms(name):
    streams = {"audio": SOUND, "image": PICTURE, "video": Stream("video", PICTURE.normalise)}
    model = model_of(f"timm:{name}", streams).eval()
    inputs = {
        "audio": torch.randn(2, 1, 48, 64),
        "image": torch.randint(0, 255, (2, 1, 3, 48, 48)),
        "video": torch.randint(0, 255, (2, 2, 3, 48, 48)),
    }
    width = timm.create_model(name, num_classes=0)(torch.zeros(1, 3, 160, 160)).shape[1]
    features = model.encode(inputs)
    assert {m: tuple(f.shape) for m, f in features.items()} == dict.fromkeys(inputs, (2, width))
    assert model.widths == dict.fromkeys(inputs, width)
    model.fuse(features).sum().backward()
    assert all(p.grad is not None for p in model.encoders.parameters())


def test_weights_of_timm_come_from_a_folder_and_a_missing_file_is_named(tmp_path):
    own = timm.create_model(NAME, num_classes=0)
    save_file(own.state_dict(), tmp_path / f"{NAME}.safetensors")
    model = model_of(f"timm:{NAME}", {"image": PICTURE, "audio": SOUND}, str(tmp_path))
    loaded = model.encoders["image"].trunk.net.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in own.state_dict().items())
    with pytest.raises(UsageError, match="has no test_vit2.safetensors or test_vit2.pth"):
        model_of("timm:test_vit2", {"image": PICTURE}, str(tmp_path))


def test_models_of_transformers_from_a_folder(tmp_path):
    folder, sounds = vit(tmp_path / "vit"), spectrogram_transformer(tmp_path / "ast")
    streams = {"image": PICTURE, "audio": SOUND}
    model = model_of(f"hf:{folder},audio=hf:{sounds}", streams, "pretrained").eval()
    for m, cls, path in (("image", transformers.ViTModel, folder),
                         ("audio", transformers.ASTModel, sounds)):  # fmt: skip
        own = cls.from_pretrained(path).state_dict()
        loaded = model.encoders[m].trunk.net.state_dict()
        assert all(torch.equal(value, loaded[key]) for key, value in own.items())
    inputs = {"image": torch.randint(0, 255, (2, 1, 3, 32, 32)), "audio": torch.randn(2, 1, 16, 40)}
    assert {m: f.shape for m, f in model.encode(inputs).items()} == dict.fromkeys(inputs, (2, 24))


def test_what_a_model_of_transformers_cannot_read_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"reads pixel_values with 3 channel\(s\).*has 1"):
        HubTrunk(vit(tmp_path / "vit"), 1, False)
    bert = transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    bert.save_pretrained(tmp_path / "bert")
    with pytest.raises(UsageError, match="reads input_ids"):
        HubTrunk(str(tmp_path / "bert"), 1, False)


def test_encoders_are_named_for_all_or_for_one_modality():
    kinds = {"audio": "audio", "film": "video", "title": "text"}
    named = encoders_of("small,film=timm:x", kinds)
    assert named["audio"] == "small" and named["film"] == "timm:x"
    for text, message in (
        ("resnet", "unknown encoder 'resnet'"),
        ("small,a=small", "unknown modality 'a'"),
        ("small,film=small,film=resnet18", "names two for film"),
        ("small,title=small", "--encoder title=small"),
        ("film=small", "names none for audio"),
    ):
        with pytest.raises(UsageError, match=message):
            encoders_of(text, kinds)
