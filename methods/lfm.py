"""LFM: facilitating multimodal classification via dynamically learning the modality gap
(NeurIPS 2024).

Modalities find the labels unequally hard to fit, so fitting labels alone makes one of them lead.
LFM adds a label-free loss that matches the modalities' predictions, and moves the weight between
the two losses from epoch to epoch.

    L_cls     CE(o, y), o the fused logits
    L_match   `matching_loss`   divergence of the modalities' predictions, no labels
    loss      `LFM.forward`     factor * (alpha_cls L_cls + alpha_match L_match)
    weights   alpha_cls + alpha_match = 1, set once an epoch before training:
              fixed             they stay at their start
              heuristic         `heuristic_alpha_match`
              fitted            `fitted_alpha_cls`, a polynomial of the epoch
              hvp               `hessian_vector_mean` on a few held-out samples, then a step
              hypergrad         `hypergradient` on the same samples, then a step

We could read its abstract and public summaries, not the paper. Public code: njustkmg/NeurIPS24-LFM
(Crema_epoch.py, Crema_epoch_learnable.py) and GeWu-Lab/BalanceBenchmark
(balancemm/trainer/LFM_trainer.py). Variants and what is ours:

* `balancebench` (default: MIDAS's baselines follow that benchmark, an inference): o from the
  concatenation head, each modality's logits its slice of that head, start alpha_match 0.05, hvp.
  `official`: a linear head on each modality, o the mean of their logits, start alpha_match 0.95,
  fitted. The start values are the public codes' own and opposite to each other.
* `kl_code` is what both codes compute: KL(mixture || modality), arguments the other way round than
  in the Jensen-Shannon divergence that they name; it is not bounded. `js` is that divergence.
* The abstract calls the loss contrastive; neither code has negatives. `infonce` is an inference;
  its temperature is a key of the official configuration that no file there reads.
* `heuristic`: the formula is second-hand; that it multiplies L_match is an inference.
* `fitted`: the official coefficients, fitted to a curve of 200 epochs of CREMA-D, exceed 1 at
  epochs 177 to 188: clipped, and stretched to the run's length (our choice; both switch off).
* `hvp` is the published rule, not the bilevel gradient: the mean, over the first tensor of the
  first encoder, of the Hessian of the loss times the gradient of L_cls. With its rate alpha hardly
  moves, so the start value decides. `hypergrad` is the gradient through one plain SGD step
  (an inference), with a rate and a start (alpha_match 0.95) of our own, not tuned; the rate is
  halved as in hvp.
* Held-out samples come out of the training part, as in the official code (which uses 8 of its 16);
  the benchmark takes a quarter of a validation batch. They pass in evaluation mode, so that batch
  norm's running statistics do not absorb them; `held_out_mode train` is the benchmark's way. Mode
  and number are our choice. The training batch of hypergrad passes in the same mode.
* In `official` the fusion layer exists and is never used: `acc_split` of its runs means nothing.
* More than two modalities: L_match is the mean over pairs, as in BalanceBenchmark.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from common.options import UsageError, option
from methods.base import Batch, EpochPlan, Logs, Method, TrainingSet
from methods.ops import CommonWidth, accuracy, jensen_shannon

Features = dict[str, Tensor]

# Crema_epoch.py: alpha_cls of epoch e, counted from 0, is sum_k FITTED[k] e^k for 200 epochs.
FITTED = (2.04623704e-1, 3.35472727e-3, 1.22989557e-4, -2.92947416e-6, 2.23835486e-8,
          -5.39717505e-11)  # fmt: skip
FITTED_EPOCHS = 200
CODE = "public code"
STEP_SAMPLES = 64  # of hypergrad's step: a batch of the shared protocol (a method knows no other)


# The matching loss --------------------------------------------------------------------------------


def mixture_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """[KL(M || P) + KL(M || Q)] / 2 of each row of two [..., C] log-probabilities, M their mean.

    The public codes' divergence, from logarithms alone: no probability underflows to log 0.
    """
    log_mean = torch.logaddexp(log_p, log_q) - math.log(2)
    return (log_mean.exp() * (log_mean - (log_p + log_q) / 2)).sum(-1)


def contrast(f: Tensor, g: Tensor, tau: float) -> Tensor:
    """Symmetric InfoNCE by cosines of two features [B, D]; equal rows belong together."""
    s = F.normalize(f, dim=1) @ F.normalize(g, dim=1).T / tau
    own = torch.arange(len(s), device=s.device)
    return (F.cross_entropy(s, own) + F.cross_entropy(s.T, own)) / 2


def matching_loss(values: Features, kind: str = "kl_code", tau: float = 0.4) -> Tensor:
    """L_match: the mean over samples and over unordered pairs of modalities.

    values {m: [B, C]} are logits for `kl_code` and `js`, features of one width for `infonce`.
    """
    if kind == "infonce":
        pairs = itertools.combinations(values.values(), 2)
        return torch.stack([contrast(f, g, tau) for f, g in pairs]).mean()
    divergence = {"kl_code": mixture_divergence, "js": jensen_shannon}[kind]
    log_p = [F.log_softmax(z, dim=1) for z in values.values()]
    return torch.stack(
        [divergence(p, q).mean() for p, q in itertools.combinations(log_p, 2)]
    ).mean()


# How the weights move -----------------------------------------------------------------------------


def mixed(l_cls: Tensor, l_match: Tensor, alpha_match: Tensor) -> Tensor:
    """alpha_cls L_cls + alpha_match L_match, alpha_cls = 1 - alpha_match: losses or gradients."""
    alpha_cls = 1 - alpha_match
    return alpha_cls.to(l_cls.dtype) * l_cls + alpha_match.to(l_cls.dtype) * l_match


def heuristic_alpha_match(epoch: int) -> float:
    """1 - exp(-1 / t) for epoch t = 1, 2, ...: matching first, labels later."""
    return -math.expm1(-1 / epoch)


def fitted_alpha_cls(e: float, clip: bool = True) -> float:
    """The official polynomial at epoch e of 200, counted from 0; clipped to [0, 1] if asked."""
    value = sum(c * e**k for k, c in enumerate(FITTED))
    return min(max(value, 0.0), 1.0) if clip else value


def gradients(loss: Tensor, parameters: Sequence[Tensor], **how: bool) -> tuple[Tensor, ...]:
    """The gradient for each parameter, zeros for one that the loss does not depend on."""
    return torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True, **how)


def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """The inner product of two lists of tensors of equal shapes."""
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()


def hessian_vector_mean(
    l_cls: Tensor,
    l_match: Tensor,
    parameters: Sequence[Tensor],
    first: Tensor,
    alpha_match: Tensor,
) -> Tensor:
    """hvp: the mean over the entries of `first` of H v, v = grad L_cls; a scalar.

    H is the Hessian of the mixed loss over all `parameters`, of which `first` is one. Only the
    entries of H v that count are computed, as the gradient of <grad L, v> for `first`.
    """
    v = gradients(l_cls, parameters, retain_graph=True)
    slope = gradients(mixed(l_cls, l_match, alpha_match), parameters, create_graph=True)
    return gradients(dot(slope, v), [first])[0].mean()


def hypergradient(
    losses: Callable[[], tuple[Tensor, Tensor]],
    held_out_loss: Callable[[], Tensor],
    parameters: Sequence[Tensor],
    alpha_match: Tensor,
    eta: float,
) -> Tensor:
    """d L_cls(theta'; V) / d alpha_match for theta' = theta - eta * grad L(theta), a scalar.

    `losses` gives (L_cls, L_match) of a training batch and `held_out_loss` L_cls of V, both at the
    parameters as they are when called; those are moved in place and restored to the bit. The closed
    form needs no second derivatives:
    -eta * <grad L_cls(theta'; V), grad L_match(theta) - grad L_cls(theta)>.
    """
    l_cls, l_match = losses()
    of_cls = gradients(l_cls, parameters, retain_graph=True)
    of_match = gradients(l_match, parameters)
    step = [mixed(c, m, alpha_match) for c, m in zip(of_cls, of_match)]
    kept = [p.detach().clone() for p in parameters]
    try:
        with torch.no_grad():
            for p, d in zip(parameters, step):
                p.sub_(d, alpha=eta)
        after = gradients(held_out_loss(), parameters)
    finally:
        with torch.no_grad():
            for p, before in zip(parameters, kept):
                p.copy_(before)
    return -eta * dot(after, [m - c for c, m in zip(of_cls, of_match)])


@contextmanager
def apart(device: torch.device) -> Iterator:
    """For passes beside training: eager encoders, plain attention, no trace in the global draws.

    Neither compiled encoders nor fused attention have second derivatives. The data loader draws
    from torch's generator too.
    """
    devices = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices),
        torch.compiler.set_stance("force_eager"),
        sdpa_kernel(SDPBackend.MATH),
    ):
        yield


def read(train: TrainingSet, indices: Tensor, transforms: str) -> Batch:
    """The samples at `indices` [K] of the training part as one batch."""
    parts = list(train.batches(indices=indices.tolist(), transforms=transforms))
    inputs = {m: _joined([p["inputs"][m] for p in parts]) for m in parts[0]["inputs"]}
    return {"label": torch.cat([p["label"] for p in parts]), "inputs": inputs}


def _joined(parts: list[Tensor]) -> Tensor:
    """Batches as one. Texts and vectors are as long as a batch's longest: zeros are padding."""
    most = [max(sizes) for sizes in zip(*(x.shape for x in parts))]
    whole = parts[0].new_zeros(sum(map(len, parts)), *most[1:])
    for rows, x in zip(whole.split([len(x) for x in parts]), parts):
        rows[tuple(map(slice, x.shape))] = x
    return whole


class LFM(Method):
    """The method: L_cls and L_match under weights that move from epoch to epoch."""

    min_modalities = 2

    @dataclass(frozen=True)
    class HParams:
        """Defaults of BalanceBenchmark's implementation; the official one by `variant`."""

        variant: str = option(
            "balancebench",
            "whose logits, mode and start",
            choices=("balancebench", "official"),
            source="an inference: MIDAS follows BalanceBenchmark",
        )
        alpha_mode: str = option(
            "auto",
            "how alpha moves (auto: hvp, or fitted for official)",
            choices=("auto", "fixed", "heuristic", "fitted", "hvp", "hypergrad"),
            source="public codes; fixed and hypergrad: our choice",
        )
        alpha_match: float = option(
            -1.0,
            "weight of L_match at the start, 0 to 1 (-1: 0.05, or 0.95 for official and hypergrad)",
            low=-1,
            high=1,
            source=CODE,
        )
        lr_alpha: float = option(1e-4, "step of alpha, hvp", above=0, source=CODE)
        lr_alpha_hyper: float = option(10.0, "step of alpha, hypergrad", above=0)
        halve_every: int = option(20, "epochs between halvings; 0: never", low=0, source=CODE)
        alpha_low: float = option(0.05, "least learnt alpha_match", low=0, high=1, source=CODE)
        alpha_high: float = option(0.95, "largest learnt alpha_match", low=0, high=1, source=CODE)
        match: str = option(
            "kl_code",
            "the matching loss",
            choices=("kl_code", "js", "infonce"),
            source="public codes; js and infonce: an inference",
        )
        tau: float = option(0.4, "temperature of infonce", above=0, source="an inference")
        factor: float = option(2.0, "factor of the whole loss", above=0, source=CODE)
        clip_fitted: bool = option(True, "fitted: keep both weights in [0, 1]")
        fitted_rescale: bool = option(True, "fitted: stretch 200 epochs to --max_epochs")
        held_out: int = option(
            16, "training samples kept for hvp and hypergrad", low=2, source="official code"
        )
        held_out_mode: str = option("eval", "batch norm's mode on them", choices=("eval", "train"))

    def __init__(self, model, hparams, facts):
        """Raises `UsageError` where the samples kept for alpha leave fewer than two to train on."""
        super().__init__(model, hparams, facts)
        self.mode, start = self.resolved(hparams)
        self.learns = self.mode in ("hvp", "hypergrad")
        # float64: hvp's steps are smaller than what float32 resolves beside 0.95.
        scalar = {"dtype": torch.float64, "device": model.device}
        self.register_buffer("alpha_match", torch.tensor(start, **scalar))
        if hparams.match == "infonce":
            self.common = CommonWidth(model.widths)
        if not self.learns:
            return
        if hparams.held_out > facts.train_size - 2:
            raise UsageError(
                f"--held_out {hparams.held_out} leaves too few of {facts.train_size} training"
                " samples; give less"
            )
        rate = hparams.lr_alpha if self.mode == "hvp" else hparams.lr_alpha_hyper
        self.register_buffer("alpha_lr", torch.tensor(rate, **scalar))
        draw = torch.Generator().manual_seed(facts.seed)  # on the CPU: the same on every device
        order = torch.randperm(facts.train_size, generator=draw)
        self.register_buffer("held_out", order[: hparams.held_out].to(model.device))

    @staticmethod
    def resolved(hparams: HParams) -> tuple[str, float]:
        """The mode and the start of alpha_match that `auto` and -1 stand for."""
        official = hparams.variant == "official"
        mode = hparams.alpha_mode
        if mode == "auto":
            mode = "fitted" if official else "hvp"
        own = 0.95 if official or mode == "hypergrad" else 0.05
        return mode, own if hparams.alpha_match == -1 else hparams.alpha_match

    @classmethod
    def has_unimodal_heads(cls, hparams: HParams) -> bool:
        """Only the official variant's logits are those of heads."""
        return hparams.variant == "official"

    @classmethod
    def check(cls, hparams: HParams, epochs: int, modalities: list[str]) -> None:
        """Raises `UsageError` for a start of alpha that cannot be, or that nothing would use."""
        super().check(hparams, epochs, modalities)
        mode, _ = cls.resolved(hparams)
        if -1 < hparams.alpha_match < 0:
            raise UsageError(
                f"--alpha_match {hparams.alpha_match:g} is refused: it takes 0 to 1, or -1 for the"
                " variant's own"
            )
        if hparams.alpha_match >= 0 and mode in ("heuristic", "fitted"):
            raise UsageError(f"--alpha_match has no use beside --alpha_mode {mode}, which sets it")
        if hparams.alpha_low > hparams.alpha_high:
            raise UsageError(
                f"--alpha_low {hparams.alpha_low:g} is above --alpha_high {hparams.alpha_high:g}"
            )

    def optimizers(self, base: Callable) -> list[torch.optim.Optimizer]:
        """The shared one, remembered: hypergrad's step has its current learning rate."""
        self._optimizers = super().optimizers(base)
        return self._optimizers

    # Before an epoch ------------------------------------------------------------------------------

    def start_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        """Sets alpha; where it is learnt, the epoch goes without the samples kept for that.

        hypergrad needs `optimizers` to have been called.
        """
        hp, e = self.hparams, epoch - 1
        if self.mode == "heuristic":
            self.alpha_match.fill_(heuristic_alpha_match(epoch))
        elif self.mode == "fitted":
            last = max(self.facts.epochs - 1, 1)
            place = e * (FITTED_EPOCHS - 1) / last if hp.fitted_rescale else e
            self.alpha_match.fill_(1 - fitted_alpha_cls(place, hp.clip_fitted))
        if not self.learns:
            return None
        if hp.halve_every and e and e % hp.halve_every == 0:
            self.alpha_lr.mul_(0.5)
        rest = torch.ones(len(train), dtype=torch.bool, device=self.held_out.device)
        rest = rest.index_fill(0, self.held_out, False).nonzero().squeeze(1)
        self.alpha_grad = self._alpha_gradient(train, rest)
        self.alpha_match.sub_(self.alpha_lr * self.alpha_grad).clamp_(hp.alpha_low, hp.alpha_high)
        return EpochPlan(rest)

    def _alpha_gradient(self, train: TrainingSet, rest: Tensor) -> Tensor:
        """g, by which alpha_match descends; `rest` [K] are the samples that are not held out."""
        self.train(self.hparams.held_out_mode == "train")
        parameters = [p for p in self.parameters() if p.requires_grad]
        with apart(self.model.device):
            kept = read(train, self.held_out, "eval")
            if self.mode == "hvp":
                _, l_cls, l_match = self.losses(kept)
                first = next(self.model.encoder_parameters(self.model.modalities[0]))
                return hessian_vector_mean(l_cls, l_match, parameters, first, self.alpha_match)
            order = torch.randperm(len(rest), generator=self.generator, device=rest.device)
            batch = read(train, rest[order[:STEP_SAMPLES]], "train")
            return hypergradient(
                lambda: self.losses(batch)[1:],
                lambda: self.losses(kept)[1],
                parameters,
                self.alpha_match,
                self._optimizers[0].param_groups[0]["lr"],
            )

    # In a step ------------------------------------------------------------------------------------

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """(o [B, C], L_cls, L_match) of a batch."""
        f = self.model.encode(batch["inputs"])
        o = self.logits(f)
        if self.hparams.match == "infonce":
            values = self.common(f)
        else:
            official = self.hparams.variant == "official"
            values = self.model.unimodal(f) if official else self.model.split_logits(f)
        l_match = matching_loss(values, self.hparams.match, self.hparams.tau)
        return o, F.cross_entropy(o, batch["label"]), l_match

    def logits(self, features: Features) -> Tensor:
        """The concatenation head's, or the mean of the heads' in the official variant; [B, C]."""
        if self.hparams.variant == "balancebench":
            return self.model.fuse(features)
        return torch.stack(list(self.model.unimodal(features).values())).mean(0)

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """factor * (alpha_cls L_cls + alpha_match L_match)."""
        o, l_cls, l_match = self.losses(batch)
        loss = self.hparams.factor * mixed(l_cls, l_match, self.alpha_match)
        return loss, {
            "train/acc": accuracy(o, batch["label"]),
            "train/L_align": l_cls.detach(),
            "train/L_match": l_match.detach(),
        }

    def end_epoch(self) -> Logs:
        """The epoch's weights; where they are learnt, also g and the step."""
        logs = {"train/alpha_cls": 1 - self.alpha_match, "train/alpha_match": self.alpha_match}
        if self.learns:
            logs |= {"train/alpha_grad": self.alpha_grad, "train/alpha_lr": self.alpha_lr}
        return logs
