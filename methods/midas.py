"""MIDAS: misalignment-based data augmentation (Hwang, Choi, Whang; NeurIPS 2025).

A misaligned sample takes its modalities from samples of different classes; its label mixes theirs
by how sure each unimodal classifier is; the weak modality's term and hard samples weigh more.

    Eq. 1, 12  sources         f~_i = (f_i^1, f_j^2) and (f_j^1, f_i^2), y_j != y_i
    Eq. 2      `unimodal_shares`   c_m = q_m / sum_l q_l, q_m = p^m of the source's own true label
    Eq. 3, 4   label           y~ = sum_m c_m onehot(k_m), k_m = label of modality m's source
    Eq. 5 - 7  `update_alpha`  alpha of the least confident modality moves by eta
    Eq. 8      `similarity`    s = cos(replaced feature, swapped-in feature)
    Eq. 9, 11  `Midas.forward` L = L_align + L_uni + lambda L_mis
    Eq. 10     `misaligned_loss`   (1 + (s + 1) / 2) * [-sum_m alpha_m c_m log p~_{k_m}]

The authors' release (commit d25b225, "the release" below) was read, and run with repairs: it does
not run as published. Where the paper is silent the defaults follow the release; where the two
differ the paper is the default, and a switch follows the release. `--recipe official` sets all of
these switches (docs/recipe.md); the lines are those of its models/model_midas_cremad.py:

    question           the paper (default)     the release (switch)
    unimodal losses    their sum (Eq. 9)       half the sum, 115-117: uni_reduce=mean
    partners           y_j != y_i (Sec. 3.2)   any, 122: pairing=permutation
    alpha              shares, Eq. 5 - 7       ratios, 124-169: alpha_rule=ratio

Its file for kinetics inverts a ratio and caps alpha (127-162: alpha_rule=ratio_inverted and
alpha_cap=10), that for food101 has the ratio the other way round (124: alpha_rule=ratio_2over1). Of
the epochs that StepLR counts the paper says nothing; the release counts those after the warm-up
(296-298: lr_from=main, the default on cremad, kinetics and ucf101), on food101 all of them.

Further choices, each made here once:

* c and s carry no gradient, both directions are made from each pair and averaged, and alpha
  persists over the epochs: the release does all three. Algorithm 1 line 11, read literally, resets
  alpha each epoch, which Figure 4 speaks against (`--alpha_reset epoch`).
* Algorithm 1 line 17 shuffles without looking at labels, Sec. 3.2 demands y_j != y_i: `uniform`
  follows Sec. 3.2, `shuffle` shuffles and drops pairs of one class, the release's `permutation`
  keeps them.
* M > 2 (Sec. A.2): one misaligned sample per anchor, whatever M is, although Sec. 3.6 speaks of
  more of them with more modalities; a label that several modalities carry divides its fused
  confidence among them equally. The release has two modalities only.
* `--level input` encodes the batch a second time, in training mode like the first, so batch norm
  updates its running statistics twice a step.
* The L2 alternative of Table 4 is given without a formula, and the release lacks it:
  s = 2 / (1 + d) - 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from common.options import UsageError, option
from methods.base import Batch, EpochPlan, Logs, Method, TrainingSet
from methods.ops import accuracy, label_shares, true_probability, unimodal_losses

Features = dict[str, Tensor]


# Sec. 3.2: who supplies which modality ------------------------------------------------------------


def choose_partners(
    y: Tensor, generator: torch.Generator, pairing: str = "uniform", fused: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """For each sample i of a batch a partner j with y_j != y_i.

    y [B]; `fused` [B, C] logits, for `confusion` only -> (j [B], valid [B], fell_back [B]).
    `uniform`: any such j with equal chance. `shuffle`: a permutation, valid where labels differ.
    `permutation` (the release): a permutation, valid throughout, be the labels equal or i = j.
    `confusion` (Sec. A.4): y_j must be among i's two likeliest classes, else as `uniform`.
    """
    none = torch.zeros_like(y, dtype=torch.bool)
    if pairing in ("shuffle", "permutation"):
        j = torch.randperm(len(y), generator=generator, device=y.device)
        return j, y[j] != y if pairing == "shuffle" else ~none, none
    other = y[:, None] != y[None, :]
    # The largest of independent uniform noise gives each allowed column an equal chance, and unlike
    # indexing by a mask it needs no host read.
    noise = torch.rand(len(y), len(y), generator=generator, device=y.device)
    score = noise.masked_fill(~other, -1.0)
    if pairing == "confusion":
        likely = fused.detach().topk(2, dim=1).indices  # [B, 2]
        confused = other & (likely[:, :, None] == y).any(1)
        score = score + confused  # noise is below 1: any confused column beats all others
        none = other.any(1) & ~confused.any(1)
    return score.argmax(1), other.any(1), none


def assign_sources(
    j: Tensor, modalities: int, direction: str, generator: torch.Generator
) -> Tensor:
    """Which sample supplies each modality: [D, B, M] places in the batch, D directions a sample.

    M = 2: direction A = (i, j) and B = (j, i) (Eq. 1 and its mirror). M > 2 (Sec. A.2): the sources
    i, j and M - 2 further ones drawn without replacement, assigned by a random permutation.
    """
    i = torch.arange(len(j), device=j.device)
    if modalities == 2:
        a = torch.stack([i, j], dim=1)
        return a[None] if direction == "a_only" else torch.stack([a, a.flip(1)])
    taken = (i[:, None] == i) | (j[:, None] == i)
    noise = torch.rand(len(j), len(j), generator=generator, device=j.device).masked_fill(
        taken, -1.0
    )
    chosen = torch.cat([i[:, None], j[:, None], noise.topk(modalities - 2, dim=1).indices], dim=1)
    order = torch.rand(chosen.shape, generator=generator, device=j.device).argsort(1)
    return chosen.gather(1, order)[None]


# Sec. 3.3: labels ---------------------------------------------------------------------------------


def unimodal_shares(logits: Features, y: Tensor, sources: Tensor) -> Tensor:
    """Eq. 2: c [R, M], for sources [R, M], from the unimodal logits {m: [B, C]}; no gradient.

    A softmax of log q, never a division of raw probabilities: 0 / 0 cannot occur.
    """
    log_q = [F.log_softmax(z.detach(), 1).gather(1, y[:, None]) for z in logits.values()]
    return torch.softmax(torch.cat(log_q, dim=1).gather(0, sources), dim=1)


# Sec. 3.4: weak-modality weighting ----------------------------------------------------------------


def update_alpha(alpha: Tensor, c: Tensor, r: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """Eq. 5 - 7 from batch means: (new alpha [M], mask [M] of the least confident modality).

    c [M] mean unimodal shares, r [M] mean fused shares; where they are NaN (no valid pair) alpha
    stays. A tie goes to the first modality. Masks instead of `alpha[m]`: indexing by a tensor would
    be a host read.
    """
    weakest = torch.arange(len(alpha), device=alpha.device) == c.argmin()
    delta = torch.sign(((c - r) * weakest).sum())
    moved = torch.where(weakest, (alpha + eta * delta).clamp_min(1.0), 1.0)
    return torch.where(c.isnan().any(), alpha, moved), weakest


# The release carries one alpha for whichever modality is weak in this very batch, and compares
# ratios of batch means where the paper compares shares. `over` is the modality above the line.


def unimodal_ratio(logits: Features, y: Tensor, over: int) -> Tensor:
    """rho: mean probability of the true labels in one modality's head over that in the other's."""
    q = [true_probability(z.detach(), y).mean() for z in logits.values()]
    return q[over] / q[1 - over]


def carry_alpha(alpha: Tensor, rho: Tensor, over: int) -> tuple[Tensor, Tensor]:
    """(alpha [2] for this step, mask [2] of the weak modality): its entry is alpha, the other 1."""
    first_is_weak = rho > 1 if over == 1 else ~(rho > 1)  # at rho = 1 it is the one above the line
    weakest = torch.stack([first_is_weak, ~first_is_weak])
    return torch.where(weakest, alpha.max(), 1.0), weakest


def update_alpha_by_ratio(
    alpha: Tensor,
    weakest: Tensor,
    rho: Tensor,
    p: Tensor,
    eta: float,
    over: int = 0,
    inverted: bool = False,
    cap: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """(new alpha [2], fused ratio r), for alpha and mask [2] as `carry_alpha` gives them.

    p [D, 2]: mean fused probability of each modality's own label in each direction; r is the mean
    of the directions' ratios. alpha always moves by eta, within 1 and `cap` (0: no cap). `inverted`
    (kinetics): where rho <= 1, r is turned over and rho is not. NaN leaves alpha as it is.
    """
    ratios = p[:, over] / p[:, 1 - over]
    r = ratios.mean()
    if inverted:
        r = torch.where(rho > 1, r, (1 / ratios).mean())
        rises = r > rho
    else:
        rises = torch.where(rho > 1, r > rho, r < rho)
    step = eta * (2 * rises.to(alpha.dtype) - 1)
    moved = (alpha.max() + step).clamp(1.0, cap or torch.inf)
    moved = torch.where(weakest, moved, 1.0)
    return torch.where((rho + r).isnan(), alpha, moved), r


# Sec. 3.5: hard-sample weighting ------------------------------------------------------------------


def similarity(
    features: Features,
    y: Tensor,
    sources: Tensor,
    valid: Tensor,
    kind: str = "cosine",
    any_label: bool = False,
) -> Tensor:
    """Eq. 8: s [R] in [-1, 1], mean over the replaced modalities whose source has another label.

    Row r of sources [R, M] belongs to anchor r mod B; `valid` [R]. "l2": 2 / (1 + d) - 1 with the
    Euclidean distance d; "l2_norm" divides d by its mean over the valid rows, one a modality.
    `any_label` (the release, M = 2): the swapped modality counts whatever its source's label.
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
            continue
        d = torch.linalg.vector_norm(old - new, dim=1)
        if kind == "l2_norm":
            rows = (replaced[:, m] & valid).float()
            d = d / ((d * rows).sum() / rows.sum().clamp_min(1)).clamp_min(1e-8)
        columns.append(2 / (1 + d) - 1)
    s = torch.stack(columns, dim=1)
    return (s * replaced).sum(1) / replaced.sum(1).clamp_min(1)


