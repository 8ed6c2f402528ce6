#!/usr/bin/env python3
"""Trains one run. The same command resumes a stopped run and leaves a finished one unchanged.

python train.py                                                  the embedded demo, MIDAS
python train.py --dataset cremad --dataset_root RAW --method Midas --devices 0
python train.py --dataset cremad --method Joint --seeds 1 2 3    three runs, one after another
python train.py --method Midas --help                            help, with the flags of MIDAS
"""

from __future__ import annotations

import math
import sys
import time
import traceback
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.files import to_json
from common.options import UsageError
from common.program import duration, explain
from common.program import run as run_program
from common.stop import Stop, follow_launcher
from experiments.run.devices import LOST, device_names, in_group, reported, train_together
from experiments.run.folder import ReadOnlyFolder, RunFolder
from experiments.run.given import each_seed
from experiments.run.resolve import Run, resolve
from experiments.run.track import open_trackers, tracker_names

if TYPE_CHECKING:  # import torch only when needed
    from experiments.run.session import Session


def main(argv: list[str]) -> int:
    """Resolves the run and trains it unless it is done."""
    follow_launcher()
    commands = each_seed(argv)
    if len(commands) > 1:
        return next(filter(None, map(main, commands)), 0)  # ends with the first that fails
    run, args = resolve(commands[0], __doc__)
    if run is None:
        return 0
    if args.print_config:
        print(to_json(run.config()), end="")
        return 0
    tracker_names(args.track)
    folder = RunFolder(args.output_dir or run.default_folder(Path(args.results_dir)))
    folder.check(None if args.overwrite else run.config())
    if folder.state == "done" and not args.overwrite:
        result = folder.read_json("result.json")
        if args.dataset_root:
            check_root(run, args, folder)
        print(f"done: {folder.path}  test/acc {result['test/acc']:.4f}  (--overwrite retrains it)")
        return 0
    devices = device_names(args.devices)
    if len(devices) > 1 and not in_group():
        return train_together(devices, [__file__, *commands[0]])
    from experiments.run.session import assemble, environment
    from experiments.run.start import extension, take_over

    session = assemble(run, args)  # seed, device, data, model, method
    if session.ranks and session.ranks.rank:
        folder = ReadOnlyFolder(folder.path)
    stop = Stop()
    with folder.lock():
        saved = None if args.overwrite else session.first(folder.load_last)
        found = None if saved else extension(session, args.extend)  # before files are removed
        folder.claim(run.config(), args.overwrite)
        saved = saved or take_over(folder, found)
        if saved:
            folder.check_data(saved["hashes"], session.hashes)
        folder.note_start(environment(session))
        try:
            return train(session, folder, saved, args, stop)
        except FloatingPointError as error:
            folder.fail(str(error))
            raise UsageError(f"stopped: {error}") from None
        except UsageError:
            raise
        except Exception as error:
            stop.check()  # another process of the group may have stopped a moment earlier
            if reported(error):
                return LOST
            folder.fail("\n\n".join(filter(None, [explain(error), traceback.format_exc()])))
            raise


def train(
    session: Session, folder: RunFolder, saved: dict | None, args: Namespace, stop: Stop
) -> int:
    """Trains the remaining epochs after the checkpoint `saved`, then tests once."""
    from experiments.run.result import write_result

    method = session.method
    records, best = resume(session, folder, saved)
    writes = not isinstance(folder, ReadOnlyFolder)  # of several processes, the first
    names = tracker_names(args.track) if writes else []
    trackers = open_trackers(names, session.run, folder, Path(args.results_dir))
    total = sum(stage.epochs for stage in method.stages(session.run.settings.max_epochs))
    first, begun = len(records), time.perf_counter()

    for epoch, stage, optimizers, schedulers in epochs_to_run(session, folder, saved):
        record = {"epoch": epoch, "lr": optimizers[0].param_groups[0]["lr"]}
        record |= train_epoch(session, epoch, optimizers, stop)
        for scheduler in schedulers if method.counts_for_decay(epoch) else ():
            scheduler.step()

        metrics, _, _ = evaluate(session, "val", epoch)
        record |= {f"val/{name}": value for name, value in metrics.items()}
        if metrics["acc"] > best["acc"]:  # validation accuracy only; ties go to the earlier epoch
            best = {"epoch": epoch, "acc": metrics["acc"]}

        records.append(record)
        folder.append_log(record)
        for tracker in trackers:
            tracker.log(record, epoch)
        left = (total - epoch) * (time.perf_counter() - begun) / (epoch - first)
        print(epoch_line(record, total, session.modalities, left), flush=True)

        state = {"epoch": epoch, "stage": stage, "best": best, "log": records}
        save(session, folder, state, optimizers, schedulers)
        if best["epoch"] == epoch:
            folder.save("best.pt", {"method": method.state_dict(), "epoch": epoch})
        stop.check()

    if folder.read_log() != records:
        folder.restore_log(records)
    method.load_state_dict(session.first(lambda: load_best(folder, best)))
    metrics, features, labels = evaluate(session, "test", best["epoch"])
    if writes:
        if trackers:
            finish(trackers, session, folder, metrics, features, labels)
        write_result(session, folder, best, metrics, features, labels, args.keep_checkpoints)
    keys = ("acc", "f1_macro", "f1_batch64", "acc_mis")
    figures = "  ".join(f"test/{k} {metrics[k]:.4f}" for k in keys if k in metrics)
    print(f"done: {folder.path}  best epoch {best['epoch']}  {figures}")
    return 0


