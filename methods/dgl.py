"""DGL: disentangled gradient learning ("Boosting Multimodal Learning via Disentangled Gradient
Learning", Wei, Luo, Luo; ICCV 2025, arXiv 2507.10213).

The fusion layer weakens the gradient that each encoder would get if it were trained alone, so even
the stronger modality stays behind its own unimodal model. DGL separates the two: the encoders learn
from unimodal losses only, the fusion layer from the joint loss only.

    joint output      `DGL.forward`         o = W [sg(f^1); ...; sg(f^M)] + b, sg: no gradient
    unimodal outputs  `zero_padded_logits`  s^m = sg(W_m) f^m + sg(b): the fused output with the
                                            other features set to zero
    loss              `DGL.forward`         L = CE(o, y) + alpha sum_m CE(s^m, y)
    clipping          `DGL.after_backward`  of the norm of the whole gradient

So CE(o) trains W and b, and CE(s^m) trains encoder m. `--joint_to_encoders on` and
`--uni_to_fusion on` each remove one of the two separations, and with `--heads own` the unimodal
losses come from separate linear heads, as in JointUni.

We could read the paper's abstract, a public summary of it, and the public code
(shicaiwei123/ICCV2025-GDL: main_dgl.py, models/fusion_modules.py), but not the equations. More in
docs/methods.md.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from common.options import UsageError, option
from methods.base import Batch, Logs, Method, choice
from methods.ops import accuracy, unimodal_accuracies, zero_padded_logits

CODE = "public code"


class DGL(Method):
    """The joint loss trains the fusion layer, the unimodal losses train the encoders."""

    min_modalities = 2
    needs_linear_fusion = True
    needs = {"uni_to_fusion": ("heads", "shared")}

    @dataclass(frozen=True)
    class HParams:
        alpha: float = option(
            4.0,
            "weight of the unimodal losses",
            low=0,
            source=f"{CODE}; its scripts: 4 and 5 for CREMA-D, 2 and 3 for Kinetics-Sounds",
            search=(0.5, 8.0, "log"),
        )
        clip: float = option(40.0, "gradient clipping norm; 0: off", low=0, source=CODE)
        heads: str = choice(
            "shared own",
            "unimodal outputs from the fusion layer's own weights, or from separate heads",
            f"{CODE}; own: our choice",
        )
        joint_to_encoders: bool = option(
            False, "the joint loss trains the encoders too", source="without DGL's first cut"
        )
        uni_to_fusion: bool = option(
            False, "the unimodal losses train the fusion layer too", source="without its second cut"
        )

    @classmethod
    def has_unimodal_heads(cls, hparams: HParams) -> bool:
        return hparams.heads == "own"

    @classmethod
    def check(cls, hparams: HParams, epochs: int, modalities: list[str]) -> None:
        super().check(hparams, epochs, modalities)
        if hparams.alpha == 0 and not hparams.joint_to_encoders:
            raise UsageError(
                "--alpha 0 leaves the encoders without a gradient;"
                " give a larger --alpha, or --joint_to_encoders on"
            )

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        y, hp = batch["label"], self.hparams
        f = self.model.encode(batch["inputs"])
        z = self.model.fuse(f if hp.joint_to_encoders else {m: x.detach() for m, x in f.items()})
        if hp.heads == "own":
            s = self.model.unimodal(f)
        else:
            s = zero_padded_logits(self.model, f, frozen=not hp.uni_to_fusion)
        l_align = self.cross_entropy(z, y)
        losses = self.unimodal_losses(s, y)
        acc_uni = unimodal_accuracies(s, y)
        logs = self.train_logs(acc=accuracy(z, y), L_align=l_align, L_uni=losses, acc_uni=acc_uni)
        # One backward pass of the sum gives the gradients of the code's two passes, which deletes
        # those of the fusion layer between them.
        return l_align + hp.alpha * losses.sum(), logs | self.train_logs(L_uni=losses.sum())

    def after_backward(self) -> None:
        if self.hparams.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters(), self.hparams.clip)
