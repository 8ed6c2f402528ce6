"""MMPareto: boosting multimodal learning with innocent unimodal assistance (Wei, Hu; ICML 2024,
arXiv 2405.17730).

Unimodal losses help weak modalities, but in an encoder their gradient may point against that of the
multimodal loss. In that case MMPareto takes the shortest convex combination of the two, which is a
descent direction of both, and restores the length that it lost. All encoder gradients are then
lengthened, since the noise of longer steps is said to help generalization.

    losses      L = CE(z, y) + sum_m CE(z^m, y), z^m = g_m(f^m)         `MMPareto.forward`
    gradients   of each encoder m: g_mul = grad CE(z, y), g_uni = grad CE(z^m, y)
    conflict    cos(g_mul, g_uni) <= 0, over all parameters of the encoder
    weights     a_mul = a_uni = 1/2, in conflict those that minimise    `multimodal_weight`
                |a_mul g_mul + a_uni g_uni| with a_mul + a_uni = 1
    direction   h = 2 a_mul g_mul + 2 a_uni g_uni                       `integrate`
    length      gradient = gamma max(1, |g_mul + g_uni| / |h|) h        `integrate`

Fusion layer and heads get their plain gradients. Evaluation is Joint's. We read the paper's
abstract and the authors' code (GeWu-Lab/MMPareto_ICML2024, commit a339db3: code/MMPareto.py,
min_norm_solvers.py), not the paper's equations. More in docs/methods.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.options import option
from methods.base import Batch, EpochPlan, Logs, Method, TrainingSet, choice
from methods.ops import accuracy, unimodal_accuracies

CODE = "the authors' code"


def inner(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Tensor:
    """The inner product, a scalar, of two lists of tensors with equal shapes."""
    return torch.stack([(x * y).sum() for x, y in zip(xs, ys, strict=True)]).sum()


def multimodal_weight(mul: Tensor, cross: Tensor, uni: Tensor) -> Tensor:
    """a_mul in [0, 1], from the scalars |g_mul|^2, <g_mul, g_uni> and |g_uni|^2."""
    # The code has bounds of 0.001 and 0.999, which only a zero gradient would reach in a conflict.
    least = (uni - cross) / (mul + uni - 2 * cross).clamp_min(torch.finfo(mul.dtype).tiny)
    return torch.where(cross > 0, 0.5, least)


def integrate(
    total: Sequence[Tensor], uni: Sequence[Tensor], weight: Tensor, gamma: float, scope: str
) -> list[Tensor]:
    """The gradients that replace `total` = g_mul + g_uni, one for each parameter of an encoder.

    `weight` is a_mul. Lengths are compared for each parameter tensor, or over the whole encoder.
    """
    # Equal to 2 a_mul g_mul + 2 a_uni g_uni. Without a conflict it is `total` to the last bit.
    h = [2 * weight * t + (2 - 4 * weight) * u for t, u in zip(total, uni, strict=True)]
    before, after = (torch.stack([torch.linalg.vector_norm(x) for x in xs]) for xs in (total, h))
    if scope == "encoder":
        before, after = torch.linalg.vector_norm(before), torch.linalg.vector_norm(after)
    longer = (before / after.clamp_min(1e-19)).clamp_min(1.0)
    factors = (gamma * longer).expand(len(h))
    return [factor * x for factor, x in zip(factors, h)]


class MMPareto(Method):
    """Joint and unimodal losses, whose gradients are integrated in each encoder."""

    needs_unimodal_heads = True
    min_modalities = 2

    @dataclass(frozen=True)
    class HParams:
        gamma: float = option(
            1.5, "factor on encoder gradients", above=0, source=CODE, search=(1.0, 2.0)
        )
        length: str = choice(
            "tensor encoder",
            "compare lengths for each weight tensor, or over an encoder",
            f"{CODE}; encoder: our choice",
        )

    def start_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        self.seen: list[Tensor] = []  # of each step: cosine, conflict and weight, [3, M]
        return None

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        y, modalities = batch["label"], self.model.modalities
        # Compiled encoders may overwrite what a second backward pass needs.
        with torch.compiler.set_stance("force_eager"):
            f = self.model.encode(batch["inputs"])
        z, z_uni = self.model.fuse(f), self.model.unimodal(f)
        l_align = self.cross_entropy(z, y)
        l_uni = self.unimodal_losses(z_uni, y)
        self.trained = {
            m: [p for p in self.model.encoder_parameters(m) if p.requires_grad] for m in modalities
        }
        # Encoder m gets a gradient from its own unimodal loss only, so one call serves all.
        parameters = [p for m in modalities for p in self.trained[m]]
        found = torch.autograd.grad(
            l_uni.sum(), parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        self.uni = dict(zip(parameters, found, strict=True))  # read by `after_backward`
        acc_uni = unimodal_accuracies(z_uni, y)
        logs = self.train_logs(acc=accuracy(z, y), L_align=l_align, L_uni=l_uni, acc_uni=acc_uni)
        return l_align + l_uni.sum(), logs

    @torch.no_grad()
    def after_backward(self) -> None:
        found = []
        for m in self.model.modalities:
            parameters = [p for p in self.trained[m] if p.grad is not None]
            total = [p.grad for p in parameters]
            uni = [self.uni[p] for p in parameters]
            mul = [t - u for t, u in zip(total, uni)]
            squares, cross = (inner(mul, mul), inner(uni, uni)), inner(mul, uni)
            weight = multimodal_weight(squares[0], cross, squares[1])
            integrated = integrate(total, uni, weight, self.hparams.gamma, self.hparams.length)
            for p, gradient in zip(parameters, integrated):
                p.grad.copy_(gradient)
            cosine = cross / (squares[0] * squares[1]).sqrt().clamp_min(1e-12)
            found.append(torch.stack([cosine, (cross <= 0).to(cosine), weight]))
        self.uni = {}  # frees the memory
        self.seen.append(torch.stack(found, dim=1))

    def end_epoch(self) -> Logs:
        """Means over the epoch's steps; `conflict` is the share of steps with one."""
        cosine, conflict, weight = torch.stack(self.seen).mean(0)
        return self.train_logs(cosine=cosine, conflict=conflict, weight_multimodal=weight)
