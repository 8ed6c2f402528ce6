"""Small raw trees in the layouts of the official MIDAS release, sound or with damage."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np

from common.files import write_text
from data_prep import datasets
from data_prep.digits import write_wav
from fixtures import corrupt, food_tree, scenes, ucf_scenes

LISTS = {  # in the order in which the release joins them, with the share of the rows
    "cremad": {"train_split.csv": 0.7, "val.csv": 0.8, "test.csv": 1.0},
    "ucf101": {"trainlist01_new.txt": 0.7, "testlist01_new.txt": 1.0},
    "food101": {"train.jsonl": 0.75, "test.jsonl": 1.0},
    "kinetics": {"videos/train.txt": 0.8, "videos/val.txt": 1.0},
}
HEADERS = {"cremad": "clip,class,label", "ucf101": "video label"}
SCENE = scenes.Look(32, 24, 5, (1.6, 1.6), 0.1, 0.1)  # 8 frames
UCF = ucf_scenes.Look(32, 24, 10, (0.6, 0.6))  # 6 frames, 5 pictures of flow

# A sample for each: which file or folder, and what happens to it, or to all or the first of its
# pictures -> what must become of it (in the words of `fixtures.corrupt`).
SOUND = {
    "wav missing": "missing_file",
    "wav folder": "missing_file",
    "wav broken_link": "missing_file",
    "wav pipe": "unreadable",
    "wav lfs_pointer": "lfs_pointer",
    "frames missing": "missing_file",
    "frames empty": "few_frames",
    "frames two": "few_frames",
    "frames first html": "flag:bad_frames",
    "frames first pipe": "flag:bad_frames",
    "frames first folder": "flag:bad_frames",
    "frames first broken_link": "flag:bad_frames",
    "frames first cut_60": "flag:bad_frames",
    "frames first lfs_pointer": "lfs_pointer",
    "frames first other_size": "",
    "frames first grey": "",
}
IMAGE = {
    "image missing": "missing_file",
    "image folder": "missing_file",
    "image broken_link": "missing_file",
    "image pipe": "unreadable",
    "image html": "unreadable",
    "image cut_60": "bad_image",
    "image lfs_pointer": "lfs_pointer",
}
DAMAGE = {
    # What holds anything is kept there, but for what the release's loader leaves out.
    "cremad": SOUND
    | {
        "wav zero_byte": "flag:silent",
        "wav html": "flag:silent",
        "frames all zero_byte": "flag:no_video",
    },
    "kinetics": SOUND
    | {"wav zero_byte": "unreadable", "wav html": "unreadable", "frames all html": "few_frames"},
    "ucf101": {
        "frames missing": "missing_file",
        "u missing": "missing_file",
        "v missing": "missing_file",
        "frames two": "few_frames",
        "frames first html": "flag:bad_frames",
        "frames all html": "few_frames",
        "u first missing": "flag:unpaired_flow",
        "v two": "flag:unpaired_flow",
        "v one": "few_frames",
        "v empty": "few_frames",
        "v first html": "unreadable",
        "v first cut_60": "bad_image",
        "v first pipe": "unreadable",
        "v first broken_link": "missing_file",
        "v first other_size": "bad_image",
        "v first lfs_pointer": "lfs_pointer",
    },
    "food101": IMAGE,
}


def write_tree(
    dataset: str, root: Path, per_class: int, classes: int | None = None, damaged: bool = False
) -> dict[str, str]:
    """`per_class` samples of each of the first classes; returns what must become of the others.

    With `damaged`, one more sample for each line of `DAMAGE`: sample -> its line's right side.
    """
    labels = datasets.load(dataset).LABELS[:classes]
    kinds = [*[""] * per_class * len(labels), *(DAMAGE[dataset] if damaged else ())]
    rows, truth = [], {}
    for k, kind in enumerate(kinds):
        name, label = name_of(dataset, labels[k % len(labels)], k), k % len(labels)
        rows.append((name, label))
        if kind:
            truth[name] = DAMAGE[dataset][kind]
    parts = write_lists(dataset, root, rows)
    for k, (name, label) in enumerate(rows):
        files = write_sample(dataset, root, parts[name], name, label, len(labels), k)
        spoil(files, kinds[k])
    return {f"{parts[n]}/{n}": v for n, v in truth.items()} if dataset == "food101" else truth


def name_of(dataset: str, label: str, k: int) -> str:
    """The name of a sample of a class, as lists and folders have it."""
    if dataset == "cremad":
        return f"{1000 + k // 10}_{scenes_of(k)}_{label}_XX"
    if dataset == "kinetics":
        return f"{k:011d}_{k:06d}_{k + 10:06d}"
    spelt = label.replace("HandstandPushups", "HandStandPushups")
    return (
        f"{label}/{label}_{k}.jpg"
        if dataset == "food101"
        else f"v_{spelt}_g{k % 25 + 1:02d}_c{k:02d}"
    )


def scenes_of(k: int) -> str:
    return ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS")[k % 10]


def write_lists(dataset: str, root: Path, rows: list[tuple[str, int]]) -> dict[str, str]:
    """The lists of (name, class) rows; returns the list of each name, without its suffix."""
    labels, start, parts = datasets.load(dataset).LABELS, 0, {}
    for file, share in LISTS[dataset].items():
        end = round(share * len(rows))
        lines = [HEADERS[dataset]] if dataset in HEADERS else []
        for name, label in rows[start:end]:
            lines.append(line_of(dataset, name, label, labels[label]))
            parts[name] = Path(file).stem
        write_text(root / file, "".join(f"{line}\n" for line in lines))
        start = end
    if dataset == "cremad":
        write_text(root / "stat.csv", "\ufeff" + "".join(f"{name},1\r\n" for name in labels))
    if dataset == "ucf101":
        lines = [f"{k} {name}\n" for k, name in enumerate(labels, 1)]
        write_text(root / "classInd.txt", "".join(lines))
    return parts


def line_of(dataset: str, name: str, label: int, word: str) -> str:
    """A sample's line in a list."""
    if dataset == "food101":
        text = food_tree.render_title(word, label, np.random.default_rng(len(name)))
        return json.dumps({"id": label, "img": name, "text": text, "label": label})
    return {
        "cremad": f"{name},{word},{word}",
        "ucf101": f"{word}/{name}.avi {label + 1}",
        "kinetics": f"{name} 0 8 {label}",
    }[dataset]


