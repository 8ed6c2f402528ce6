"""PowMix(R): a RECONSTRUCTION of PowMix, not its published algorithm. Tables label it PowMix(R).

PowMix (Georgiou, Avrithis, Potamianos; IEEE/ACM TASLP 2024, arXiv 2312.12334) mixes the embeddings
of a batch within each modality, before the fusion. We could only read its abstract; its repository
(efthymisgeo/powmix) holds no code. The abstract names five components; every formula below is an
inference, partly after MultiMix (NeurIPS 2023), which shares an author: docs/methods.md.
Z^m [B, D_m] are embeddings, Y [B, C] one-hot labels:

    1  number       `PowMix.forward`  n = rows * B mixed rows per step
       factors      `draw_factors`    Lambda_k^m ~ Dirichlet(a, ..., a), one vector [B] per row k
    2  reweight     `reweight`        Gamma_kj = Lambda_kj a_j / sum_l Lambda_kl a_l
                    `log_attention`   a = softmax_i(<Z_i, mean_j Z_j> / sqrt(D))
    3  anisotropic  `PowMix.forward`  Lambda^m for each modality
    4  dynamic      `draw_mixed`      each row mixes a random non-empty set of modalities; the
                                      others keep an anchor's embedding
    5  label        `PowMix.forward`  Yhat = (mean_m Gamma^m) Y
       loss         `PowMix.forward`  CE(g_f(Z), y) + w softCE(g_f(Gamma Z), Yhat)
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.options import option
from methods.base import Batch, Logs, Method
from methods.ops import accuracy, dirichlet


def onehot(index: Tensor, width: int) -> Tensor:
    """[R, width] float from index [R]; unlike `F.one_hot`, without a host read."""
    return (index[:, None] == torch.arange(width, device=index.device)).float()


def draw_factors(rows: int, batch: int, a: float, generator: torch.Generator) -> Tensor:
    """Lambda [n, B]: each row is a symmetric Dirichlet draw over the batch in random order."""
    weights = dirichlet(a, (rows, batch), generator)
    noise = torch.rand(rows, batch, generator=generator, device=weights.device)
    return torch.zeros_like(noise).scatter(1, noise.topk(batch, dim=1).indices, weights)


def log_attention(z: Tensor) -> Tensor:
    """log a [B] of embeddings [B, D]: log-softmax of <Z_i, mean_j Z_j> / sqrt(D); no gradient."""
    z = z.detach()
    return F.log_softmax(z @ z.mean(0) / z.shape[1] ** 0.5, dim=0)


def reweight(factors: Tensor, log_a: Tensor) -> Tensor:
    """Gamma [n, B] = Lambda a with normalised rows; factors [n, B], log_a [B].

    A softmax of logarithms avoids 0 / 0 if the attention underflows; a factor of 0 stays 0.
    """
    return torch.softmax(factors.log() + log_a, dim=1)


def draw_mixed(rows: int, modalities: int, p: float, generator: torch.Generator) -> Tensor:
    """S [n, M] bool: each modality with probability p, conditioned on non-empty rows.

    While a row is empty, the probability is p / (1 - (1 - p)^left): that of the next modality,
    given that at least one of the `left` remaining modalities is chosen.
    """
    u = torch.rand(rows, modalities, generator=generator, device=generator.device)
    some, columns = torch.zeros_like(u[:, 0], dtype=torch.bool), []
    for m in range(modalities):
        left = modalities - m
        first = p / (1 - (1 - p) ** left) if left > 1 else 1.0
        columns.append(u[:, m] < torch.where(some, p, first))
        some = some | columns[-1]
    return torch.stack(columns, dim=1)


class PowMix(Method):
    """Joint plus the soft cross-entropy of mixed rows (PowMix(R))."""

    min_modalities = 2

    @dataclass(frozen=True)
    class HParams:
        rows: float = option(
            1.0,
            "component 1: mixed rows per step, as a multiple of the batch",
            above=0,
            source="named in PowMix's abstract, form inferred",
        )
        concentration: float = option(
            1.0, "a of Dirichlet(a, ..., a); small: sparse", above=0, search=(0.1, 2.0, "log")
        )
        p_mix: float = option(0.5, "probability that a modality is mixed", low=0.01, high=1)
        w: float = option(1.0, "weight of the mixed term", low=0, search=(0.1, 2.0, "log"))

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """L_align + w L_mix; the factors and targets carry no gradient."""
        y, hp, draw = batch["label"], self.hparams, self.generator
        f = self.model.encode(batch["inputs"])
        z = self.model.fuse(f)
        rows = max(1, round(hp.rows * len(y)))
        gammas = {}
        for m, z_m in f.items():
            factors = draw_factors(rows, len(y), hp.concentration, draw)
            gammas[m] = reweight(factors, log_attention(z_m))
        mixed = draw_mixed(rows, len(f), hp.p_mix, draw)
        order = torch.randperm(len(y), generator=draw, device=y.device)
        anchor = order[torch.arange(rows, device=y.device) % len(y)]
        for k, m in enumerate(f):
            gammas[m] = torch.where(mixed[:, k, None], gammas[m], onehot(anchor, len(y)))
        stacked = torch.stack(list(gammas.values()))  # [M, n, B]
        targets = stacked.mean(0) @ onehot(y, self.model.num_classes)
        # A second call of g_f: a single call for all rows would change the last bits of z.
        z_mix = self.model.fuse({m: gammas[m] @ f[m] for m in f})
        l_align, l_mix = self.cross_entropy(z, y), self.cross_entropy(z_mix, targets)
        entropy = torch.special.entr(targets).sum(1).mean()
        logs = self.train_logs(acc=accuracy(z, y), L_align=l_align, L_mix=l_mix)
        logs |= self.train_logs(target_entropy=entropy, mixed=mixed.float().mean(0))
        return l_align + hp.w * l_mix, logs | self.train_logs(peak=stacked.amax(2).mean(1))
