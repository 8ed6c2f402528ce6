"""Made-up runs in a results folder, to test the code that reads them."""

from common.files import file_digest
from data_prep.datasets import DATASETS
from experiments.paper import illustration as demo
from experiments.paper.figures import LETTERS
from experiments.paper.registry import needed

START = {
    "commit": "abc",
    "device": "cpu",
    "hashes": {"split": "0123456789abcdef"},
    "spec_hash": "feed",
    "threads": 1,
}


def fake_run(
    results,
    runs,
    seed,
    *,
    acc=0.9,
    epochs=4,
    best=3,
    log=None,
    done=True,
    known_log=False,
    samples=None,
    **start,
):
    """A run folder as train.py leaves it; `log(epoch)` adds keys to the lines of the log.

    It has `samples` in all parts, by default as many as in the paper. With `known_log` the result
    has the digest of the log, as train.py writes it. `start` changes the entry of env.json.
    """
    folder = runs.folder(results, seed)
    differing = dict(runs.overrides)
    hparams = {"lam": 1.0, "warmup_epochs": 1} if runs.method == "Midas" else {}
    config = {
        "dataset": runs.dataset,
        "method": runs.method,
        "seed": seed,
        "settings": {"max_epochs": epochs, "lr": 0.1},
        "prep": {},
        "hparams": hparams | differing,
        "differing": differing,
        "manifest": "",
    }
    folder.claim(config, overwrite=False)
    folder.note_start(START | start)
    for epoch in range(1, epochs + 1 if done else epochs):
        folder.append_log({"epoch": epoch, "val/acc": acc} | (log(epoch) if log else {}))
    if done:
        digest = {"log": file_digest(folder.file("log.jsonl"))} if known_log else {}
        result = {"best_epoch": best, "test/acc": acc, "time": 2.5, "val/acc": acc} | digest
        if samples := samples or DATASETS[runs.dataset][1]:
            result |= {"count/n_train": samples, "count/n_val": 0, "count/n_test": 0}
        folder.write_json("result.json", result)
    return folder


def full_log(seed, dataset="demo"):
    """Every key that the figures read, with values that differ by epoch and seed."""

    def line(epoch):
        keys = {"val/acc_mis": 0.1 * seed, "val/acc_mis_release": 0.05 * seed}
        for place, m in enumerate(LETTERS[dataset]):
            keys[f"val/conf_raw/{m}"] = (epoch + 10 * seed + place) / 100
            keys[f"val/conf_release/{m}"] = keys[f"val/conf_raw/{m}"] / 2
            keys[f"alpha/{m}"] = 1.0
            if epoch > 1:  # after the warm-up
                keys[f"alpha/{m}"] += place * epoch * seed / 10
                keys[f"train/conf_uni/{m}"] = keys[f"train/conf_fused/{m}"] = 0.5
        return keys

    return line


def fill(results, artifacts=demo.ARTIFACTS, seeds=(1, 2, 3)):
    """Every run that the artifacts need, on datasets that the figures know."""
    for runs, seed in needed(artifacts, seeds):
        log = full_log(seed, runs.dataset) if runs.dataset in LETTERS else None
        fake_run(results, runs, seed, acc=0.9 + seed / 100, log=log, known_log=True)