def write_sample(
    dataset: str, root: Path, part: str, name: str, label: int, classes: int, seed: int
) -> dict[str, Path]:
    """A sample's files; returns them by what they hold."""
    rng = np.random.default_rng(seed)
    if dataset == "food101":
        image = food_tree.render_picture(label, food_tree.Look(32, 24), rng)
        files = {"image": root / "images" / part / name}
        write_pictures(files["image"].parent, {files["image"].name: image})
    elif dataset == "ucf101":
        files = {"frames": root / "frames_rgb" / name}
        files |= {axis: root / f"flows_{axis}" / name for axis in "uv"}
        scene = ucf_scenes.render(label, UCF, rng, rng)
        flow = np.clip(scene.flow * 6.4 + 128, 0, 255).astype(np.uint8)
        write_frames(files["frames"], "img_{:05d}.jpg", scene.frames)
        write_frames(files["u"], "frame{:05d}.jpg", flow[..., 0])
        write_frames(files["v"], "frame{:05d}.jpg", flow[..., 1])
    else:
        sound, frames = (
            ("AudioWAV", "visual_frames") if dataset == "cremad" else ("audios", "videos")
        )
        files = {"wav": root / sound / f"{name}.wav", "frames": root / frames / name}
        scene = scenes.render(label, max(classes, 2), SCENE, rng)
        files["wav"].parent.mkdir(parents=True, exist_ok=True)
        write_wav(files["wav"], scene.wave, scenes.RATE)
        write_frames(files["frames"], "{:04d} of it.jpg", scene.frames)
    return files


def write_frames(folder: Path, name: str, frames: np.ndarray) -> None:
    """Pictures numbered from 1."""
    write_pictures(folder, {name.format(k): frame for k, frame in enumerate(frames, 1)})


def write_pictures(folder: Path, pictures: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        picture = picture[..., ::-1] if picture.ndim == 3 else picture
        (folder / name).write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())


def spoil(files: dict[str, Path], kind: str) -> None:
    """Does to a sample's files what a line of `DAMAGE` says."""
    if not kind:
        return
    target, *which, what = kind.split(" ")
    path = files[target]
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    if what == "missing" and not which:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        return
    if what in ("empty", "one", "two"):
        chosen, what = inside[("empty", "one", "two").index(what) :], "missing"
    else:
        chosen = inside if which == ["all"] else inside[:1]
    for picture in chosen:
        if what == "missing":
            picture.unlink()
        elif what == "other_size":
            write_pictures(picture.parent, {picture.name: np.full((30, 50, 3), 90, np.uint8)})
        elif what == "grey":
            write_pictures(picture.parent, {picture.name: np.full((24, 32), 90, np.uint8)})
        else:
            corrupt.damage_file(what, picture)
