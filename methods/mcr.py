"""MCR: multimodal competition regularizer (Kontras et al.; NeurIPS 2025; arXiv 2411.07335).

Encoders are players. The importance of a modality is how much the prediction changes if its feature
is swapped with another sample's. Each player raises its own importance and, in the default game,
lowers that of the others.

    J_m    `game`              E_sigma JSD(softmax(o), softmax(o with f^m replaced by f^m[sigma]))
    R      `game`              player m descends lambda (-J_m - k sum_{j != m} J_j);
                               k = -1 greedy, 0 independent, +1 collaborative
    sigma  `draw_swaps`, `swap_weights`   N permutations of the batch, and which rows count
    L_Con  `contrastive_loss`  NT-Xent over all features of the batch; positives share the class
    L_CEB  `MCR.forward`       mean (f - h(o))^2
    total  `MCR.forward`       CE(o, y) + w_uni sum_m CE(g_m(f^m), y) + R + contr L_Con + lib L_CEB

We could only read the paper's main text, not its appendix, and single files of kkontras/MCR ("the
code": agents/general_agent/helpers/Bias_Infusion.py, models/MCR_Models.py). Its class computes R
and L_Con but returns the loss without them; we add them, like its siblings. See docs/methods.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.options import option
from methods.base import Batch, Features, Logs, Method, Stage, choice
from methods.ops import CommonWidth, accuracy, jensen_shannon

SCRIPT, CODE = "kkontras/MCR: run.sh, CREMA-D", "kkontras/MCR"


def draw_swaps(count: int, batch: int, generator: torch.Generator) -> Tensor:
    """[N, B] int64: N independent uniform permutations of 0 .. B - 1."""
    return torch.rand(count, batch, generator=generator, device=generator.device).argsort(1)


def swap_weights(swaps: Tensor, y: Tensor, kind: str) -> Tensor:
    """[N, B] bool, which swaps count; swaps [N, B], y [B].

    `rand`: all. `rsl`: those with a sample of another label. `rsi`: those with another sample.
    """
    # The code redraws a permutation that leaves almost no swaps; here its rows do not count.
    if kind == "rsl":
        return y[swaps] != y
    if kind == "rsi":
        return swaps != torch.arange(len(y), device=y.device)
    return torch.ones_like(swaps, dtype=torch.bool)


def game(
    contributions: Features, bias: Tensor, o: Tensor, swaps: Tensor, weights: Tensor, strategy: str
) -> tuple[Tensor, Tensor]:
    """(R / lambda, J [M] without gradient) of contributions {m: c^m = W_m f^m [B, C]}.

    bias [C]; o [B, C] = sum_m c^m + bias; swaps and weights [N, B] from `draw_swaps` and
    `swap_weights`. J_m is the mean over the rows that count, 0 if none does. Let J_j^(m) be J_j
    with all contributions but c^m constant, both encoder and W; then R / lambda is the sum over m
    of -J_m^(m) + sum_{j != m} J_j^(m) (greedy), -J_m^(m) (independent) or -J_m
    (collaborative).
    """
    # The code does not detach o. In the greedy game its gradients cancel for M = 2; for M > 2 they
    # would work against the game instead, so we detach o there (our choice).
    log_fused = F.log_softmax(o.detach() if strategy == "greedy" else o, dim=1)

    def importance(j: str, learners: Sequence[str]) -> Tensor:
        c = {m: x if m in learners else x.detach() for m, x in contributions.items()}
        rest = sum((c[m] for m in c if m != j), start=bias)  # [B, C]
        log_p = F.log_softmax(c[j][swaps] + rest, dim=2)  # [N, B, C]
        rows = jensen_shannon(log_fused, log_p) * weights
        return rows.sum() / weights.sum().clamp_min(1)

    players = list(contributions)
    own: Features = {}  # J_m^(m), or J_m
    others: dict[str, list[Tensor]] = {m: [] for m in players}  # J_j^(m) of each m != j
    for m in players:
        own[m] = importance(m, players if strategy == "collaborative" else [m])
        for j in players:
            if j != m and strategy == "greedy":
                others[j].append(importance(j, [m]))
    r = torch.stack([sum(others[j]) - own[j] for j in players]).sum()
    return r, torch.stack(list(own.values())).detach()


def contrastive_loss(rows: Tensor, labels: Tensor, tau: float) -> Tensor:
    """NT-Xent of rows [R, D] with labels [R]: mean over all pairs (i, p), p != i with i's label, of

    -s_ip / tau + ln(exp(s_ip / tau) + sum over rows n of other labels of exp(s_in / tau)),
    s the cosine similarity; 0 if there is no pair.
    """
    # As in the code, both may be of one modality (Eq. 9: across modalities only).
    rows = F.normalize(rows, dim=1)
    s = rows @ rows.T / tau
    same = labels[:, None] == labels
    positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    against = s.masked_fill(same, -torch.inf).logsumexp(1, keepdim=True)  # -inf: no negatives
    return -(F.logsigmoid(s - against) * positive).sum() / positive.sum().clamp_min(1)


class MCR(Method):
    """All games are played at once, in one loss, in every epoch."""

    needs_unimodal_heads = True
    min_modalities = 2
    needs_linear_fusion = True

    @dataclass(frozen=True)
    class HParams:
        lam: float = option(
            0.1, "weight lambda of the game", low=0, source=SCRIPT, search=(0.001, 1.0, "log")
        )
        w_uni: float = option(
            0.01, "weight of the unimodal losses", low=0, source=SCRIPT, search=(0.0, 1.0)
        )
        contr: float = option(1.0, "weight of L_Con", low=0, source=SCRIPT)
        lib: float = option(0.0, "weight of L_CEB; 0: no h", low=0, source=SCRIPT)
        strategy: str = choice(
            "greedy independent collaborative",
            "k: a player lowers, ignores or raises the others' importance",
            "paper",
        )
        num_samples: int = option(32, "permutations per step", low=1, source=SCRIPT)
        shuffle: str = choice("rand rsl rsi", "swaps with any, other label, other sample", CODE)
        features: str = choice(
            "reuse recompute_eval",
            "features of the game: the training pass, or a second pass in evaluation mode",
            "paper: no extra pass; the code makes one, at about twice the cost",
        )
        tau: float = option(0.5, "temperature of L_Con", above=0, source=CODE)
        contr_type: str = choice("label pure", "L_Con: same class, or same sample", CODE)
        ceb_input: str = choice("logits label", "input of h", "code; label: paper Eq. 11")
        detach_uni: bool = option(
            False, "unimodal losses train the heads only", source="code: off for CREMA-D"
        )
        pretrain_epochs: int = option(
            0, "epochs on unimodal losses before --max_epochs", low=0, source="official scripts: on"
        )

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        self.common = CommonWidth(model.widths) if hparams.contr else None
        self.h = None
        if hparams.lib:  # h: [B, C] -> [B, sum_m D_m], two linear maps without bias (code)
            classes, widths = model.num_classes, model.widths.values()
            first = nn.Linear(classes, min(widths), bias=False)
            second = nn.Linear(min(widths), sum(widths), bias=False)
            self.h = nn.Sequential(first, nn.ReLU(), second)

    def stages(self, epochs: int) -> list[Stage]:
        first = self.hparams.pretrain_epochs
        return ([Stage("pretrain", first)] if first else []) + [Stage("train", epochs)]

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """Terms of weight 0 are neither computed nor logged; J is always measured."""
        y, hp = batch["label"], self.hparams
        f = self.model.encode(batch["inputs"])
        if 1 <= self.epoch <= hp.pretrain_epochs:
            l_uni = self.unimodal_losses(self.model.unimodal(f), y).sum()
            return l_uni, self.train_logs(L_uni=l_uni)
        z = self.model.fuse(f)
        loss = l_align = self.cross_entropy(z, y)
        with torch.set_grad_enabled(torch.is_grad_enabled() and hp.lam > 0):
            r, importance = self.play(batch, f, z)
        terms = {"L_align": l_align, "R": hp.lam * r}
        if hp.lam:
            loss = loss + terms["R"]
        if hp.w_uni:
            read = {m: x.detach() for m, x in f.items()} if hp.detach_uni else f
            terms["L_uni"] = self.unimodal_losses(self.model.unimodal(read), y).sum()
            loss = loss + hp.w_uni * terms["L_uni"]
        if hp.contr:
            of = y if hp.contr_type == "label" else torch.arange(len(y), device=y.device)
            rows = torch.cat(list(self.common(f).values()))
            terms["L_con"] = contrastive_loss(rows, of.repeat(len(f)), hp.tau)
            loss = loss + hp.contr * terms["L_con"]
        if hp.lib:
            source = z.detach()
            if hp.ceb_input == "label":
                source = torch.zeros_like(source).scatter(1, y[:, None], 1.0)
            terms["L_ceb"] = F.mse_loss(self.h(source), torch.cat(list(f.values()), dim=1))
            loss = loss + hp.lib * terms["L_ceb"]
        return loss, self.train_logs(acc=accuracy(z, y), J=importance, **terms)

    def play(self, batch: Batch, f: Features, z: Tensor) -> tuple[Tensor, Tensor]:
        """(R / lambda, J [M]) of features f and their fused logits z."""
        y, hp, fusion = batch["label"], self.hparams, self.model.fusion
        if hp.features == "recompute_eval":  # uses BatchNorm's running statistics unchanged
            modes = [(module, module.training) for module in self.model.encoders.modules()]
            self.model.encoders.eval()
            f = self.model.encode(batch["inputs"])
            for module, training in modes:
                module.training = training
        slices = self.model.modality_slices
        contributions = {m: f[m] @ fusion.weight[:, s].T for m, s in slices.items()}
        swaps = draw_swaps(hp.num_samples, len(y), self.generator)
        weights = swap_weights(swaps, y, hp.shuffle)
        return game(contributions, fusion.bias, z, swaps, weights, hp.strategy)
