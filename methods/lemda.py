"""LeMDA: learned multimodal data augmentation in feature space (Liu et al., ICLR 2023).

G, a variational auto-encoder, perturbs the concatenated features x. The task network (encoders and
fusion layer) trains on x and G(x). G is trained to raise the loss on G(x) without changing
predictions that are confident on x.

    G(x) = x + noise                              `MlpVae`, `hidden_sizes`; `TransformerVae`
    encoders, fusion: min CE(z) + CE(z_aug)       `LeMDA.forward`
    G: max CE(z_aug), with weight adv             `LeMDA.forward`
    G: min KL(p_aug || p) if max p > t            `consistency`
    G: min mean (G(x) - x)^2                      `LeMDA.forward`
    G: min KL(latent || normal)                   `kl_to_normal`

We could not read the paper: its objectives (minimise the sum of both CE; maximise CE(z_aug) and
minimise the consistency loss) are second-hand, from reading notes. The rest follows the authors'
code, lzcemma/LeMDA, under text/src/autogluon/text/automm: models/augment_network.py, fusion.py and
mlp.py, optimization/lit_module.py and utils.py ("the code"). More in docs/methods.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.options import UsageError, option
from methods.base import Batch, Logs, Method, choice
from methods.ops import accuracy

CODE = "public code"
DROPOUT = 0.5  # of the MLP, public code
HEADS, FEEDFORWARD = 8, 2048  # of the transformer, public code; its dropout is torch's 0.1


def consistency(z_aug: Tensor, z: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """(mean KL(p_aug || p), with 0 unless max p > threshold; share of such rows) for [B, C]."""
    log_p_aug, log_p = F.log_softmax(z_aug, 1), F.log_softmax(z.detach(), 1)
    confident = log_p.exp().amax(1) > threshold
    divergence = (log_p_aug.exp() * (log_p_aug - log_p)).sum(1)
    return (divergence * confident).mean(), confident.float().mean()


def kl_to_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, I)) / (B K), for [B, K] or, with tokens, [B, M, K]."""
    total = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()
    return total / (mu.shape[0] * mu.shape[-1])


def sample_latent(mu: Tensor, logvar: Tensor, generator: torch.Generator) -> Tensor:
    """mu + exp(logvar / 2) eps, eps ~ N(0, I), in the shape of mu."""
    eps = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
    return mu + (logvar / 2).exp() * eps


def hidden_sizes(d: int, latent: int, n_layer: int) -> list[int]:
    """The code's layer widths between d features and the latent, in equal steps."""
    step = (d - latent) // (n_layer + 1)
    sizes = list(range(d - step, latent + step, -step)) if step > 0 else []
    if not sizes:
        no_layer = f"--latent {latent} with --n_layer {n_layer} leaves no layer below {d} features"
        raise UsageError(f"{no_layer}: their sum must be below {d}, and --n_layer at least 2")
    return sizes


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def units(sizes: list[int]) -> list[nn.Module]:
    """The MLP's layers between consecutive sizes."""
    return [
        nn.Sequential(nn.LayerNorm(a), nn.Linear(a, b), nn.ReLU(), nn.Dropout(DROPOUT))
        for a, b in pairwise(sizes)
    ]