# Sec. 3.6: the loss of misaligned samples ---------------------------------------------------------


class Misaligned(NamedTuple):
    """L_mis, and means over the misaligned samples; NaN means where there is none.

    c [M] unimodal and r [M] fused shares; p [D, M] fused probability of each modality's own label.
    """

    loss: Tensor
    c: Tensor
    r: Tensor
    p: Tensor


def misaligned_loss(
    features: Features,
    y: Tensor,
    unimodal_logits: Features,
    fuse: Callable[[Features], Tensor],
    alpha: Tensor,
    sources: Tensor,
    valid: Tensor,
    *,
    hard: bool = True,
    similarity_kind: str = "cosine",
    reduce: str = "mean",
    per_valid: bool = False,
    any_label: bool = False,
) -> Misaligned:
    """Eq. 10, averaged over the misaligned samples of valid pairs.

    features {m: [B, D_m]}, y [B], unimodal_logits {m: [B, C]}, alpha [M], sources [D, B, M] from
    `assign_sources`, valid [B]. `fuse` maps features to fused logits. The sum over valid samples is
    divided by B (Eq. 11), or with `per_valid` by their number. `any_label`: see `similarity`.
    """
    directions, batch, modalities = sources.shape
    rows = sources.reshape(-1, modalities)
    keep = valid.repeat(directions)
    k = y[rows]  # [R, M] labels of the sources
    c = unimodal_shares(unimodal_logits, y, rows)
    f_mis = {m: f[rows[:, column]] for column, (m, f) in enumerate(features.items())}
    log_p = F.log_softmax(fuse(f_mis), dim=1)
    ce = -(alpha * c * log_p.gather(1, k)).sum(1)  # alpha c is not renormalised
    if hard:
        ce = (1 + (similarity(features, y, rows, keep, similarity_kind, any_label) + 1) / 2) * ce
    per_anchor = torch.where(keep, ce, 0.0).view(directions, batch)
    per_anchor = per_anchor.sum(0) if reduce == "sum" else per_anchor.mean(0)
    count = valid.sum()
    loss = per_anchor.sum() / (count.clamp_min(1) if per_valid else batch)
    log_p = log_p.detach()
    weight = keep[:, None].to(c.dtype) / (directions * count)  # 0 / 0 = NaN: no pair is valid
    p = (log_p.gather(1, k).exp() * weight * directions).view(directions, batch, modalities)
    return Misaligned(loss, (c * weight).sum(0), (label_shares(log_p, k) * weight).sum(0), p.sum(1))


