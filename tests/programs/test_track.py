"""Trackers: what a run that was killed once leaves in TensorBoard, W&B (offline) and MLflow."""

import pytest
from conftest import program, start
from test_run import words

EPOCHS = [1, 2, 3, 4]
PICTURES = {"confusion", "reliability", "tsne-audio", "tsne-video"}


@pytest.fixture(scope="module")
def tracked(demo_data, tmp_path_factory):
    """(results folder, the run's folder, its output)."""
    results = tmp_path_factory.mktemp("tracked")
    line = words(demo_data, results / "run", "--track", "tensorboard,wandb,mlflow", method="Joint")
    line += ["--results_dir", str(results)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        process = start(line)
        lines = iter(process.stdout.readline, "")
        assert any(line.startswith("epoch") for line in lines)
        process.kill()
        process.communicate()
        done = program(*line)
    assert done.returncode == 0, done.stderr
    return results, results / "run", done


@pytest.mark.slow
def test_tensorboard_has_every_epoch_and_the_pictures(tracked):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tracked[1] / "tensorboard")).Reload()
    assert sorted({e.step for e in events.Scalars("val/acc")}) == EPOCHS
    assert len(events.Scalars("test/acc")) == 1
    assert set(events.Tags()["images"]) == PICTURES


@pytest.mark.slow
def test_mlflow_has_one_run_with_its_settings(tracked):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tracked[0] / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'midas'")
    (run,) = client.search_runs([experiment.experiment_id])
    steps = {m.step for m in client.get_metric_history(run.info.run_id, "val/acc")}
    assert (sorted(steps), run.info.status) == (EPOCHS, "FINISHED")
    assert run.data.params["lr"] == "0.045" and run.data.params["method"] == "Joint"
    assert 0 < run.data.metrics["test/acc"] <= 1
    found = {item.path for item in client.list_artifacts(run.info.run_id, "plots")}
    assert found == {f"plots/{name}.png" for name in PICTURES}


@pytest.mark.slow
def test_wandb_keeps_the_run_offline_under_one_id(tracked):
    folders = sorted((tracked[1] / "wandb").glob("offline-run-*"))
    assert len(folders) == 2  # before and after the kill; `wandb sync` joins them by their id
    ids = {next(folder.glob("run-*.wandb")).stem for folder in folders}
    assert len(ids) == 1
    images = {p.name.split("_")[0] for p in folders[1].glob("files/media/images/*.png")}
    assert images == PICTURES


@pytest.mark.slow
def test_a_finished_run_is_not_tracked_again(demo_data, tracked):
    before = {p: p.stat().st_mtime_ns for p in tracked[1].rglob("*") if p.is_file()}
    line = words(demo_data, tracked[1], "--track", "tensorboard", method="Joint")
    assert program(*line).stdout.startswith("done: ")
    assert {p: p.stat().st_mtime_ns for p in tracked[1].rglob("*") if p.is_file()} == before
