"""MIDAS: misalignment-based data augmentation (Hwang, Choi, Whang; NeurIPS 2025).

A misaligned sample takes its modalities from samples of different classes. Its label mixes theirs
by unimodal confidence. The weak modality and hard samples get more weight.

    Eq. 1, 12  `assign_sources`   f~_i = (f_i^1, f_j^2) and (f_j^1, f_i^2), y_j != y_i
    Eq. 2      `unimodal_shares`  c_m = q_m / sum_l q_l, q_m = p^m of the source's true label
    Eq. 3, 4   label              y~ = sum_m c_m onehot(k_m), k_m = label of modality m's source
    Eq. 5 - 7  `update_alpha`     alpha of the least confident modality moves by eta
    Eq. 8      `similarity`       s = cos(replaced feature, swapped-in feature)
    Eq. 9, 11  `Midas.forward`    L = L_align + L_uni + lambda L_mis
    Eq. 10     `misaligned_loss`  (1 + (s + 1) / 2) * [-sum_m alpha_m c_m log p~_{k_m}]

Where the paper is silent, the defaults follow the authors' release (commit d25b225, "the release",
which does not run as published). Where the two differ, the paper is the default and a switch
follows the release; comments cite lines of its models/model_midas_cremad.py. `--recipe official`
sets all switches: docs/recipe.md. More in docs/methods.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from common.options import UsageError, option
from methods.base import Batch, Features, Logs, Method, TrainingSet, choice, warmup
from methods.midas_release import carry_alpha, ratio, update_alpha_by_ratio
from methods.ops import accuracy, label_shares, true_probability

RELEASE = "official release"


def choose_partners(
    y: Tensor, generator: torch.Generator, pairing: str = "uniform", fused: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Sec. 3.2: for each sample i a partner j with y_j != y_i: (j [B], valid [B], fell_back [B]).

    y [B]; `fused` [B, C] logits, for `confusion` only. `uniform`: any such j, equally likely.
    `shuffle` (Algorithm 1 line 17): a permutation, valid if labels differ. `permutation` (release,
    122): always valid, even if labels are equal or i = j. `confusion` (Sec. A.4): y_j is one of the
    two most likely classes of i, else as `uniform`.
    """
    none = torch.zeros_like(y, dtype=torch.bool)
    if pairing in ("shuffle", "permutation"):
        j = torch.randperm(len(y), generator=generator, device=y.device)
        return j, y[j] != y if pairing == "shuffle" else ~none, none
    other = y[:, None] != y[None, :]
    # The argmax of uniform noise picks each allowed column with equal probability and, unlike
    # indexing by a mask, needs no host read.
    noise = torch.rand(len(y), len(y), generator=generator, device=y.device)
    score = noise.masked_fill(~other, -1.0)
    if pairing == "confusion":
        likely = fused.detach().topk(2, dim=1).indices  # [B, 2]
        confused = other & (likely[:, :, None] == y).any(1)
        score = score + confused  # noise is below 1: confused columns always win
        none = other.any(1) & ~confused.any(1)
    return score.argmax(1), other.any(1), none


def assign_sources(
    j: Tensor, modalities: int, direction: str, generator: torch.Generator
) -> Tensor:
    """Sec. 3.2: the source of each modality: [D, B, M] batch indices, D directions per sample.

    M = 2: (i, j) and (j, i) (Eq. 1 and its mirror). M > 2 (Sec. A.2): i, j and M - 2 others without
    replacement, assigned by a random permutation; one misaligned sample per anchor.
    """
    i = torch.arange(len(j), device=j.device)
    if modalities == 2:
        a = torch.stack([i, j], dim=1)
        return a[None] if direction == "a_only" else torch.stack([a, a.flip(1)])
    taken = (i[:, None] == i) | (j[:, None] == i)
    noise = torch.rand(len(j), len(j), generator=generator, device=j.device)
    further = noise.masked_fill(taken, -1.0).topk(modalities - 2, dim=1).indices
    chosen = torch.cat([i[:, None], j[:, None], further], dim=1)
    order = torch.rand(chosen.shape, generator=generator, device=j.device).argsort(1)
    return chosen.gather(1, order)[None]


