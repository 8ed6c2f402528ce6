"""A finished run in Python, without its training data.

    from experiments import load_run

    run = load_run("results/runs/demo/Midas/default/seed2")
    run.predict(audio="new.wav", video="new.avi")["fused"]  # {"0": 0.01, ..., "7": 0.93, ...}

`run.model.encode(run.inputs(...))` gives the features of each modality, `run.metrics` is
result.json, and `run.config` config.json.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from common.options import UsageError
from data_prep.modalities.base import Draw
from data_prep.pool import DONE
from data_prep.sample import extract_row
from data_prep.spec import Candidate, Spec
from experiments.run.devices import single_device
from experiments.run.folder import RunFolder
from experiments.run.metrics import probabilities
from experiments.run.predict import Unfit, inputs_of, restore, spec_of
from experiments.run.resolve import run_from_config
from methods.base import Features, Method
from models.classifier import Classifier


@dataclass
class LoadedRun:
    """A method at its best epoch, in evaluation mode, and what its inputs are made with."""

    path: Path
    config: dict[str, Any]
    metrics: dict[str, Any]  # result.json: "test/acc", ...
    label_names: list[str]
    method: Method
    spec: Spec  # modality -> its transform
    draw: Draw
    widths: dict[str, int]

    @property
    def model(self) -> Classifier:
        return self.method.model

    def inputs(self, **sample: str | Path) -> Features:
        """A batch of one sample: a file for each modality, or the text itself.

        Text pairs have a second keyword, `target`. Raises `UsageError` if a modality is missing or
        a file cannot be used.
        """
        sources: dict[str, tuple[str, ...]] = {}
        inline: dict[str, Any] = {}
        needed = [column for m, kind in self.spec.items() for column in kind.columns(m)]
        if set(needed) != sample.keys():
            raise UsageError(f"the run needs {', '.join(needed)}; given: {', '.join(sample)}")
        row = {name: str(value) for name, value in sample.items()}
        for m, modality in self.spec.items():
            paths, content = modality.from_row(m, row)
            sources[m] = tuple(str(Path(path).absolute()) for path in paths)
            if content is not None:
                inline[m] = content
        candidate = Candidate("sample", 0, sources, inline=inline)
        made = extract_row(Path("/"), self.spec, self.path, candidate)
        try:
            return inputs_of(DONE, made, self.spec, self.draw, self.widths)
        except Unfit as why:
            raise UsageError(str(why)) from None

    @torch.no_grad()
    def predict(self, **sample: str | Path) -> dict[str, dict[str, float]]:
        """Class probabilities of a sample (see `inputs`): "fused", and those of each modality."""
        found = probabilities(self.method, self.model.encode(self.inputs(**sample)))
        return {name: dict(zip(self.label_names, p[0].tolist())) for name, p in found.items()}


def load(path: Path, device: str) -> LoadedRun:
    """The run in a folder; raises `UsageError` if it is not finished or damaged."""
    folder = RunFolder(path)
    config = folder.read_json("config.json")
    if folder.state != "done":
        raise UsageError(f"{path} is {folder.state}, not done: finish it with its train.py command")
    run, result = run_from_config(config), folder.read_json("result.json")
    spec = spec_of(run, config)
    method, widths = restore(folder, run, spec, result, single_device(device))
    draw = Draw(run.settings.size, vocabulary=folder.vocabulary(result))
    return LoadedRun(path, config, result, result["label_names"], method, spec, draw, widths)
