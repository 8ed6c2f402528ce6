"""PowMix(R): a RECONSTRUCTION of PowMix, not its published algorithm. Tables label it PowMix(R).

PowMix (Georgiou, Avrithis, Potamianos; IEEE/ACM TASLP 2024, arXiv 2312.12334) regularises the
fusion of a multimodal model: it mixes the embeddings of a batch within each modality and trains the
fusion on the mixtures. We could read its abstract only; its repository (efthymisgeo/powmix) holds a
licence and no code. Expect no exact match with the row of the MIDAS paper's Table 3.

Verified (abstract): it works in embedding space, before fusion, intra-modally (text with text);
five components: 1) a varying number of generated mixed examples, 2) mixing factor reweighting,
3) anisotropic mixing, 4) dynamic mixing, 5) cross-modal label mixing; its benchmarks are sentiment
sets. The MIDAS paper adds: it interpolates latent representations "with anisotropic mixing and
adjusts their contributions".
Verified for MultiMix (Venkataramanan, Kijak, Amsaleg, Avrithis; NeurIPS 2023; abstract and a
summary), of a common author: it interpolates whole mini-batches, makes any number of tuples, one
vector of factors a tuple, from a Dirichlet; its dense form multiplies the factors by attention and
normalises them to sum 1; targets are mixed with the same weights.

Our reconstruction. Z^m [B, D_m] embeddings, Y [B, C] one-hot labels, n mixed rows a step:

    1  number       `PowMix.forward`  n = rows * B                              (off: n = B)
       factors      `draw_factors`    Lambda_k^m ~ Dirichlet(a, ..., a), one vector a row k
    2  reweight     `reweight`        Gamma_kj = Lambda_kj a_j / sum_l Lambda_kl a_l (off: Lambda)
                    `log_attention`   a = softmax_i(<Z_i, mean_j Z_j> / sqrt(D))
    3  anisotropic  `PowMix._draw`    an own Lambda^m for each modality         (off: one for all)
    4  dynamic      `draw_mixed`      each row mixes a random non-empty set of modalities,
                    `leave_unmixed`   the others keep an anchor's embedding     (off: all mix)
    5  label        `mixed_targets`   Yhat = (mean_m Gamma^m) Y                 (off: first Gamma)
       loss         `PowMix.forward`  CE(g_f(Z), y) + w softCE(g_f(Gamma Z), Yhat)

Every formula above is an inference. Choices, and where a switch offers the alternative:

* Which statistic reweights: MultiMix weighs positions of a sequence by attention. Pooled vectors
  have no positions, so each sample's attention to the batch mean stands in. No parameters.
* What varies in the "number" is read as a free n. At the default --rows 1 the switch changes
  nothing, since n = B either way.
* "Dynamic" is read as a random subset of modalities a row, each with probability p_mix, empty sets
  excluded. `--dynamic_form step` is the other reading: all modalities mix, and the mixed term is
  left out of a step with probability 1 - p_mix.
* A regulariser adds a term (`--mode add`). `replace` trains on the mixed rows alone; there a step
  that `step` leaves unmixed is a clean one, since it would have no loss otherwise.
* Sentiment is mostly a regression; here the targets are class distributions and the loss is the
  soft cross-entropy. Clean and mixed rows are averaged apart.
* Lambda, Gamma and the targets carry no gradient; encoders learn through Gamma Z, which is linear.
* Tuples: the whole batch by default, as in MultiMix; `--tuple_length 2` is pair mixing, and
  `--tuple_random on` draws each row's length from {2, ..., tuple length}.

With whole-batch tuples and a = 1 the largest factor of a row is H_B / B on average (0.074 for 64
samples): mixed rows lie near the batch mean and targets near the class frequencies. A smaller a or
--tuple_length gives sparser rows; the log shows it: train/peak/<m> is the mean over rows of the
largest Gamma_k^m (1 where m is not mixed), train/target_entropy that of the targets in nats.

Clean and mixed rows go through g_f in two calls, although it is linear and one would do: the last
bits of a matrix product may depend on the number of rows, and w = 0 must be Joint to the last bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.options import UsageError, option
from methods.base import Batch, Logs, Method
from methods.ops import accuracy, dirichlet

Features = dict[str, Tensor]
NAMED = "named in PowMix's abstract, form inferred"


# Mixing factors -----------------------------------------------------------------------------------


def draw_factors(
    rows: int,
    batch: int,
    concentration: float,
    generator: torch.Generator,
    tuple_length: int = 0,
    tuple_random: bool = False,
) -> Tensor:
    """Lambda [n, B]: each row a symmetric Dirichlet on a random tuple of samples, 0 elsewhere.

    `tuple_length` samples a tuple, or the batch where that is 0 or larger than the batch; with
    `tuple_random` each row's length is uniform on {2, ..., that number}.
    """
    longest = min(tuple_length or batch, batch)
    weights = dirichlet(concentration, (rows, longest), generator)
    device = weights.device
    if tuple_random:
        low = min(2, longest)
        length = torch.randint(low, longest + 1, (rows, 1), generator=generator, device=device)
        # The first entries of a Dirichlet, normalised, are a Dirichlet again. The bound keeps 0 / 0
        # out where a small concentration left next to nothing in them and denormals are flushed.
        weights = weights.clamp_min(torch.finfo(weights.dtype).tiny)
        weights = weights * (torch.arange(longest, device=device) < length)
        weights = weights / weights.sum(1, keepdim=True)
    noise = torch.rand(rows, batch, generator=generator, device=device)
    places = noise.topk(longest, dim=1).indices  # distinct samples in random order
    return torch.zeros_like(noise).scatter(1, places, weights)


def log_attention(z: Tensor) -> Tensor:
    """log a [B] of embeddings [B, D]: log-softmax of <Z_i, mean_j Z_j> / sqrt(D); no gradient."""
    z = z.detach()
    return F.log_softmax(z @ z.mean(0) / z.shape[1] ** 0.5, dim=0)


def reweight(factors: Tensor, log_a: Tensor) -> Tensor:
    """Gamma [n, B] = Lambda a, rows normalised; factors [n, B], log_a [B].

    A softmax of logarithms: rows whose attention underflows do not become 0 / 0, and a factor of 0
    stays 0.
    """
    return torch.softmax(factors.log() + log_a, dim=1)


# Which modalities of a row are mixed --------------------------------------------------------------


def draw_mixed(rows: int, modalities: int, p: float, generator: torch.Generator) -> Tensor:
    """S [n, M] bool: each modality with probability p, given that a row's set is not empty.

    Drawn modality by modality. After an earlier member the chance is p; without one it is
    p / (1 - (1 - p)^left), the chance of being a member given that one of the `left` remaining ones
    is. So no row is drawn twice, and the distribution is that of drawing anew while a set is empty.
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


