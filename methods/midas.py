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

The official code was not available to us: everything that the paper leaves open is our choice and
an inference, made here once:

* c and s carry no gradient: targets are targets, and a weight must not be lowered by pushing
  features of different classes apart. L_mis trains encoders and fusion through p~.
* Both directions are made from each pair and averaged, so that lambda keeps its scale.
* Algorithm 1 line 17 shuffles without looking at labels, Sec. 3.2 demands y_j != y_i: `uniform`
  follows Sec. 3.2, `shuffle` is the literal algorithm with invalid pairs dropped.
* alpha starts at 1 when warm-up ends and then persists; Algorithm 1 line 11, read literally, resets
  it each epoch, which Figure 4 speaks against (`--alpha_reset epoch`).
* The number of warm-up epochs is not stated anywhere: 10 of 70.
* M > 2 (Sec. A.2): one misaligned sample per anchor; a label that several modalities carry divides
  its fused confidence among them equally.
* The L2 alternative of Table 4 is given without a formula: s = 2 / (1 + d) - 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.options import UsageError, option
from methods.base import Batch, EpochPlan, Logs, Method, TrainingSet
from methods.ops import accuracy, label_shares, unimodal_losses

Features = dict[str, Tensor]


# Sec. 3.2: who supplies which modality ------------------------------------------------------------


def choose_partners(
    y: Tensor, generator: torch.Generator, pairing: str = "uniform", fused: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """For each sample i of a batch a partner j with y_j != y_i.

    y [B]; `fused` [B, C] logits, for `confusion` only -> (j [B], valid [B], fell_back [B]).
    `uniform`: any such j with equal chance. `shuffle`: a permutation, valid where labels differ.
    `confusion` (Sec. A.4): y_j must be among i's two likeliest classes, else as `uniform`.
    """
    none = torch.zeros_like(y, dtype=torch.bool)
    if pairing == "shuffle":
        j = torch.randperm(len(y), generator=generator, device=y.device)
        return j, y[j] != y, none
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


# Sec. 3.5: hard-sample weighting ------------------------------------------------------------------


def similarity(
    features: Features, y: Tensor, sources: Tensor, valid: Tensor, kind: str = "cosine"
) -> Tensor:
    """Eq. 8: s [R] in [-1, 1], mean over the replaced modalities whose source has another label.

    Row r of sources [R, M] belongs to anchor r mod B; `valid` [R]. "l2": 2 / (1 + d) - 1 with the
    Euclidean distance d; "l2_norm" divides d by its mean over the valid rows, one a modality.
    """
    anchor = torch.arange(len(sources), device=y.device) % len(y)
    replaced = (y[sources] != y[anchor, None]) & (sources != anchor[:, None])  # [R, M]
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
) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. 10, averaged: (L_mis, mean c [M], mean r [M] over the valid misaligned samples).

    features {m: [B, D_m]}, y [B], unimodal_logits {m: [B, C]}, alpha [M], sources [D, B, M] from
    `assign_sources`, valid [B]. `fuse` maps features to fused logits. The sum over valid samples is
    divided by B (Eq. 11), or with `per_valid` by their number; NaN means where there is none.
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
        ce = (1 + (similarity(features, y, rows, keep, similarity_kind) + 1) / 2) * ce
    per_anchor = torch.where(keep, ce, 0.0).view(directions, batch)
    per_anchor = per_anchor.sum(0) if reduce == "sum" else per_anchor.mean(0)
    count = valid.sum()
    loss = per_anchor.sum() / (count.clamp_min(1) if per_valid else batch)
    r = label_shares(log_p.detach(), k)
    weight = keep[:, None] / (directions * count)  # 0 / 0 = NaN where no pair is valid
    return loss, (c * weight).sum(0), (r * weight).sum(0)


class Midas(Method):
    """The method: warm-up on L_uni, then Eq. 11."""

    needs_unimodal_heads = True
    min_modalities = 2

    @dataclass(frozen=True)
    class HParams:
        """Defaults of the paper, and our choices where it is silent."""

        lam: float = option(1.0, "weight lambda of L_mis", low=0, source="Sec. A.3; 5 for kinetics")
        eta: float = option(0.05, "step of alpha", above=0, source="Sec. A.3")
        warmup_epochs: int = option(
            10,
            "epochs on L_uni alone, of 70",
            low=0,
            per_epochs=True,
            source="our choice: the paper gives no value",
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
            choices=("uniform", "shuffle", "confusion"),
            source="Sec. 3.2, Algorithm 1, Sec. A.4",
        )
        direction: str = option(
            "mean",
            "the two misaligned samples of a pair (two modalities)",
            choices=("mean", "sum", "a_only"),
            source="our choice; Sec. 3.2 makes both",
        )
        alpha_reset: str = option(
            "start",
            "when alpha returns to 1",
            choices=("start", "epoch"),
            source="Sec. 3.4; Algorithm 1 line 11",
        )

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        self.register_buffer("alpha", torch.ones(len(model.modalities), device=model.device))

    @classmethod
    def check(cls, hparams: HParams, epochs: int, modalities: list[str]) -> None:
        """Raises `UsageError` where no misaligned sample could ever be made."""
        super().check(hparams, epochs, modalities)
        if len(modalities) > 2 and hparams.direction != "mean":
            raise UsageError(f"--direction {hparams.direction} is defined for two modalities only")

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
        if self.warming_up:
            ones = {f"alpha_mean/{m}": self.alpha[k] for k, m in enumerate(f)}
            return l_uni, {"train/L_uni": l_uni.detach(), **ones}
        z = self.model.fuse(f)
        l_align = F.cross_entropy(z, y)
        logs = {
            "train/acc": accuracy(z, y),
            "train/L_align": l_align.detach(),
            "train/L_uni": l_uni.detach(),
        }
        if len(y) < len(f):  # fewer samples than modalities: no M distinct sources
            return l_align + l_uni, logs
        j, valid, fell_back = choose_partners(y, self.generator, hp.pairing, z)
        sources = assign_sources(j, len(f), hp.direction, self.generator)
        f_mis = f if hp.level == "feature" else self.model.encode(batch["inputs"])
        l_mis, c, r = misaligned_loss(
            f_mis,
            y,
            z_uni,
            self.model.fuse,
            self.alpha,
            sources,
            valid,
            hard=hp.hard_sample,
            similarity_kind=hp.similarity,
            reduce=hp.direction,
            per_valid=hp.pairing == "shuffle",
        )
        logs |= self._weigh(c, r)
        logs["train/L_mis"] = l_mis.detach()
        logs["train/n_valid"] = valid.sum() * len(sources)
        if hp.pairing == "confusion":
            logs["train/n_fallback"] = fell_back.sum()
        return l_align + l_uni + hp.lam * l_mis, logs

    def _weigh(self, c: Tensor, r: Tensor) -> Logs:
        """Eq. 5 - 7 on the same c and r as the loss; the new alpha serves from the next step on."""
        alpha, weakest = update_alpha(self.alpha, c, r, self.hparams.eta)
        used = self.alpha.clone()
        if self.hparams.weak_modality:
            self.alpha.copy_(alpha)
        logs = {}
        for m, name in enumerate(self.model.modalities):
            logs[f"train/conf_uni/{name}"], logs[f"train/conf_fused/{name}"] = c[m], r[m]
            logs[f"train/weakest/{name}"] = weakest[m].float()
            logs[f"alpha_mean/{name}"] = used[m]
        return logs

    def end_epoch(self) -> Logs:
        """alpha as it stands."""
        return {f"alpha/{name}": self.alpha[m] for m, name in enumerate(self.model.modalities)}
