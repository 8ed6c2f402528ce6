"""A finished run used elsewhere: load_run, embeddings, plots, and the diagnosis of other models."""

import numpy as np
import pytest
import torch
from conftest import program
from test_run import finished  # noqa: F401

from common.options import UsageError
from experiments import diagnose, load_run
from experiments.report.plots import scatter
from experiments.run.folder import RunFolder

CPU = ("--devices", "cpu")


@pytest.fixture(scope="module")
def written(demo_data, finished, tmp_path_factory):  # noqa: F811
    """(folder with features.npz and plots, what evaluate.py printed)."""
    out = tmp_path_factory.mktemp("out")
    more = ("--embeddings", out / "features.npz", "--plots", out / "plots", "--probe")
    done = program("evaluate.py", finished, "--data_dir", demo_data[1], *CPU, *more)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_embeddings_and_plots_are_of_the_test_part(finished, written):  # noqa: F811
    out, said = written
    data, result = np.load(out / "features.npz"), RunFolder(finished).read_json("result.json")
    rows = (finished / "predictions.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == data["id"].tolist()
    assert data["audio"].shape == data["video"].shape == (60, 48)
    assert data["label_names"].tolist() == result["label_names"]
    z = load_run(finished).method.logits({m: torch.tensor(data[m]) for m in ("audio", "video")})
    hits = z.argmax(1).numpy() == data["label"]
    assert hits.mean() == pytest.approx(result["test/acc"])
    names = {"confusion", "reliability", "tsne-audio", "tsne-video"}
    assert {path.stem for path in (out / "plots").glob("*.png")} == names
    assert all(f"plot: {out}/plots/{name}.png" in said for name in names)


def test_a_run_is_loaded_and_predicts_as_it_did(demo_data, finished):  # noqa: F811
    run, clips = load_run(finished), demo_data[0] / "clips"
    assert run.metrics["test/acc"] == RunFolder(finished).read_json("result.json")["test/acc"]
    assert run.config["method"] == "Midas" and len(run.label_names) == 10
    header, *rows = (finished / "predictions.csv").read_text().splitlines()
    for row in rows[:3]:
        sample = dict(zip(header.split(","), row.split(",")))
        files = {"audio": clips / f"{sample['id']}.wav", "video": clips / f"{sample['id']}.avi"}
        found = run.predict(**files)
        fused = found["fused"]
        assert found.keys() == {"fused", "audio", "video"}
        assert max(fused, key=fused.get) == sample["prediction"]
        assert sum(fused.values()) == pytest.approx(1, abs=1e-5)
        assert {m: f.shape for m, f in run.model.encode(run.inputs(**files)).items()} == {
            "audio": (1, 48),
            "video": (1, 48),
        }
    for sample, message in (
        ({"audio": clips / "none.wav"}, "the run needs audio, video; given: audio"),
        (files | {"audio": "none.wav"}, "missing_file: none.wav"),
    ):
        with pytest.raises(UsageError, match=message):
            run.predict(**sample)
    with pytest.raises(UsageError, match="is not a run folder|has no config.json"):
        load_run(finished.parent)


def test_the_diagnosis_from_features_is_evaluates(finished, written):  # noqa: F811
    out, said = written
    data, run = np.load(out / "features.npz"), load_run(finished)
    features = {m: data[m] for m in ("audio", "video")}
    found = diagnose(features, data["label"], run.method.logits, (features, data["label"]))
    theirs = dict(line.split() for line in said.splitlines() if line.startswith("test/"))
    probes = {key for key in found if key.startswith("acc_probe/")}
    assert probes == {"acc_probe/audio", "acc_probe/video"} and len(found) > 10
    for name in found.keys() - probes:  # the probes of evaluate.py saw the training part
        assert float(theirs[f"test/{name}"]) == pytest.approx(found[name], abs=6e-5), name


@pytest.mark.parametrize(
    ("features", "title"),
    [
        (torch.zeros(9, 4), "audio: all features are equal"),  # scikit-learn crashes
        (torch.randn(2, 4), "audio: too few for t-SNE"),
        (torch.randn(9, 4), "audio: t-SNE of its features"),
    ],
)
def test_features_that_t_sne_cannot_place_have_a_picture_that_says_so(features, title):
    drawing = scatter(features, torch.arange(len(features)) % 2, ["a", "b"], "audio")
    assert drawing.axes[0].get_title() == title


@pytest.mark.parametrize("flags", ["--predict x --plots y", "--out x", "--plots {file}"])
def test_flags_of_evaluate_without_effect_are_refused(finished, flags):  # noqa: F811
    line = flags.format(file=finished / "config.json").split()
    done = program("evaluate.py", finished, *line)
    assert done.returncode == 2 and done.stderr.startswith("error: --")


def test_a_diagnosis_of_what_does_not_fit_is_refused():
    f, y = {"a": np.zeros((4, 3)), "b": np.zeros((4, 2))}, [0, 1, 2, 2]

    def logits(f):
        return torch.zeros(len(f["a"]), 3)

    assert diagnose(f, y, logits)["acc"] == 0.25
    for features, labels, fused, message in (
        (f | {"b": np.zeros((3, 2))}, y, logits, r"b has the shape \(3, 2\), expected \[4, D\]"),
        (f, [0, 1, 2, 3], logits, "logits gave the shape"),
        (f, y, lambda f: torch.zeros(3), "logits gave the shape"),
        (f, y, lambda f: np.zeros((4, 3)), "logits gave a ndarray, expected a tensor"),
        (f, [0, 1, 2, -1], logits, "labels must be whole numbers from 0"),
        (f, [0.5, 1, 2, 2], logits, "labels must be whole numbers from 0"),
    ):
        with pytest.raises(UsageError, match=message):
            diagnose(features, labels, fused)