# Targets ------------------------------------------------------------------------------------------


def mixed_targets(
    gammas: Sequence[Tensor], y: Tensor, classes: int, cross_modal: bool = True
) -> Tensor:
    """Yhat [n, C], rows sum to 1: the labels y [B] mixed by the mean of the modalities' gammas.

    gammas M times [n, B]; without `cross_modal` the first modality's alone.
    """
    weights = torch.stack(tuple(gammas)).mean(0) if cross_modal else gammas[0]
    onehot = y[:, None] == torch.arange(classes, device=y.device)
    return weights @ onehot.to(weights.dtype)


class PowMix(Method):
    """Joint plus the soft cross-entropy of mixed rows (PowMix(R))."""

    min_modalities = 2

    @dataclass(frozen=True)
    class HParams:
        """The five components as switches, and the choices within them."""

        number: bool = option(
            True,
            "component 1: --rows times the batch as mixed rows (off: as many as the batch)",
            source=NAMED,
        )
        reweight: bool = option(True, "component 2: factors times attention", source=NAMED)
        anisotropic: bool = option(True, "component 3: own factors for each modality", source=NAMED)
        dynamic: bool = option(
            True, "component 4: draw what is mixed (see --dynamic_form)", source=NAMED
        )
        label: bool = option(
            True,
            "component 5: labels mixed over modalities (off: by the first modality's factors)",
            source=NAMED,
        )
        rows: float = option(
            1.0, "mixed rows a step, as a multiple of the batch; grid 0.5, 1, 2, 4", above=0
        )
        concentration: float = option(
            1.0, "a of Dirichlet(a, ..., a); below 1: sparser rows, grid 0.2, 1, 2", above=0
        )
        tuple_length: int = option(
            0, "samples that a row mixes; 0: the whole batch", low=0, source="MultiMix for 0"
        )
        tuple_random: bool = option(
            False, "draw each row's tuple length between 2 and --tuple_length"
        )
        p_mix: float = option(
            0.5, "probability that a modality (or a step) is mixed", low=0.01, high=1
        )
        dynamic_form: str = option(
            "modalities",
            "what --dynamic draws: a row's mixed modalities, or whether a step mixes at all",
            choices=("modalities", "step"),
        )
        w: float = option(1.0, "weight of the mixed term; grid 0.1, 0.5, 1", low=0)
        mode: str = option(
            "add",
            "the mixed term joins the clean one, or stands in its place",
            choices=("add", "replace"),
        )

    @classmethod
    def check(cls, hparams: HParams, epochs: int, modalities: list[str]) -> None:
        """Raises `UsageError` for tuples of one sample and for a loss that is always 0."""
        super().check(hparams, epochs, modalities)
        if hparams.tuple_length == 1:
            raise UsageError(
                "--tuple_length 1 mixes nothing; it takes 0 (the whole batch), or 2 or more"
            )
        if hparams.mode == "replace" and hparams.w == 0:
            raise UsageError("--mode replace with --w 0 leaves no loss; give --w above 0")

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """L_align + w L_mix, or in its place w L_mix alone."""
        y, hp = batch["label"], self.hparams
        f = self.model.encode(batch["inputs"])
        z = self.model.fuse(f)
        l_align = F.cross_entropy(z, y)
        rows = max(1, round(hp.rows * len(y))) if hp.number else len(y)
        gammas, mixed = self._draw(f, rows)
        targets = mixed_targets(list(gammas.values()), y, self.model.num_classes, hp.label)
        z_mix = self.model.fuse({m: gammas[m] @ f[m] for m in f})
        l_mix = F.cross_entropy(z_mix, targets)
        taken = mixed.any()  # false only in a step that `dynamic_form step` leaves out
        if hp.mode == "add":
            loss = l_align + torch.where(taken, hp.w * l_mix, 0.0)
        else:
            loss = torch.where(taken, hp.w * l_mix, l_align)
        of_mixed = {
            "train/L_mix": l_mix.detach(),
            "train/target_entropy": torch.special.entr(targets).sum(1).mean(),
            **{f"train/peak/{m}": gamma.amax(1).mean() for m, gamma in gammas.items()},
        }
        logs = {name: torch.where(taken, value, torch.nan) for name, value in of_mixed.items()}
        logs |= {f"train/mixed/{m}": mixed[:, k].float().mean() for k, m in enumerate(f)}
        return loss, logs | {"train/acc": accuracy(z, y), "train/L_align": l_align.detach()}

    def _draw(self, features: Features, rows: int) -> tuple[dict[str, Tensor], Tensor]:
        """(Gamma {m: [n, B]}, which modalities of which rows are mixed [n, M] bool)."""
        hp, draw, gammas, factors = self.hparams, self.generator, {}, None
        for m, z in features.items():
            batch = len(z)
            if factors is None or hp.anisotropic:
                factors = draw_factors(
                    rows, batch, hp.concentration, draw, hp.tuple_length, hp.tuple_random
                )
            gammas[m] = reweight(factors, log_attention(z)) if hp.reweight else factors
        mixed = torch.ones(rows, len(features), dtype=torch.bool, device=draw.device)
        if not hp.dynamic:
            return gammas, mixed
        if hp.dynamic_form == "step":
            return gammas, mixed & (torch.rand(1, generator=draw, device=draw.device) < hp.p_mix)
        mixed = draw_mixed(rows, len(features), hp.p_mix, draw)
        order = torch.randperm(batch, generator=draw, device=draw.device)
        anchor = order[torch.arange(rows, device=draw.device) % batch]
        for k, m in enumerate(features):
            gammas[m] = leave_unmixed(gammas[m], mixed[:, k], anchor)
        return gammas, mixed