def finish(
    trackers: list, session: Session, folder: RunFolder, metrics: dict, features: Any, labels: Any
) -> None:
    """Hands the test metrics and pictures of the predictions to the trackers."""
    from experiments.report.plots import write_plots
    from experiments.run.metrics import probabilities

    p, names = probabilities(session.method, features)["fused"], session.prepared.label_names
    paths = write_plots(folder.file("plots"), p, labels, names, features)
    for tracker in trackers:
        values = {f"test/{name}": value for name, value in metrics.items()}
        tracker.log(values, session.run.settings.max_epochs)
        tracker.pictures(paths)
        tracker.close()


def evaluate(session: Session, part: str, epoch: int) -> tuple[dict[str, float], Any, Any]:
    """Metrics, features and labels of a part; raises `FloatingPointError` for a bad loss."""
    from experiments.run.metrics import measure, not_finite, probabilities

    method = session.method
    features, labels = session.features(part)
    metrics = measure(method, features, labels, session.protocols[part])
    if not math.isfinite(metrics["loss"]):
        rows = probabilities(method, features)["fused"]
        bad = [sample for sample, p in zip(session.ids[part], rows) if not p.isfinite().all()]
        raise not_finite(metrics["loss"], f"epoch {epoch}, {part} part", bad)
    return metrics, features, labels


def train_epoch(session: Session, epoch: int, optimizers: list, stop: Stop) -> dict[str, float]:
    """Trains one epoch; returns the log's train/ and time/ values."""
    import numpy as np
    import torch
    from tqdm import tqdm

    from experiments.run.metrics import Meter

    method, loader = session.method, session.loaders["train"]
    clip = session.run.settings.grad_clip
    # Seeded per epoch, so modules that use torch's global generator (dropout) resume identically.
    torch.manual_seed(int(np.random.SeedSequence([session.run.seed, epoch]).generate_state(1)[0]))
    meter, items = Meter(epoch, session.ids["train"]), 0
    waited, begun = 0.0, time.perf_counter()
    plan = method.begin_epoch(epoch, loader)  # counted in the epoch's time: SMV's valuation is slow
    method.train()
    batches, steps = loader.epoch(epoch, plan), loader.steps(plan)
    with tqdm(desc=f"epoch {epoch}", total=steps, unit="step", leave=False, disable=None) as bar:
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - asked
            if batch is None:
                break
            for loss, scalars in method.losses(batch):  # most methods have a single one
                for optimizer in optimizers:
                    optimizer.zero_grad(set_to_none=True)
                loss.backward()
                method.after_backward()
                for optimizer in optimizers:
                    if clip:
                        torch.nn.utils.clip_grad_norm_(parameters_of(optimizer), clip)
                    optimizer.step()
                meter.add(loss, scalars, batch["index"])
            items += len(batch["label"])
            bar.update()
            stop.check()
    record = meter.read()
    record |= {name: float(value) for name, value in method.end_epoch().items()}
    seconds = time.perf_counter() - begun
    return record | {
        "train/n_items": items,
        "time/epoch_s": seconds,
        "time/data_wait_s": waited,
        "time/step_s": seconds - waited,
        "time/samples_per_s": items / seconds,
    }


# Stages, checkpoints, messages --------------------------------------------------------------------


