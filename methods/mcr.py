"""MCR: multimodal competition regularizer (Kontras et al.; NeurIPS 2025; arXiv 2411.07335).

Encoders are players. A modality matters as much as the prediction changes when its feature is
replaced by that of another sample of the batch; each player raises its own importance and, in the
default game, lowers that of the others. A contrastive term aligns the features of a class, and an
optional one asks that the prediction be enough to reconstruct the features.

    J_m    `game`              E_sigma JSD(softmax(o), softmax(o with f^m replaced by f^m[sigma]))
    R      `game`              player m learns from lambda (-J_m - k sum_{j != m} J_j);
                               k = -1 greedy, 0 independent, +1 collaborative
    sigma  `draw_swaps`, `swap_weights`   N permutations of the batch, and which rows count
    L_Con  `contrastive_loss`  NT-Xent over all features of the batch, positives share the class
    L_CEB  `reconstructor`     mean (f - h(o))^2
    total  `MCR.forward`       CE(o, y) + w_uni sum_m CE(g_m(f^m), y) + R + contr L_Con + lib L_CEB

With c^m = W_m f^m, o = sum_m c^m + b and sg = stop-gradient, the public code writes R in terms
J_j^(m): modality j is swapped, and c^i passes through sg for all i but m, encoder and slice W_i
alike.

    greedy         R = lambda sum_m [-J_m^(m) + sum_{j != m} J_j^(m)]
    independent    R = lambda sum_m [-J_m^(m)]
    collaborative  R = lambda sum_m [-J_m], nothing stopped

The terms J_j^(m) of one j have one value and differ in who learns from them. `game` evaluates each
J_j once and gives every input the gradient that it has in the sum of the terms. c^m is computed on
the B rows of the batch and then permuted: the encoders need no further pass.

Read were the paper's main text and single files of kkontras/MCR; the paper's appendix could not be
read. "Code" is agents/general_agent/helpers/Bias_Infusion.py and models/MCR_Models.py there.

* Code: the stored class computes R and L_Con and returns the loss without them. They are added
  here, as in the sibling classes of that file.
* Code: the game acts on W_m too (the paper's equations name encoders only); L_Con also takes pairs
  within a modality (Eq. 9: across modalities only); h reads the detached fused logits (Eq. 11: the
  label, `--ceb_input label`).
* Code: o in J is not detached. In the greedy game of two modalities its gradients cancel; in the
  independent one they do not, so that a player also learns from the others' J.
* Our choice: for M > 2 single modalities are swapped (the code also swaps pairs), and the greedy
  game detaches o, whose gradients no longer cancel and would work against the game.
* Our choice: the game uses the training pass's features. The code encodes a second time in
  evaluation mode, at about twice the cost (`--features recompute_eval`).
* Our choice: no pretraining by default, since MIDAS trains all methods from scratch; the official
  scripts start from encoders trained alone (`--pretrain_epochs`: same rate, the heads are kept).
* Our choice: `rsl` and `rsi` drop rows by weight; a permutation of which next to nothing is left is
  not drawn anew, as the code does.
* Our choice: features of unequal width are compared at the smallest width, which h's hidden layer
  has too; h reconstructs the features as they are.
* Our choice: a term of weight 0 is neither computed nor logged; J is always measured.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.options import option
from methods.base import Batch, Logs, Method, Stage
from methods.ops import CommonWidth, accuracy, jensen_shannon, unimodal_losses

Features = dict[str, Tensor]
SCRIPT, CODE = "kkontras/MCR: run.sh, CREMA-D", "kkontras/MCR"


# The swaps ----------------------------------------------------------------------------------------


def draw_swaps(count: int, batch: int, generator: torch.Generator) -> Tensor:
    """[N, B] int64: N independent uniform permutations of the places 0 .. B - 1."""
    return torch.rand(count, batch, generator=generator, device=generator.device).argsort(1)


def swap_weights(swaps: Tensor, y: Tensor, kind: str) -> Tensor:
    """[N, B] bool, which swaps count; swaps [N, B], y [B].

    `rand`: all, as the code. `rsl`: those that bring in another label. `rsi`: those that bring in
    another sample.
    """
    if kind == "rsl":
        return y[swaps] != y
    if kind == "rsi":
        return swaps != torch.arange(len(y), device=y.device)
    return torch.ones_like(swaps, dtype=torch.bool)


# The game -----------------------------------------------------------------------------------------


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """`x` to the last bit, with its gradient multiplied by `factor`."""
    if factor == 0:
        return x.detach()
    return x.detach() + factor * (x - x.detach())


def game(
    contributions: Features,
    bias: Tensor,
    fused: Tensor,
    swaps: Tensor,
    weights: Tensor,
    strategy: str,
) -> tuple[Tensor, Tensor]:
    """(R / lambda, J [M] without gradient).

    contributions {m: c^m [B, C]}, bias [C], fused [B, C] logits o, swaps and weights [N, B] from
    `draw_swaps` and `swap_weights`. J_m is the mean over the rows that count, 0 where none does.

    In the sum of the terms (module docstring) J_j occurs with these signs: -1 where j itself is
    live; +1, 0 or -1 where another player is; and for the bias, live in every term, their sum over
    the terms, M - 2 or -1. That sum is also the sign of J_j in R's value: 0 for two modalities.
    """
    others = {"greedy": 1.0, "independent": 0.0, "collaborative": -1.0}[strategy]
    shared = len(contributions) - 2.0 if strategy == "greedy" else -1.0
    log_fused = F.log_softmax(scale_gradient(fused, 0.0 if strategy == "greedy" else shared), dim=1)
    bias = scale_gradient(bias, shared)
    staying = {m: scale_gradient(c, others) for m, c in contributions.items()}
    values = []
    for j, c in contributions.items():
        rest = sum((staying[m] for m in staying if m != j), start=bias)  # [B, C]
        log_p = F.log_softmax(scale_gradient(c, -1.0)[swaps] + rest, dim=2)  # [N, B, C]
        # Log-probabilities are finite: the code's clamp of probabilities is not needed.
        rows = jensen_shannon(log_fused, log_p) * weights
        values.append(rows.sum() / weights.sum().clamp_min(1))
    total = torch.stack(values).sum()
    # The gradient's signs are in the inputs; the value gets its own sign here.
    return total + (shared * total - total).detach(), torch.stack(values).detach()


# The other terms ----------------------------------------------------------------------------------


def contrastive_loss(rows: Tensor, labels: Tensor, tau: float) -> Tensor:
    """NT-Xent: mean over all ordered pairs (i, p), p != i of i's label, of

    -s_ip / tau + ln(exp(s_ip / tau) + sum over rows n of other labels of exp(s_in / tau)).

    rows [R, D], labels [R], s the cosine similarity; 0 where no pair exists.
    """
    rows = F.normalize(rows, dim=1)
    s = rows @ rows.T / tau
    same = labels[:, None] == labels
    positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    against = s.masked_fill(same, -torch.inf).logsumexp(1, keepdim=True)  # -inf: no negatives
    return -(F.logsigmoid(s - against) * positive).sum() / positive.sum().clamp_min(1)


def reconstructor(classes: int, widths: dict[str, int]) -> nn.Sequential:
    """h: [B, C] -> [B, sum_m D_m], two linear maps without bias (code)."""
    hidden = min(widths.values())
    return nn.Sequential(
        nn.Linear(classes, hidden, bias=False),
        nn.ReLU(),
        nn.Linear(hidden, sum(widths.values()), bias=False),
    )


class MCR(Method):
    """The method: every game is played at once, in one loss, from the first epoch to the last."""

    needs_unimodal_heads = True
    min_modalities = 2

    @dataclass(frozen=True)
    class HParams:
        """Defaults of the official scripts for CREMA-D with ResNet-18."""

        lam: float = option(0.1, "weight lambda of the game", low=0, source=SCRIPT)
        w_uni: float = option(0.01, "weight of the unimodal losses", low=0, source=SCRIPT)
        contr: float = option(1.0, "weight of L_Con", low=0, source=SCRIPT)
        lib: float = option(0.0, "weight of L_CEB; 0 has no h", low=0, source=SCRIPT)
        strategy: str = option(
            "greedy",
            "a player lowers, ignores or raises the others' importance",
            choices=("greedy", "independent", "collaborative"),
            source="paper",
        )
        num_samples: int = option(32, "permutations a step", low=1, source=SCRIPT)
        shuffle: str = option(
            "rand",
            "swaps that count: all, with another label, with another sample",
            choices=("rand", "rsl", "rsi"),
            source=CODE,
        )
        features: str = option(
            "reuse",
            "the game's features: the training pass, or a second pass in evaluation mode",
            choices=("reuse", "recompute_eval"),
            source="paper: no extra pass; the code makes one",
        )
        tau: float = option(0.5, "temperature of L_Con", above=0, source=CODE)
        contr_type: str = option(
            "label",
            "positives of L_Con: the same class, or the same sample",
            choices=("label", "pure"),
            source=CODE,
        )
        ceb_input: str = option(
            "logits",
            "what h reads: detached fused logits, or the one-hot label",
            choices=("logits", "label"),
            source="code; label: paper Eq. 11",
        )
        detach_uni: bool = option(
            False, "the unimodal losses train the heads alone", source="code: off for CREMA-D"
        )
        pretrain_epochs: int = option(
            0,
            "epochs before --max_epochs in which each encoder learns by its own head alone",
            low=0,
            source="our choice; the official scripts pretrain",
        )

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        self.common = CommonWidth(model.widths) if hparams.contr else None
        self.h = reconstructor(model.num_classes, model.widths) if hparams.lib else None

    def stages(self, epochs: int) -> list[Stage]:
        """The games' `epochs`, after the pretraining where there is one."""
        before = self.hparams.pretrain_epochs
        pretraining = [Stage("pretrain", before)] if before else []
        return [*pretraining, Stage("train", epochs)]

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """The total of the module docstring; in pretraining the unimodal losses alone."""
        y, hp = batch["label"], self.hparams
        f = self.model.encode(batch["inputs"])
        if 1 <= self.epoch <= hp.pretrain_epochs:
            l_uni = unimodal_losses(self.model.unimodal(f), y)
            return l_uni, {"train/L_uni": l_uni.detach()}
        z = self.model.fuse(f)
        loss = l_align = F.cross_entropy(z, y)
        r, importance = self._play(batch, f, z)
        terms = {"train/L_align": l_align, "train/R": r}
        if hp.lam:
            loss = loss + r
        if hp.w_uni:
            read = {m: x.detach() for m, x in f.items()} if hp.detach_uni else f
            terms["train/L_uni"] = unimodal_losses(self.model.unimodal(read), y)
            loss = loss + hp.w_uni * terms["train/L_uni"]
        if hp.contr:
            terms["train/L_con"] = self._contrast(f, y)
            loss = loss + hp.contr * terms["train/L_con"]
        if hp.lib:
            terms["train/L_ceb"] = self._reconstruct(f, z, y)
            loss = loss + hp.lib * terms["train/L_ceb"]
        logs = {name: value.detach() for name, value in terms.items()}
        logs |= {f"train/J/{m}": importance[k] for k, m in enumerate(f)}
        return loss, logs | {"train/acc": accuracy(z, y)}

    def _play(self, batch: Batch, f: Features, z: Tensor) -> tuple[Tensor, Tensor]:
        """(R, J [M]); where lambda is 0, J alone is wanted, and nothing gets a gradient."""
        y, hp, fusion = batch["label"], self.hparams, self.model.fusion
        with torch.set_grad_enabled(torch.is_grad_enabled() and hp.lam > 0):
            if hp.features == "recompute_eval":
                f = self._encode_in_eval_mode(batch["inputs"])
            slices = self.model.modality_slices
            contributions = {m: f[m] @ fusion.weight[:, s].T for m, s in slices.items()}
            swaps = draw_swaps(hp.num_samples, len(y), self.generator)
            weights = swap_weights(swaps, y, hp.shuffle)
            r, importance = game(contributions, fusion.bias, z, swaps, weights, hp.strategy)
            return hp.lam * r, importance

    def _encode_in_eval_mode(self, inputs: dict[str, Tensor]) -> Features:
        """A second pass that neither uses nor moves BatchNorm's batch statistics."""
        modes = [(module, module.training) for module in self.model.encoders.modules()]
        self.model.encoders.eval()
        f = self.model.encode(inputs)
        for module, training in modes:
            module.training = training
        return f

    def _contrast(self, f: Features, y: Tensor) -> Tensor:
        """L_Con of all modalities' features, one under the other."""
        if self.hparams.contr_type == "pure":
            y = torch.arange(len(y), device=y.device)
        rows = torch.cat(list(self.common(f).values()))
        return contrastive_loss(rows, y.repeat(len(f)), self.hparams.tau)

    def _reconstruct(self, f: Features, z: Tensor, y: Tensor) -> Tensor:
        """L_CEB: the mean over all entries of [f^1, ..., f^M]."""
        source = z.detach()
        if self.hparams.ceb_input == "label":
            source = torch.zeros_like(source).scatter(1, y[:, None], 1.0)
        return F.mse_loss(self.h(source), torch.cat(list(f.values()), dim=1))
