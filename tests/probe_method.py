"""The method of `tests/probe.py`."""

import torch

from methods.base import EpochPlan, Method, Stage
from methods.ops import unimodal_losses


class Probe(Method):
    """Two stages, a second optimizer, a plan with a column, gradients halved, state kept."""

    needs_unimodal_heads = True

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        self.extra = torch.nn.Linear(facts.num_classes, facts.num_classes)
        self.register_buffer("seen", torch.zeros(facts.train_size))

    def stages(self, epochs):
        return [Stage("first", epochs - 1), Stage("second", 2, lr_scale=0.1, start="best")]

    def optimizers(self, base):
        own = {id(p) for p in self.extra.parameters()}
        rest = [p for p in self.parameters() if id(p) not in own]
        return [base(rest), torch.optim.Adam(self.extra.parameters(), lr=1e-3)]

    def start_epoch(self, epoch, train):
        labels = torch.cat([batch["label"] for batch in train.batches(indices=range(20))])
        assert len(labels) == 20
        order = torch.randperm(len(train), generator=self.generator)[:96]
        return EpochPlan(order, {"weight": 1.0 + order / len(train)})

    def forward(self, batch):
        self.seen[batch["index"]] += 1
        f = self.model.encode(batch["inputs"])
        z = self.extra(self.model.fuse(f))
        loss = torch.nn.functional.cross_entropy(z, batch["label"], reduction="none")
        expected = 1.0 + batch["index"] / len(self.seen)
        assert torch.allclose(batch["weight"], expected)
        total = (loss * batch["weight"]).mean()
        total = total + unimodal_losses(self.model.unimodal(f), batch["label"])
        return total, {"train/n_seen": torch.tensor(float(len(loss)))}

    def after_backward(self):
        for p in self.model.fusion.parameters():
            p.grad *= 0.5

    def end_epoch(self):
        return {"state/seen": self.seen.sum()}

    def logits(self, features):
        return self.extra(self.model.fuse(features))