def resume(session: Session, folder: RunFolder, saved: dict | None) -> tuple[list[dict], dict]:
    """Restores method and log from the checkpoint; returns the log and the best epoch so far."""
    import torch

    if not saved:
        folder.restore_log([])
        return [], {"epoch": 0, "acc": -1.0}
    session.method.load_state_dict(saved["method"])
    print(f"resuming after epoch {saved['epoch']} of {folder.path}", file=sys.stderr)
    threads, before = torch.get_num_threads(), saved["threads"]
    if threads != before:
        differ = "the last digits may differ from an uninterrupted run"
        print(f"note: {threads} threads now, {before} before: {differ}", file=sys.stderr)
    folder.restore_log(saved["log"])
    if saved["best"]["epoch"] == saved["epoch"]:  # the run may have been killed before best.pt
        folder.save("best.pt", {"method": saved["method"], "epoch": saved["epoch"]})
    return list(saved["log"]), saved["best"]


def epochs_to_run(session: Session, folder: RunFolder, saved: dict | None) -> Iterator[tuple]:
    """(epoch, stage number, optimizers, schedulers) of each remaining epoch."""
    from experiments.run.optim import base_optimizer, make_schedulers

    method, s = session.method, session.run.settings
    done, first = saved["epoch"] if saved else 0, 1
    for number, stage in enumerate(method.stages(s.max_epochs)):
        last = first + stage.epochs - 1
        if done < last:
            if stage.start == "best" and done < first:
                expected = saved["best"] if saved and done == first - 1 else None
                method.load_state_dict(session.first(lambda: load_best(folder, expected)))  # noqa: B023
            base = base_optimizer(s, stage.lr_scale, method.model.device.type == "cuda")
            optimizers: list[Any] = method.optimizers(base)
            counted = sum(map(method.counts_for_decay, range(first, last + 1)))
            schedulers = make_schedulers(optimizers, s, counted)
            if done >= first:
                for kind, objects in (("optimizers", optimizers), ("schedulers", schedulers)):
                    for one, state in zip(objects, saved[kind], strict=True):
                        one.load_state_dict(state)
                for group in [group for one in optimizers for group in one.param_groups]:
                    group["fused"] = group["fused"] and method.model.device.type == "cuda"
            for epoch in range(max(first, done + 1), last + 1):
                yield epoch, number, optimizers, schedulers
        first = last + 1


def parameters_of(optimizer: Any) -> list[Any]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def save(
    session: Session, folder: RunFolder, state: dict, optimizers: list, schedulers: list
) -> None:
    """Writes last.pt: `state` and everything that the next epoch needs."""
    import torch

    state |= {
        "method": session.method.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "schedulers": [scheduler.state_dict() for scheduler in schedulers],
        "threads": torch.get_num_threads(),
        "hashes": session.hashes,
    }
    folder.save("last.pt", state, keep_previous=True)


def load_best(folder: RunFolder, best: dict | None) -> dict:
    """The weights of the best epoch; raises `UsageError` if best.pt is of another epoch."""
    state = folder.load("best.pt")
    if best and state["epoch"] != best["epoch"]:
        epochs = f"from epoch {state['epoch']}, but the best epoch is {best['epoch']}"
        raise UsageError(f"best.pt in {folder.path} is {epochs}: start over with --overwrite")
    return state["method"]


def check_root(run: Run, args: Namespace, folder: RunFolder) -> None:
    """Raises `UsageError` if a finished run was not trained on the files in --dataset_root."""
    from data_prep.prepare import source_in

    raw = folder.read_json("env.json")["starts"][-1].get("raw", {})
    places = (Path(args.dataset_root), Path(args.data_dir))
    found = source_in(run.manifest or run.dataset, *places, run.prep)
    if raw.get("candidates") != found["candidates_hash"]:
        raise UsageError(
            f"{folder.path} is finished and was trained on other files, from"
            f" {raw.get('root', 'an unknown root')}: use another --results_dir, or --overwrite"
        )


def epoch_line(record: dict, total: int, modalities: list[str], left: float) -> str:
    """The epoch's key metrics in aligned columns, and the estimated time `left`."""
    cells = [f"epoch {record['epoch']:3d}/{total}", f"loss {record['train/loss']:8.4f}"]
    cells.append(f"val/acc {record['val/acc']:.4f}")
    if "val/acc_mis" in record:
        cells.append(f"mis {record['val/acc_mis']:.4f}")
        cells += [f"{m} {record[f'val/acc_zero/{m}']:.4f}" for m in modalities]
    if "train/n_valid" in record:
        cells.append(f"pairs {record['train/n_valid']:.0f}")
    cells += [f"alpha/{m} {record[f'alpha/{m}']:.2f}" for m in modalities if f"alpha/{m}" in record]
    cells.append(f"{record['time/epoch_s']:.1f} s")
    return "  ".join([*cells, *[f"about {duration(left)} left"] * (left > 0)])


if __name__ == "__main__":
    sys.exit(run_program(main))
