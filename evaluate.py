"""Evaluates a finished run with the paper's metrics, or predicts new files.

python evaluate.py results/runs/demo/Midas/default/seed1
python evaluate.py RUN --probe                   also a linear probe of each encoder
python evaluate.py RUN --embeddings features.npz --plots pictures
python evaluate.py RUN --predict manifest.csv --out predictions.csv     predict new files
"""

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from common.files import atomic
from common.options import Parser, UsageError
from common.program import run as run_program
from experiments.run.folder import RunFolder
from experiments.run.resolve import run_from_config

FLAGS: dict[str, dict[str, Any]] = {
    "part": {"default": "test", "choices": ("val", "test"), "help": "split (default test)"},
    "probe": {
        "action": "store_true",
        "help": "add acc_probe: new linear classifiers on the frozen features of each modality",
    },
    "embeddings": {"metavar": "NPZ", "help": "write features, ids and labels"},
    "plots": {
        "metavar": "DIR",
        "help": "write confusion matrix, reliability diagram and t-SNE of each modality",
    },
    "predict": {"metavar": "CSV", "help": "csv of new files: id and a column for each modality"},
    "out": {"metavar": "CSV", "help": "where --predict writes (default: standard output)"},
    "data_dir": {"default": "data", "help": "prepared data (default data)"},
    "dataset_root": {
        "help": "raw data, if it is not prepared yet; with --predict, the folder of the new files"
    },
    "devices": {"default": "0", "help": "CUDA device number, or cpu (default 0)"},
    "threads": {"help": "CPU threads"},
    "num_workers": {"help": "loader workers"},
    "max_bad": {"default": "0.05", "help": "largest share of rejected files in preparation"},
}


def main(argv: list[str]) -> int:
    """Prints a split's metrics, per-class F1 and confusion matrix, or predicts new files."""
    parser = Parser(prog="evaluate.py", description=__doc__)
    parser.set_defaults(cache="off")  # a split is read once
    parser.add_argument("run", metavar="RUN", help="a finished run's folder, or its best.pt")
    for flag, how in FLAGS.items():
        parser.add_argument(f"--{flag}", **how)
    args = parser.parse_args(argv)
    path = Path(args.run)
    folder = RunFolder(path.parent if path.is_file() else path)  # RUN may be a file in it
    config = folder.read_json("config.json")
    if folder.state != "done":
        raise UsageError(
            f"{folder.path} is {folder.state}, not done: finish it first with its train.py command"
        )
    check_flags(args)
    if args.predict:
        from experiments.run.predict import predict_files

        return predict_files(folder, config, Path(args.predict), args)
    return evaluate(folder, config, args)


def check_flags(args: Namespace) -> None:
    """Raises `UsageError` for flags that would do nothing, and for what cannot be written."""
    for name in ("probe", "embeddings", "plots"):
        if args.predict and getattr(args, name):
            raise UsageError(f"--{name} does not work with --predict: files have no labels")
    if args.out and not args.predict:
        raise UsageError("--out does nothing without --predict")
    if args.embeddings and Path(args.embeddings).is_dir():
        raise UsageError(f"--embeddings {args.embeddings} is a folder: give a file, features.npz")
    if args.plots and Path(args.plots).is_file():
        raise UsageError(f"--plots {args.plots} is a file: give a folder")


def evaluate(folder: RunFolder, config: dict[str, Any], args: Namespace) -> int:
    """Evaluates the run at its best epoch, and writes what `args` ask for."""
    # These load torch, which --help need not wait for.
    from experiments.run.metrics import linear_probes, measure, probabilities
    from experiments.run.session import assemble

    result, session = (
        folder.read_json("result.json"),
        assemble(run_from_config(config).to_load(), args),
    )
    then, now = result["hashes"], dict(session.hashes)
    if now.pop("data") != then.get("data"):
        note = "note: the samples were prepared again after the run: numbers may differ"
        print(note, file=sys.stderr)
    folder.check_data(then, now)
    method = session.method
    method.load_state_dict(folder.load_best(result))
    features, labels = session.features(args.part)
    metrics = measure(method, features, labels, session.protocols[args.part])
    if args.probe:
        metrics |= linear_probes(session.features("train"), (features, labels))
    width = max(map(len, metrics)) + len(args.part) + 1
    for name, value in metrics.items():
        print(f"{args.part + '/' + name:{width}}  {value:.4f}")
    p, names = probabilities(method, features)["fused"], session.prepared.label_names
    print_classes(p, labels, names)
    if args.embeddings:
        write_embeddings(Path(args.embeddings), features, session.ids[args.part], labels, names)
    if args.plots:
        from experiments.report.plots import write_plots

        for path in write_plots(Path(args.plots), p, labels, names, features):
            print(f"plot: {path}")
    return 0


def print_classes(p: Any, labels: Any, names: list[str]) -> None:
    """Prints F1 per class and the confusion matrix of probabilities p [N, C] and labels [N]."""
    from experiments.run.metrics import confusion, per_class_f1

    counts = confusion(p.argmax(1), labels, len(names))
    names = [name[:18] for name in names]
    wide = max(map(len, names))
    print("\nF1 per class, and confusion matrix (rows true, columns predicted)")
    for name, f1, row in zip(names, per_class_f1(counts).tolist(), counts.tolist()):
        print(f"{name:{wide}}  {f1:.4f}  " + " ".join(f"{n:4d}" for n in row))


def write_embeddings(
    path: Path, features: dict[str, Any], ids: list[str], labels: Any, names: list[str]
) -> None:
    """Writes features [N, D_m] under each modality's name, id [N], label [N], label_names [C]."""
    import numpy as np

    arrays = {m: f.numpy() for m, f in features.items()}
    arrays |= {"id": np.array(ids), "label": labels.numpy(), "label_names": np.array(names)}
    with atomic(path) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, **arrays)
    print(f"embeddings: {path}")


if __name__ == "__main__":
    sys.exit(run_program(main))
