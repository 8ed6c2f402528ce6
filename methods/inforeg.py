"""InfoReg: information acquisition regulation ("Adaptive Unimodal Regulation for Balanced
Multimodal Information Acquisition"; Huang, Wei, Yang, Hu; CVPR 2025, arXiv 2503.18595).

Early in training there is a window in which an encoder's Fisher information grows fast: the prime
learning window. A modality that is ahead takes up information in it and keeps the others from doing
so. InfoReg slows the encoder of such a modality, as long as its window is open, by pulling it
towards the weights that it had when the epoch began.

    `compare_modalities`     S^m = sum_i softmax(W_m f_i^m + b / M)[y_i], over the batch
    `lead`                   Delta^m = S^m - mean over l != m of S^l
    `InfoReg.after_backward` T^m = sum over the encoder's weight tensors of the mean over their
                             entries of sum_t g_t^2: one epoch's trace of the Fisher information
    `growth`                 K^m = (mean of the last w traces - that one epoch earlier) / mean of
                             the last w traces; the window is open while K^m > threshold
    `regulation`             beta^m = beta exp(tanh(Delta^m)) if Delta^m > 0 and the window is
                             open, else 0
    `InfoReg.after_backward` g <- g + beta^m (theta^m - theta^m at the start of the epoch)
    `InfoReg.forward`        L = CE(z, y) + w_uni sum_m CE(W_m f^m + b / M, y)

We read the abstract of the paper, a public summary and the authors' code
(GeWu-Lab/InfoReg_CVPR2025, main.py), not the paper's equations. More in docs/methods.md.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from common.options import option
from methods.base import Batch, EpochPlan, Logs, Method, TrainingSet
from methods.ops import accuracy, compare_modalities

CODE = "the authors' code"


def lead(score: Tensor) -> Tensor:
    """Delta [M] of scores [M]: how far each is above the mean of the others."""
    # For M = 2 the difference of the two, as in the code; the mean for M > 2 is our choice.
    return score - (score.sum() - score) / (len(score) - 1)


def growth(traces: Tensor) -> Tensor:
    """K [M] of traces [w + 1, M], the last epoch's at the end; 0 for epochs before the first."""
    # The means differ by the newest and by the oldest trace.
    total = traces[1:].sum(0)
    return (traces[-1] - traces[0]) / total.clamp_min(torch.finfo(total.dtype).tiny)


def regulation(delta: Tensor, window: Tensor, beta: float) -> Tensor:
    """beta^m [M] of leads delta [M] and bools [M], whether each modality's window is open."""
    return torch.where((delta > 0) & window, beta * torch.exp(torch.tanh(delta)), 0.0)


class InfoReg(Method):
    """Joint and unimodal losses, with a pull on the encoders that are ahead."""

    min_modalities = 2
    needs_linear_fusion = True
    traces: Tensor

    @dataclass(frozen=True)
    class HParams:
        beta: float = option(
            0.95,
            "weight of the pull",
            low=0,
            source=f"{CODE}: audio; for video it has 0.1",
            search=(0.1, 2.0, "log"),
        )
        w_uni: float = option(1.0, "weight of the unimodal losses", low=0, source=CODE)
        window: int = option(
            14, "w, epochs that a mean covers", low=1, per_epochs=True, source=f"{CODE}: 10 of 50"
        )
        threshold: float = option(
            0.05, "growth that keeps the prime learning window open", high=1, source=CODE
        )

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        traces = torch.zeros(hparams.window + 1, len(model.modalities), device=model.device)
        self.register_buffer("traces", traces)

    @torch.no_grad()
    def start_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        """Opens or closes the windows, and keeps the weights that this epoch starts from."""
        growing = growth(self.traces)
        # The first epoch has no traces yet; its windows are open (code).
        self.growth = torch.ones_like(growing) if epoch == 1 else growing
        self.open = self.growth > self.hparams.threshold
        self.trace = torch.zeros_like(growing)
        self.start = {
            m: [p.clone() for p in self.model.encoder_parameters(m)] for m in self.model.modalities
        }
        return None

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        y, hp = batch["label"], self.hparams
        f = self.model.encode(batch["inputs"])
        z, z_uni = self.model.fuse(f), self.model.split_logits(f)
        loss = l_align = self.cross_entropy(z, y)
        if hp.w_uni:
            l_uni = self.unimodal_losses(z_uni, y).sum()
            loss = loss + hp.w_uni * l_uni
        score, _ = compare_modalities(z_uni, y)
        self.beta = regulation(lead(score), self.open, hp.beta)  # read by `after_backward`
        logs = self.train_logs(acc=accuracy(z, y), L_align=l_align, beta=self.beta)
        logs |= self.train_logs(score=score / len(y))
        return loss, logs | (self.train_logs(L_uni=l_uni) if hp.w_uni else {})

    @torch.no_grad()
    def after_backward(self) -> None:
        found = []
        for m, beta in zip(self.model.modalities, self.beta):
            squares = []
            for p, start in zip(self.model.encoder_parameters(m), self.start[m]):
                if p.grad is None:
                    continue
                p.grad.add_(beta * (p - start))
                # Measured after the pull is added, as in the code. Vectors, batch norms and biases,
                # do not count; in a text encoder the embeddings do (our choice).
                if p.ndim > 1:
                    squares.append(p.grad.square().mean())
            found.append(torch.stack(squares).sum())
        self.trace += torch.stack(found)

    def end_epoch(self) -> Logs:
        self.traces.copy_(torch.cat([self.traces[1:], self.trace[None]]))
        logs = self.train_logs(trace=self.trace, growth=self.growth)
        return logs | self.train_logs(window_open=self.open.float())