class Midas(Method):
    """The method: warm-up on L_uni, then Eq. 11."""

    needs_unimodal_heads = True
    min_modalities = 2

    @dataclass(frozen=True)
    class HParams:
        """Defaults of the paper, and of the authors' release where it is silent."""

        lam: float = option(1.0, "weight lambda of L_mis", low=0, source="Sec. A.3; 5 for kinetics")
        eta: float = option(0.05, "step of alpha", above=0, source="Sec. A.3")
        warmup_epochs: int = option(
            10,
            "epochs on L_uni alone",
            low=0,
            per_epochs=True,
            source="official release: 10 of 70, food101 2 of 30 (ucf101 0, against Table 2); the"
            " paper gives no value",
        )
        lr_from: str = option(
            "start",
            "epochs that the learning rate's decay counts: all, or those after warm-up",
            choices=("start", "main"),
            source="official release: main, but on food101; the paper is silent",
        )
        uni_reduce: str = option(
            "sum",
            "L_uni: the sum of the unimodal losses, or their mean",
            choices=("sum", "mean"),
            source="Eq. 9; mean: official release",
        )
        weak_modality: bool = option(
            True, "weak-modality weighting (off: alpha stays 1)", source="Table 2"
        )
        hard_sample: bool = option(True, "hard-sample weighting (off: weight 1)", source="Table 2")
        similarity: str = option(
            "cosine",
            "similarity of replaced and swapped-in feature",
            choices=("cosine", "l2", "l2_norm"),
            source="Eq. 8, Table 4",
        )
        level: str = option(
            "feature",
            "swap features, or encode the inputs a second time",
            choices=("feature", "input"),
            source="Eq. 12, Table 8",
        )
        pairing: str = option(
            "uniform",
            "how partners are drawn",
            choices=("uniform", "shuffle", "confusion", "permutation"),
            source="Sec. 3.2, Algorithm 1, Sec. A.4; permutation: official release",
        )
        direction: str = option(
            "mean",
            "the two misaligned samples of a pair (two modalities)",
            choices=("mean", "sum", "a_only"),
            source="official release; Sec. 3.2 makes both",
        )
        alpha_rule: str = option(
            "share",
            "how the weak modality and alpha are found: by shares; by ratios of batch means,"
            " modality 1 over 2; 2 over 1; or 1 over 2 with the fused ratio inverted where"
            " modality 2 leads",
            choices=("share", "ratio", "ratio_2over1", "ratio_inverted"),
            source="Eq. 5 - 7; official release: ratio, food101 ratio_2over1, kinetics inverted",
        )
        alpha_cap: float = option(
            0.0,
            "largest alpha under the ratio rules, 0: none",
            low=0,
            source="official release: 10 on kinetics",
        )
        alpha_reset: str = option(
            "start",
            "when alpha returns to 1",
            choices=("start", "epoch"),
            source="Sec. 3.4 and official release; epoch: Algorithm 1 line 11",
        )

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        self.register_buffer("alpha", torch.ones(len(model.modalities), device=model.device))

    @classmethod
    def check(cls, hparams: HParams, epochs: int, modalities: list[str]) -> None:
        """Raises `UsageError` where no misaligned sample could ever be made."""
        super().check(hparams, epochs, modalities)
        by_share, release_pairs = hparams.alpha_rule == "share", hparams.pairing == "permutation"
        for flag, value, two_only in (
            ("direction", hparams.direction, hparams.direction != "mean"),
            ("pairing", hparams.pairing, release_pairs),
            ("alpha_rule", hparams.alpha_rule, not by_share),
        ):
            if two_only and len(modalities) > 2:
                raise UsageError(f"--{flag} {value} is defined for two modalities only")
        if hparams.alpha_cap and (by_share or hparams.alpha_cap < 1):
            raise UsageError(
                f"--alpha_cap {hparams.alpha_cap:g} is refused: it takes 1 or more under the ratio"
                " rules; --alpha_rule share needs --alpha_cap 0"
            )

    def start_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        """Algorithm 1, lines 4 and 11."""
        self.warming_up = not self.in_window(epoch)
        if self.hparams.alpha_reset == "epoch":
            self.alpha.fill_(1.0)

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """Eq. 11; in warm-up L_uni alone (the fusion layer gets no gradient and does not move)."""
        y, hp = batch["label"], self.hparams
        f = self.model.encode(batch["inputs"])
        z_uni = self.model.unimodal(f)
        l_uni = unimodal_losses(z_uni, y)
        if hp.uni_reduce == "mean":  # the release: half the sum of two
            l_uni = l_uni / len(f)
        logs = {"train/L_uni": l_uni.detach()}
        if self.warming_up:
            return l_uni, logs
        z = self.model.fuse(f)
        l_align = F.cross_entropy(z, y)
        logs |= {"train/acc": accuracy(z, y), "train/L_align": l_align.detach()}
        if len(y) < len(f):  # fewer samples than modalities: no M distinct sources
            return l_align + l_uni, logs
        j, valid, fell_back = choose_partners(y, self.generator, hp.pairing, z)
        sources = assign_sources(j, len(f), hp.direction, self.generator)
        f_mis = f if hp.level == "feature" else self.model.encode(batch["inputs"])
        by_ratio = hp.weak_modality and hp.alpha_rule != "share"
        alpha = self.alpha
        if by_ratio:  # the release: this batch's own weak modality gets alpha
            over = int(hp.alpha_rule == "ratio_2over1")
            rho = unimodal_ratio(z_uni, y, over)
            alpha, weakest = carry_alpha(alpha, rho, over)
        mis = misaligned_loss(
            f_mis,
            y,
            z_uni,
            self.model.fuse,
            alpha,
            sources,
            valid,
            hard=hp.hard_sample,
            similarity_kind=hp.similarity,
            reduce=hp.direction,
            per_valid=hp.pairing == "shuffle",
            any_label=hp.pairing == "permutation",
        )
        # The new alpha serves from the next step on.
        if by_ratio:
            inverted = hp.alpha_rule == "ratio_inverted"
            new, r = update_alpha_by_ratio(
                alpha, weakest, rho, mis.p, hp.eta, over, inverted, hp.alpha_cap
            )
            logs |= {"train/rho": rho, "train/r": r}
        else:
            new, weakest = update_alpha(alpha, mis.c, mis.r, hp.eta)
        if hp.weak_modality:
            self.alpha.copy_(new)
        logs |= self._series(z_uni, y, mis, weakest)
        logs["train/n_valid"] = valid.sum() * len(sources)
        if hp.pairing == "confusion":
            logs["train/n_fallback"] = fell_back.sum()
        return l_align + l_uni + hp.lam * mis.loss, logs

    def _series(self, z_uni: Features, y: Tensor, mis: Misaligned, weakest: Tensor) -> Logs:
        """What a step after warm-up logs: Figure 3's shares, the raw means beside them, alpha."""
        logs = {"train/L_mis": mis.loss.detach(), "train/alpha": self.alpha.max()}
        for m, (name, z) in enumerate(z_uni.items()):
            logs[f"train/conf_uni/{name}"], logs[f"train/conf_fused/{name}"] = mis.c[m], mis.r[m]
            logs[f"train/q/{name}"] = true_probability(z.detach(), y).mean()
            logs[f"train/p/{name}"] = mis.p[:, m].mean()
            logs[f"train/weakest/{name}"] = weakest[m].float()
        return logs

    def counts_for_decay(self, epoch: int) -> bool:
        """`--lr_from main`: warm-up epochs do not count."""
        return self.hparams.lr_from == "start" or self.in_window(epoch)

    def end_epoch(self) -> Logs:
        """alpha as it stands (Figure 4: the largest of the modalities'; 1 during the warm-up)."""
        return {f"alpha/{name}": self.alpha[m] for m, name in enumerate(self.model.modalities)}