def unimodal_shares(logits: Features, y: Tensor, sources: Tensor) -> Tensor:
    """Eq. 2: c [R, M], for sources [R, M], from the unimodal logits {m: [B, C]}; no gradient."""
    # A softmax of log q instead of dividing probabilities avoids 0 / 0.
    log_q = [F.log_softmax(z.detach(), 1).gather(1, y[:, None]) for z in logits.values()]
    return torch.softmax(torch.cat(log_q, dim=1).gather(0, sources), dim=1)


def update_alpha(alpha: Tensor, c: Tensor, r: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """Eq. 5 - 7: (new alpha [M], mask [M] of the least confident modality, the first if tied).

    c, r [M] mean unimodal and fused shares; alpha is unchanged if they are NaN (no valid pair).
    """
    # A mask instead of `alpha[m]`: indexing by a tensor would be a host read.
    weakest = torch.arange(len(alpha), device=alpha.device) == c.argmin()
    delta = torch.sign(((c - r) * weakest).sum())
    moved = torch.where(weakest, (alpha + eta * delta).clamp_min(1.0), 1.0)
    return torch.where(c.isnan().any(), alpha, moved), weakest


def similarity(
    features: Features, y: Tensor, sources: Tensor, kind: str = "cosine", any_label: bool = False
) -> Tensor:
    """Eq. 8: s [R] in [-1, 1], mean over the replaced modalities whose source has another label.

    Row r of sources [R, M] belongs to anchor r mod B. `any_label` (the release, M = 2): the swapped
    modality counts regardless of its source's label.
    """
    row = torch.arange(len(sources), device=y.device)
    anchor = row % len(y)
    if any_label:  # direction A swaps the second modality, direction B the first
        replaced = torch.stack([row >= len(y), row < len(y)], dim=1)
    else:
        replaced = y[sources] != y[anchor, None]  # [R, M]
    columns = []
    for m, f in enumerate(features.values()):
        old, new = f.detach()[anchor], f.detach()[sources[:, m]]
        if kind == "cosine":
            columns.append(F.cosine_similarity(old, new, dim=1, eps=1e-8))
        else:  # Table 4 gives no formula for L2 and the release lacks it: ours
            columns.append(2 / (1 + torch.linalg.vector_norm(old - new, dim=1)) - 1)
    s = torch.stack(columns, dim=1)
    return (s * replaced).sum(1) / replaced.sum(1).clamp_min(1)


class Misaligned(NamedTuple):
    """L_mis, and means over the misaligned samples (NaN if there are none)."""

    loss: Tensor
    c: Tensor  # [M] unimodal shares
    r: Tensor  # [M] fused shares
    p: Tensor  # [D, M] fused probability of each modality's own label


def misaligned_loss(
    features: Features,
    y: Tensor,
    unimodal_logits: Features,
    fuse: Callable[[Features], Tensor],
    alpha: Tensor,
    sources: Tensor,
    valid: Tensor,
    *,
    pairing: str = "uniform",
    kind: str | None = "cosine",
) -> Misaligned:
    """Eq. 10, averaged over the misaligned samples of valid pairs; c and s carry no gradient.

    features {m: [B, D_m]}, y [B], unimodal_logits {m: [B, C]}, alpha [M], sources [D, B, M] from
    `assign_sources`, valid [B] from `choose_partners` under `pairing`; `fuse` maps features to
    logits, `kind` is that of `similarity` (None: equal weights). The loss averages the directions
    of a pair (release), sums over anchors and divides by B (Eq. 11), or by the number of valid
    pairs under `shuffle`, which drops the others.
    """
    directions, batch, modalities = sources.shape
    rows = sources.reshape(-1, modalities)
    keep = valid.repeat(directions)
    k = y[rows]  # [R, M] labels of the sources
    c = unimodal_shares(unimodal_logits, y, rows)
    f_mis = {m: f[rows[:, column]] for column, (m, f) in enumerate(features.items())}
    log_p = F.log_softmax(fuse(f_mis), dim=1)
    ce = -(alpha * c * log_p.gather(1, k)).sum(1)  # alpha c is not renormalised
    if kind is not None:
        s = similarity(features, y, rows, kind, any_label=pairing == "permutation")
        ce = (1 + (s + 1) / 2) * ce
    per_anchor = torch.where(keep, ce, 0.0).view(directions, batch).mean(0)
    count = valid.sum()
    loss = per_anchor.sum() / (count.clamp_min(1) if pairing == "shuffle" else batch)
    log_p = log_p.detach()
    weight = keep[:, None].to(c.dtype) / (directions * count)  # 0 / 0 = NaN if no pair is valid
    p = (log_p.gather(1, k).exp() * weight * directions).view(directions, batch, modalities)
    return Misaligned(loss, (c * weight).sum(0), (label_shares(log_p, k) * weight).sum(0), p.sum(1))


class Midas(Method):
    """Warm-up on L_uni, then Eq. 11."""

    needs_unimodal_heads = True
    min_modalities = 2
    alpha: Tensor

    @dataclass(frozen=True)
    class HParams:
        lam: float = option(
            1.0,
            "weight lambda of L_mis",
            low=0,
            source="Sec. A.3; 5 for kinetics",
            search=(0.3, 10.0, "log"),
        )
        eta: float = option(
            0.05, "step size of alpha", above=0, source="Sec. A.3", search=(0.01, 0.3, "log")
        )
        warmup_epochs: int = warmup(
            10,
            help="epochs on L_uni alone",
            source=f"{RELEASE}: 10 of 70, food101 2 of 30 (ucf101 0, against Table 2)",
        )
        lr_from: str = choice(
            "start main",
            "epochs counted by the learning-rate decay: all, or those after warm-up",
            f"{RELEASE}: main, except on food101; the paper is silent",
        )
        uni_reduce: str = choice("sum mean", "reduction of L_uni", f"Eq. 9; mean: {RELEASE}")
        weak_modality: bool = option(True, "weak-modality weighting: alpha", source="Table 2")
        hard_sample: bool = option(True, "hard-sample weighting (off: weight 1)", source="Table 2")
        similarity: str = choice("cosine l2", "similarity s", "Eq. 8, Table 4")
        level: str = choice("feature input", "what is swapped", "Eq. 12, Table 8")
        pairing: str = choice(
            "uniform shuffle confusion permutation",
            "how partners are drawn",
            f"Sec. 3.2, Algorithm 1, Sec. A.4; permutation: {RELEASE}",
        )
        direction: str = choice(
            "mean a_only",
            "both misaligned samples of a pair, or only the first (two modalities)",
            f"{RELEASE}; Sec. 3.2 makes both",
        )
        alpha_rule: str = choice(
            "share ratio ratio_2over1 ratio_inverted",
            "alpha by shares, or by ratios of batch means: modality 1 over 2; 2 over 1; or 1 over"
            " 2 with the fused ratio inverted if modality 2 leads",
            f"Eq. 5 - 7; {RELEASE}: ratio, food101 ratio_2over1, kinetics inverted",
        )
        alpha_cap: float = option(
            0.0, "upper limit of alpha; 0: none", low=0, source=f"{RELEASE}: 10 on kinetics"
        )
        alpha_reset: str = choice(
            "start epoch",
            "when alpha is reset to 1",
            f"Sec. 3.4 and {RELEASE}; epoch: Algorithm 1 line 11",
        )

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        self.register_buffer("alpha", torch.ones(len(model.modalities), device=model.device))

    @classmethod
    def check(cls, hparams: HParams, epochs: int, modalities: list[str]) -> None:
        super().check(hparams, epochs, modalities)
        of_two = {"direction": "a_only", "pairing": "permutation", "alpha_rule": "ratio"}
        for flag, value in of_two.items() if len(modalities) > 2 else ():
            if (given := getattr(hparams, flag)).startswith(value):
                raise UsageError(f"--{flag} {given} is defined for two modalities only")
        if hparams.alpha_cap and (hparams.alpha_rule == "share" or hparams.alpha_cap < 1):
            raise UsageError(
                f"--alpha_cap {hparams.alpha_cap:g} is refused: it takes 1 or more with the ratio"
                " rules; --alpha_rule share needs --alpha_cap 0"
            )

    def start_epoch(self, epoch: int, train: TrainingSet) -> None:
        if self.hparams.alpha_reset == "epoch":
            self.alpha.fill_(1.0)

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """Eq. 11; in warm-up only L_uni (the fusion layer gets no gradient and stays unchanged)."""
        y, hp = batch["label"], self.hparams
        f = self.model.encode(batch["inputs"])
        z_uni = self.model.unimodal(f)
        l_uni = self.unimodal_losses(z_uni, y).sum()
        if hp.uni_reduce == "mean":  # release, 115-117: half the sum of two
            l_uni = l_uni / len(f)
        logs = self.train_logs(L_uni=l_uni)
        if not self.active:
            return l_uni, logs
        z = self.model.fuse(f)
        l_align = self.cross_entropy(z, y)
        logs |= self.train_logs(acc=accuracy(z, y), L_align=l_align)
        if len(y) < len(f):  # fewer samples than modalities: no M distinct sources
            return l_align + l_uni, logs
        j, valid, fell_back = choose_partners(y, self.generator, hp.pairing, z)
        sources = assign_sources(j, len(f), hp.direction, self.generator)
        logs["train/n_valid"] = valid.sum() * len(sources)
        if hp.pairing == "confusion":
            logs["train/n_fallback"] = fell_back.sum()
        # Table 8: a second pass in training mode, so batch norm's statistics are updated twice.
        f_mis = f if hp.level == "feature" else self.model.encode(batch["inputs"])
        l_mis, mis_logs = self.misalign(f_mis, y, z_uni, sources, valid)
        return l_align + l_uni + hp.lam * l_mis, logs | mis_logs

    def misalign(
        self, f: Features, y: Tensor, z_uni: Features, sources: Tensor, valid: Tensor
    ) -> tuple[Tensor, Logs]:
        """L_mis and its logs; then updates alpha for the next step."""
        hp, alpha, logs = self.hparams, self.alpha, {}
        q = torch.stack([true_probability(z.detach(), y).mean() for z in z_uni.values()])
        by_ratio = hp.weak_modality and hp.alpha_rule != "share"
        if by_ratio:
            rho = ratio(q, hp.alpha_rule)
            alpha, weakest = carry_alpha(alpha, rho, hp.alpha_rule)
        kind = hp.similarity if hp.hard_sample else None
        l_mis, c, r, p = misaligned_loss(
            f, y, z_uni, self.model.fuse, alpha, sources, valid, pairing=hp.pairing, kind=kind
        )
        if by_ratio:
            rule, cap = hp.alpha_rule, hp.alpha_cap
            new, fused_ratio = update_alpha_by_ratio(alpha, weakest, rho, p, hp.eta, rule, cap)
            logs = self.train_logs(rho=rho, r=fused_ratio)
        else:
            new, weakest = update_alpha(alpha, c, r, hp.eta)
        if hp.weak_modality:
            self.alpha.copy_(new)
        # Figure 3 shows the shares c and r; q and p are the raw means.
        logs |= self.train_logs(L_mis=l_mis, alpha=self.alpha.max(), conf_uni=c, conf_fused=r, q=q)
        return l_mis, logs | self.train_logs(p=p.mean(0), weakest=weakest.float())

    def counts_for_decay(self, epoch: int) -> bool:
        """`--lr_from main` (release, 296-298): warm-up epochs do not count."""
        return self.hparams.lr_from == "start" or epoch > self.hparams.warmup_epochs

    def end_epoch(self) -> Logs:
        """alpha of each modality (Figure 4: the largest of them); 1 during warm-up."""
        return {f"alpha/{m}": a for m, a in zip(self.model.modalities, self.alpha)}
