"""PowMix(R): a RECONSTRUCTION of PowMix, not its published algorithm. Tables label it PowMix(R).

PowMix (Georgiou, Avrithis, Potamianos; IEEE/ACM TASLP 2024, arXiv 2312.12334) regularises a
multimodal model: it mixes the embeddings of a batch within each modality, before the fusion, and
trains on the mixtures. We could read its abstract only, and its repository (efthymisgeo/powmix)
holds no code. The abstract names five components; every formula below is an inference, partly after
MultiMix (Venkataramanan et al., NeurIPS 2023), which shares an author. docs/methods.md has the
reasons. Z^m [B, D_m] are embeddings, Y [B, C] one-hot labels; each component has a flag:

    1  number       `PowMix.forward`  n = rows * B mixed rows a step
       factors      `draw_factors`    Lambda_k^m ~ Dirichlet(a, ..., a), one vector a row k
    2  reweight     `reweight`        Gamma_kj = Lambda_kj a_j / sum_l Lambda_kl a_l (off: Lambda)
                    `log_attention`   a = softmax_i(<Z_i, mean_j Z_j> / sqrt(D))
    3  anisotropic  `PowMix._draw`    Lambda^m for each modality                (off: one for all)
    4  dynamic      `draw_mixed`      each row mixes a random non-empty set of modalities,
                    `leave_unmixed`   the others keep an anchor's embedding     (off: all mix)
    5  label        `mixed_targets`   Yhat = (mean_m Gamma^m) Y                 (off: first Gamma)
       loss         `PowMix.forward`  CE(g_f(Z), y) + w softCE(g_f(Gamma Z), Yhat)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.options import UsageError, option
from methods.base import Batch, Features, Logs, Method
from methods.ops import accuracy, dirichlet

NAMED = "named in PowMix's abstract, form inferred"


def draw_factors(
    rows: int, batch: int, concentration: float, generator: torch.Generator, tuple_length: int = 0
) -> Tensor:
    """Lambda [n, B]: each row a symmetric Dirichlet on a random tuple of samples, 0 elsewhere.

    A tuple has `tuple_length` samples, or the whole batch if that is 0 or larger than the batch.
    """
    length = min(tuple_length or batch, batch)
    weights = dirichlet(concentration, (rows, length), generator)
    noise = torch.rand(rows, batch, generator=generator, device=weights.device)
    places = noise.topk(length, dim=1).indices  # distinct samples in random order
    return torch.zeros_like(noise).scatter(1, places, weights)


def log_attention(z: Tensor) -> Tensor:
    """log a [B] of embeddings [B, D]: log-softmax of <Z_i, mean_j Z_j> / sqrt(D); no gradient."""
    z = z.detach()
    return F.log_softmax(z @ z.mean(0) / z.shape[1] ** 0.5, dim=0)


def reweight(factors: Tensor, log_a: Tensor) -> Tensor:
    """Gamma [n, B] = Lambda a with normalised rows; factors [n, B], log_a [B].

    The softmax of logarithms avoids 0 / 0 where the attention underflows; a factor of 0 stays 0.
    """
    return torch.softmax(factors.log() + log_a, dim=1)


def draw_mixed(rows: int, modalities: int, p: float, generator: torch.Generator) -> Tensor:
    """S [n, M] bool: each modality with probability p, given that a row's set is not empty.

    Drawn modality by modality. After an earlier member the chance is p; without one it is
    p / (1 - (1 - p)^left), the chance of being a member given that one of the `left` remaining ones
    is. The distribution is that of drawing again while a set is empty.
    """
    u = torch.rand(rows, modalities, generator=generator, device=generator.device)
    some, columns = torch.zeros_like(u[:, 0], dtype=torch.bool), []
    for m in range(modalities):
        left = modalities - m
        first = p / (1 - (1 - p) ** left) if left > 1 else 1.0
        columns.append(u[:, m] < torch.where(some, p, first))
        some = some | columns[-1]
    return torch.stack(columns, dim=1)


def leave_unmixed(gamma: Tensor, mixed: Tensor, anchor: Tensor) -> Tensor:
    """Gamma [n, B] with the rows outside `mixed` [n] replaced by onehot(anchor), anchor [n]."""
    own = anchor[:, None] == torch.arange(gamma.shape[1], device=gamma.device)
    return torch.where(mixed[:, None], gamma, own.to(gamma.dtype))


def mixed_targets(
    gammas: Sequence[Tensor], y: Tensor, classes: int, cross_modal: bool = True
) -> Tensor:
    """Yhat [n, C], rows sum to 1: the labels y [B] mixed by the mean of the modalities' gammas.

    gammas are M times [n, B]; without `cross_modal` the first one alone counts.
    """
    weights = torch.stack(tuple(gammas)).mean(0) if cross_modal else gammas[0]
    onehot = y[:, None] == torch.arange(classes, device=y.device)
    return weights @ onehot.to(weights.dtype)


class PowMix(Method):
    """Joint plus the soft cross-entropy of mixed rows (PowMix(R))."""

    min_modalities = 2

    @dataclass(frozen=True)
    class HParams:
        """The five components; all values are our choices."""

        rows: float = option(
            1.0, "component 1: mixed rows a step, as a multiple of the batch", above=0, source=NAMED
        )
        reweight: bool = option(True, "component 2: factors times attention", source=NAMED)
        anisotropic: bool = option(True, "component 3: factors for each modality", source=NAMED)
        dynamic: bool = option(True, "component 4: draw what a row mixes", source=NAMED)
        label: bool = option(
            True, "component 5: labels by all factors (off: by the first modality's)", source=NAMED
        )
        concentration: float = option(1.0, "a of Dirichlet(a, ..., a); small: sparse", above=0)
        tuple_length: int = option(
            0, "samples that a row mixes; 0: the whole batch; 2: pairs", low=0, source="MultiMix: 0"
        )
        p_mix: float = option(0.5, "probability that a modality is mixed", low=0.01, high=1)
        w: float = option(1.0, "weight of the mixed term", low=0)

    @classmethod
    def check(cls, hparams: HParams, epochs: int, modalities: list[str]) -> None:
        """Raises `UsageError` also for tuples of one sample."""
        super().check(hparams, epochs, modalities)
        if hparams.tuple_length == 1:
            raise UsageError(
                "--tuple_length 1 mixes nothing; it takes 0 (the whole batch), or 2 or more"
            )

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """L_align + w L_mix; the factors and targets carry no gradient."""
        y, hp = batch["label"], self.hparams
        f = self.model.encode(batch["inputs"])
        z = self.model.fuse(f)
        l_align = F.cross_entropy(z, y)
        gammas, mixed = self._draw(f, max(1, round(hp.rows * len(y))))
        targets = mixed_targets(list(gammas.values()), y, self.model.num_classes, hp.label)
        # A second call of g_f: one for all rows would change the last bits of z.
        z_mix = self.model.fuse({m: gammas[m] @ f[m] for m in f})
        l_mix = F.cross_entropy(z_mix, targets)
        logs = {
            "train/acc": accuracy(z, y),
            "train/L_align": l_align.detach(),
            "train/L_mix": l_mix.detach(),
            "train/target_entropy": torch.special.entr(targets).sum(1).mean(),
        }
        logs |= self.by_modality("train/peak", [g.amax(1).mean() for g in gammas.values()])
        logs |= self.by_modality("train/mixed", mixed.float().mean(0))
        return l_align + hp.w * l_mix, logs

    def _draw(self, features: Features, rows: int) -> tuple[Features, Tensor]:
        """(Gamma {m: [n, B]}, which modalities of which rows are mixed [n, M] bool)."""
        hp, draw, gammas, factors = self.hparams, self.generator, {}, None
        for m, z in features.items():
            batch = len(z)
            if factors is None or hp.anisotropic:
                factors = draw_factors(rows, batch, hp.concentration, draw, hp.tuple_length)
            gammas[m] = reweight(factors, log_attention(z)) if hp.reweight else factors
        if not hp.dynamic:
            return gammas, torch.ones(rows, len(features), dtype=torch.bool, device=draw.device)
        mixed = draw_mixed(rows, len(features), hp.p_mix, draw)
        order = torch.randperm(batch, generator=draw, device=draw.device)
        anchor = order[torch.arange(rows, device=draw.device) % batch]
        for k, m in enumerate(features):
            gammas[m] = leave_unmixed(gammas[m], mixed[:, k], anchor)
        return gammas, mixed
