"""`--recipe official`: the settings of the authors' release (commit d25b225).

A recipe replaces defaults; explicit flags override it. docs/recipe.md compares both recipes and
says which settings of the release are left out, and why.
"""

from typing import Any

from common.options import UsageError

# Training settings and preparation flags, for every method.
_SHARED: dict[str, Any] = {"split_rule": "release", "split_seed": None, "last_batch": "keep"}
_CLIPS = {"audio_feature": "fbank", "frame_choice": "release", "crop": "frame"}
_UCF = {"rgb_frames": "first6", "frame_choice": "release", "flip": "apart", "flow_norm": "release"}
SHARED: dict[str, dict[str, Any]] = {
    "cremad": _SHARED | _CLIPS,
    "kinetics": _SHARED | _CLIPS,
    "ucf101": _SHARED | {"lr": 1e-2} | _UCF,
    "food101": _SHARED
    | {"max_epochs": 30, "lr_step": 15, "image_width": 256, "max_tokens": 512}
    | {"text_model": "google/electra-small-discriminator", "text_clean": "release"},
}

# Hyperparameters of Midas, the only method that is complete in the release.
_MIDAS: dict[str, Any] = {
    "uni_reduce": "mean",
    "pairing": "permutation",
    "direction": "mean",
    "alpha_rule": "ratio",
    "alpha_reset": "start",
    "similarity": "cosine",
    "lam": 1.0,
    "warmup_epochs": 10,
    "lr_from": "main",
}
MIDAS: dict[str, dict[str, Any]] = {
    "cremad": _MIDAS,
    "kinetics": _MIDAS | {"lam": 5.0, "alpha_rule": "ratio_inverted", "alpha_cap": 10.0},
    "ucf101": _MIDAS,
    "food101": _MIDAS | {"warmup_epochs": 2, "lr_from": "start", "alpha_rule": "ratio_2over1"},
}


def values(recipe: str, dataset: str, method: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of a recipe: (settings and preparation, the method's hyperparameters)."""
    if recipe == "paper":
        return {}, {}
    if dataset not in SHARED:
        raise UsageError(
            f"--recipe {recipe}: the official release has no {dataset}; it has {', '.join(SHARED)}"
        )
    return SHARED[dataset], MIDAS[dataset] if method == "Midas" else {}
