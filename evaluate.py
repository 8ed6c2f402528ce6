"""Every number of the paper for a finished run, and predictions for new files.

python evaluate.py results/runs/demo/Midas/default/seed1
python evaluate.py RUN --predict manifest.csv --out predictions.csv     for new files
"""

import sys
from pathlib import Path

from torch import Tensor

from common.options import Parser, UsageError
from common.program import run as run_program
from experiments.run.folder import RunFolder
from experiments.run.metrics import collect, confusion, measure, per_class_f1, probabilities
from experiments.run.resolve import run_from_config
from experiments.run.session import assemble


def show(metrics: dict[str, float], label_names: list[str], counts: Tensor) -> str:
    """The metrics, per-class F1 and the confusion matrix as text."""
    width = max(map(len, metrics))
    lines = [f"{name:{width}}  {value:.4f}" for name, value in metrics.items()]
    names = [name[:18] for name in label_names]
    wide = max(len(name) for name in names)
    lines += ["", "F1 of each class, and confusion (rows true, columns predicted)"]
    for name, f1, row in zip(names, per_class_f1(counts).tolist(), counts.tolist()):
        lines.append(f"{name:{wide}}  {f1:.4f}  " + " ".join(f"{n:4d}" for n in row))
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """The program."""
    parser = Parser(prog="evaluate.py", description=__doc__)
    parser.add_argument("run", metavar="RUN", help="a finished run's folder, or its best.pt")
    parser.add_argument(
        "--part", default="test", choices=("val", "test"), help="which part (default test)"
    )
    parser.add_argument(
        "--predict", metavar="CSV", help="new files: id and a column of paths a modality"
    )
    parser.add_argument(
        "--out", metavar="CSV", help="where --predict writes (default: standard output)"
    )
    parser.add_argument("--data_dir", default="data", help="prepared data (default data)")
    parser.add_argument(
        "--dataset_root",
        help="raw data, if it must be prepared first; with --predict, where the new files are",
    )
    parser.add_argument("--devices", default="0", help="a CUDA device's number, or cpu")
    parser.add_argument("--threads", help="CPU threads")
    parser.add_argument("--num_workers", help="loader processes")
    parser.add_argument(
        "--max_bad", default="0.05", help="share of rejected files that preparation allows"
    )
    args = parser.parse_args(argv)
    path = Path(args.run)
    folder = RunFolder(path.parent if path.is_file() else path)  # RUN may be a file in it
    config = folder.read_json("config.json")
    if folder.state != "done":
        raise UsageError(
            f"{folder.path} is {folder.state}, not done: run its train.py command again first"
        )
    if args.predict:
        from experiments.run.predict import predict_files

        return predict_files(folder, config, Path(args.predict), args)
    result, session = folder.read_json("result.json"), assemble(run_from_config(config), args)
    then, now = result["hashes"], dict(session.hashes)
    if now.pop("data") != then.get("data"):
        print(
            "note: the samples were prepared anew since the run: numbers may differ",
            file=sys.stderr,
        )
    folder.check_data(then, now)
    session.method.load_state_dict(folder.load_best(result))
    features, labels = collect(session.method, session.loaders[args.part].batches())
    metrics = measure(session.method, features, labels, session.protocols[args.part])
    best = probabilities(session.method, features)["fused"].argmax(1)
    counts = confusion(best, labels, len(session.prepared.label_names))
    print(
        show(
            {f"{args.part}/{k}": v for k, v in metrics.items()},
            session.prepared.label_names,
            counts,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
