"""The code in README and docs runs as written, and their commands exist."""

import re
import shlex
import sys
import types
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, facts, tiny_batch, tiny_model

import methods
from common.options import UsageError
from data_prep import datasets, modalities
from data_prep.modalities.base import Draw
from data_prep.spec import Candidate
from experiments.report.own import TUNED
from experiments.run.given import each_seed
from experiments.run.resolve import resolve
from models.build import Choice, Stream, build_encoder

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def block(words):
    """The Python block that contains `words`."""
    (text,) = [b for b in re.findall(r"```python\n(.*?)```", TEXT, re.S) if words in b]
    return text


def test_the_loss_in_a_custom_loop_trains_encoders_and_heads():
    space = {}
    exec(block("def midas_loss"), space)
    inputs = {m: torch.randn(16, 5) for m in "av"}
    encoders = {m: torch.nn.Linear(5, 6) for m in "av"}
    heads = {m: torch.nn.Linear(6, 4) for m in "av"}
    last = torch.nn.Linear(12, 4)
    y = torch.arange(16) % 4
    modules = torch.nn.ModuleList([*encoders.values(), *heads.values(), last])
    optimizer, losses = torch.optim.SGD(modules.parameters(), lr=0.1), []
    for _ in range(200):
        f = {m: encoders[m](inputs[m]).relu() for m in "av"}
        loss = space["midas_loss"](f, y, heads, lambda f: last(torch.cat([f["a"], f["v"]], 1)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert (space["alpha"] >= 1).all()


@pytest.fixture
def smooth(monkeypatch):
    """The registered method of the example."""
    module = types.ModuleType("methods.smooth")
    monkeypatch.setitem(sys.modules, "methods.smooth", module)
    exec(block("class Smooth"), module.__dict__)
    monkeypatch.setitem(methods.METHODS, "Smooth", ("methods.smooth", "Joint with label smoothing"))


def test_the_method_example_is_registered_and_trains(smooth):
    run, _ = resolve(["--method", "smooth", "--smoothing", "0.2"], "")
    assert run.hparams.smoothing == 0.2 and run.differing == {"smoothing": 0.2}
    method = methods.load("Smooth")(tiny_model(heads=False), run.hparams, facts())
    loss, _ = method(tiny_batch())
    loss.backward()
    assert loss.isfinite() and method.model.fusion.weight.grad is not None


def test_the_layout_example_finds_its_samples(tmp_path):
    module = types.ModuleType("pets")
    sys.modules["pets"] = module  # dataclasses look up their module
    exec(block('LABELS = ("cat", "dog")'), module.__dict__)
    for name in ("cat/a.mp4", "dog/b.mp4", "dog/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    scan = module.scan(tmp_path, module.Settings())
    expected = Candidate("cat/a", 0, {"audio": ("cat/a.mp4",), "video": ("cat/a.mp4",)})
    assert scan.candidates[0] == expected and len(scan.candidates) == 2
    assert module.spec(module.Settings())["audio"].shape == (257, 182)


def test_the_modality_example_reads_a_picture_for_the_encoder_that_it_names(tmp_path, monkeypatch):
    module = types.ModuleType("data_prep.modalities.depth")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(block("class Depth"), module.__dict__)
    monkeypatch.setitem(modalities.KINDS, "depth", "Depth")
    depth = modalities.load("depth")()
    cv2.imwrite(str(tmp_path / "d.png"), np.full((9, 7), 0x4321, np.uint16))
    stored = depth.extract([tmp_path / "d.png"], None, None).payload
    made = depth.to_input(stored, Draw(size=16))
    assert made.shape == (1, 1, 16, 16) and made.dtype == np.uint8 and (made == 0x43).all()
    batch = torch.from_numpy(made[None])
    values, axes, count = depth.values(batch)
    assert values.mean(axes).numel() == count == 1
    encoder = build_encoder(Stream(normalise=([0.0], [1.0]), **depth.stream()), Choice("small"))
    assert encoder(batch).shape == (1, encoder.width)


def test_the_table_example_names_runs_as_train_does(smooth):
    space = {}
    exec(block("SMOOTHING = "), space)
    table = space["SMOOTHING"]
    assert [row.label for row in table.rows][1:] == ["Smooth", "smoothing 0.05", "smoothing 0.2"]
    assert [column.block for column in table.columns] == ["CREMA-D"] * 3 + ["demo"] * 3
    for runs in table.runs():
        run, _ = resolve(runs.arguments(1), "")
        assert run.differing == dict(runs.overrides)


def test_a_list_of_custom_files_is_a_dataset(tmp_path, monkeypatch):
    for name in ("cat/a", "cat/b", "dog/a"):
        for end in ("wav", "jpg", "txt"):
            file = tmp_path / "pets" / f"{name}.{end}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("a small one, asleep\nin the sun")
    monkeypatch.chdir(tmp_path)
    exec(block("rows.writerow"), {})
    layout = datasets.load("pets/pets.csv")
    found = layout.scan(tmp_path / "pets", layout.Settings(vocabulary="build"))
    assert found.label_names == ("cat", "dog") and not found.rejected
    assert [c.id for c in found.candidates] == ["cat/a", "cat/b", "dog/a"]
    assert found.candidates[2].sources == {"audio": ("dog/a.wav",), "image": ("dog/a.jpg",)}
    assert found.candidates[2].inline["text"] == "a small one, asleep\nin the sun"


def test_each_command_names_an_existing_file_and_each_link_leads_somewhere():
    text = "\n".join(re.findall(r"^```\w*\n(.*?)^```$", TEXT, re.S | re.M))
    for name in set(re.findall(r"python ([\w/]+\.py)", text)):
        assert (ROOT / name).exists(), name
    targets, makefile = re.findall(r"^make ([\w-]+)", text, re.M), (ROOT / "Makefile").read_text()
    assert targets and all(f"\n{target}:" in makefile for target in targets)
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def commands():
    """The words of each Python command in a code block, with seeds filled in."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.S | re.M)
    text = "\n".join(body for language, body in blocks if not language).replace("\\\n", " ")
    found = re.findall(r"^(?:for .*?; do )?(python .*?)(?:; done)?$", text, re.M)
    return [shlex.split(line.replace("$seed", "1"), comments=True)[1:] for line in found]


def test_every_documented_command_is_accepted(tmp_path, monkeypatch, capsys):
    """Each runs as far as it can without real data: it shows or lists what it would do."""
    import data_prep.__main__ as preparation
    import experiments.__main__ as experiments
    import make_tables
    import train

    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets").mkdir()
    header = "id,label,audio,image,text"
    (tmp_path / "pets/pets.csv").write_text(f"{header}\na,cat,a.wav,a.jpg,x\nb,dog,b.wav,b.jpg,y\n")
    kinds, folders = Counter(), set()
    for program, *words in commands():
        if program == "-m":
            program, *words = words
        kinds[program] += 1
        if program == "train.py":
            assert train.main([*words, "--print_config"]) == 0
            run, _ = resolve(each_seed(words)[0], "")
            folder = str(run.default_folder(Path("results")))
            folders.add(re.sub(r"-[0-9a-f]{8}/", "-<digits>/", folder))
        elif program == "evaluate.py":
            assert words[0] in folders, "the run that an earlier command trains"
        elif program == "make_tables.py" and "/" in "".join(words):  # own runs
            assert any(folder.startswith(f"{words[0]}/") for folder in folders)
        elif program == "make_tables.py" and words != [TUNED]:
            assert make_tables.main([*words, "--missing"]) == 0
        elif program == "experiments" and words[0] == "tune":
            assert resolve(["--dataset", words[1]], "") and words[2] in {*methods.METHODS, "all"}
        elif program == "experiments" and words[1:2] != [TUNED]:
            dry = ["--dry_run"] if words[0] == "run" else []
            assert experiments.main([*words, *dry]) == 0
        elif program == "data_prep" and "demo" not in words:  # `make demo` prepares the demo set
            with pytest.raises(UsageError, match="RAW|no prepared cremad"):
                preparation.main(words)
    assert kinds["train.py"] >= 4 and kinds["evaluate.py"] == 2 and kinds["experiments"] >= 4