class MlpVae(nn.Module):
    """G on the concatenated features: x [B, d] -> (x + noise, mu and logvar [B, latent])."""

    def __init__(self, d: int, latent: int, n_layer: int, last_act: str = "linear"):
        super().__init__()
        sizes = [d, *hidden_sizes(d, latent, n_layer)]
        self.encoder = nn.Sequential(*units(sizes))
        self.mu, self.logvar = nn.Linear(sizes[-1], latent), nn.Linear(sizes[-1], latent)
        last: list[nn.Module] = [nn.LayerNorm(sizes[1]), zero_linear(sizes[1], d)]
        # As released, the ReLU sees exactly 0, where its derivative is 0: the layer never gets a
        # gradient and G stays the identity. We end in the linear layer, like its transformer.
        if last_act == "relu":
            last += [nn.ReLU(), nn.Dropout(DROPOUT)]
        self.decoder = nn.Sequential(*units([latent, *reversed(sizes[1:])]), *last)

    def forward(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.encoder(x)
        mu, logvar = self.mu(hidden), self.logvar(hidden)
        return x + self.decoder(sample_latent(mu, logvar, generator)), mu, logvar


class TransformerVae(nn.Module):
    """G on one token per modality: x [B, M D] -> (x + noise, mu and logvar [B, M, latent]).

    Raises `UsageError` unless all features have the same width, a multiple of 8. If the encoders
    differ in kind (text and images, vectors), --image_width is needed.
    """

    def __init__(self, widths: dict[str, int], latent: int, n_layer: int):
        super().__init__()
        width = next(iter(widths.values()))
        if set(widths.values()) != {width} or width % HEADS:
            seen = ", ".join(f"{m} {w}" for m, w in widths.items())
            needs = f"--network trans_vae needs features of equal width, a multiple of {HEADS}"
            raise UsageError(f"{needs}; got {seen}; use --network mlp_vae")

        def stack() -> nn.TransformerEncoder:
            layer = nn.TransformerEncoderLayer(
                width, HEADS, FEEDFORWARD, batch_first=True, norm_first=True
            )
            return nn.TransformerEncoder(layer, n_layer, enable_nested_tensor=False)

        self.encoder, self.decoder = stack(), stack()
        self.mu, self.logvar = nn.Linear(width, latent), nn.Linear(width, latent)
        self.widen, self.last = nn.Linear(latent, width), zero_linear(width, width)
        self.shape = (len(widths), width)

    def forward(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        # The code mistakes [B, M, D] for [M, B, D] and so attends across the batch.
        hidden = self.encoder(x.unflatten(1, self.shape))
        mu, logvar = self.mu(hidden), self.logvar(hidden)
        hidden = self.decoder(self.widen(sample_latent(mu, logvar, generator)))
        return x + self.last(hidden).flatten(1), mu, logvar


class LeMDA(Method):
    """Trains both networks in one step; evaluation is Joint's, without G."""

    min_modalities = 2
    needs = {"last_act": ("network", "mlp_vae")}
    augmenter: nn.Module

    @dataclass(frozen=True)
    class HParams:
        network: str = choice("mlp_vae trans_vae", "which G", CODE)
        last_act: str = choice(
            "linear relu",
            "end of mlp_vae; with relu (as released) G stays the identity",
            "our repair of the public code",
        )
        latent: int = option(8, "width of the latent", low=1, source=CODE)
        n_layer: int = option(4, "layers of G's encoder", low=1, source=CODE)
        adv: float = option(
            1e-4, "weight of maximising CE(z_aug)", low=0, source=CODE, search=(0.0001, 0.1, "log")
        )
        w_consist: float = option(
            0.01, "weight of the consistency loss", low=0, source=CODE, search=(0.01, 1.0, "log")
        )
        w_reg: float = option(0.1, "weight of (G(x) - x)^2", low=0, source=CODE)
        w_kld: float = option(0.1, "weight of the latent's KL", low=0, source=CODE)
        threshold: float = option(0.5, "confidence for consistency", low=0, high=1, source=CODE)
        aug_lr: float = option(1e-4, "learning rate of G's Adam", above=0, source=CODE)
        clip: float = option(1.0, "gradient clipping norm; 0: off", low=0, source=CODE)
        task_sum: bool = option(
            False, "sum both cross-entropies, do not average", source=f"{CODE}; paper: on"
        )
        consist_train_head: bool = option(
            True, "consistency also trains the fusion layer", source=f"{CODE}; paper: off"
        )

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        hp, widths = hparams, model.widths
        if hp.network == "trans_vae":
            self.augmenter = TransformerVae(widths, hp.latent, hp.n_layer)
        else:
            self.augmenter = MlpVae(sum(widths.values()), hp.latent, hp.n_layer, hp.last_act)

    def optimizers(self, base: Callable) -> list[torch.optim.Optimizer]:
        # The training loop gives both a StepLR; in the code, only the task optimizer has one.
        adam = torch.optim.Adam(self.augmenter.parameters(), lr=self.hparams.aug_lr)
        return [base(self.model.parameters()), adam]

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        y, hp, widths = batch["label"], self.hparams, self.model.widths

        def fuse(x: Tensor) -> Tensor:
            parts = x.split(list(widths.values()), dim=1)
            return self.model.fuse(dict(zip(widths, parts)))

        f = self.model.encode(batch["inputs"])
        z = self.model.fuse(f)
        # [B, d]. Detached, as in the code; in the paper, CE(z_aug) trains the encoders too.
        x = torch.cat(list(f.values()), dim=1).detach()
        x_aug, mu, logvar = self.augmenter(x, self.generator)
        l_align = self.cross_entropy(z, y)
        # The fusion layer minimises this loss; G maximises it, with weight `adv`.
        flipped = x_aug.detach() - hp.adv * (x_aug - x_aug.detach())
        l_aug = self.cross_entropy(fuse(flipped), y)
        l_task = l_align + l_aug if hp.task_sum else (l_align + l_aug) / 2
        # z is the target: the fusion layer has no dropout, so a second pass would be the same.
        if hp.consist_train_head:
            z_aug = fuse(x_aug)
        else:  # the fusion layer's weights are constants here
            constants = {name: p.detach() for name, p in self.model.fusion.named_parameters()}
            z_aug = torch.func.functional_call(self.model.fusion, constants, (x_aug,))
        l_consist, confident = consistency(z_aug, z, hp.threshold)
        l_reg, l_kld = F.mse_loss(x_aug, x), kl_to_normal(mu, logvar)
        logs = self.train_logs(acc=accuracy(z, y), L_align=l_align, L_aug=l_aug)
        logs |= self.train_logs(L_consist=l_consist, L_reg=l_reg, L_kld=l_kld)
        logs |= self.train_logs(confident=confident, noise=(x_aug - x).abs().mean())
        return l_task + hp.w_consist * l_consist + hp.w_reg * l_reg + hp.w_kld * l_kld, logs

    def after_backward(self) -> None:
        if self.hparams.clip:
            nn.utils.clip_grad_norm_(self.parameters(), self.hparams.clip)
