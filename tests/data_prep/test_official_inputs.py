"""The numbers of the authors' release: sound, frames, pictures and splits.

Each case runs through the code that prepares and reads samples. Texts and file trees are tested
with texts and layouts.
"""

import hashlib
import re

import cv2
import numpy as np
import pytest
import soundfile
import torch
from clips import extract, refused, write_clip
from official import cases

from common.files import file_digest, write_json
from data_prep import datasets
from data_prep.modalities.base import Draw
from data_prep.modalities.video import Video
from data_prep.modalities.views import choose_frames
from data_prep.shards import schema, shard_name, write_shard
from data_prep.spec import Listed, spec_hash, spec_json
from data_prep.split import PARTS
from data_prep.store import Prepared, write_pool
from experiments.run.resolve import resolve
from experiments.run.session import stream_of
from models.build import Choice, build_encoder


def wave_of(formula):
    """The wave given by a case's formula, float32, and its rate."""
    rate, count = map(int, re.findall(r"\d+", formula)[:2])
    if "zeros" in formula:
        return np.zeros(count, np.float32), rate
    t = np.arange(count) / rate
    base, rise = map(int, re.search(r"2 pi \((\d+) t \+ (\d+) t\^2\)", formula).groups())
    sweep = np.sin(2 * np.pi * (base * t + rise * t**2))
    loud = float(re.search(r"x\[n\] = ([\d.]+)", formula)[1])
    if "u[n]" not in formula:
        return (loud * sweep).astype(np.float32), rate
    state, noise = 1, np.empty(count)
    for n in range(count):
        state = (1103515245 * state + 12345) % 2**31
        noise[n] = state / 2**30 - 1
    share = float(re.search(r"\+ ([\d.]+) u\[n\]", formula)[1])
    return (loud * sweep.astype(np.float32) + share * noise).astype(np.float32), rate


def inputs_of(modality):
    """The first layer of the encoder of a modality."""
    return build_encoder(stream_of(modality, modality.normalise), Choice("small")).inputs


@cases("fbank")
def test_the_filter_bank(variant, given, expect, tmp_path):
    wave, rate = wave_of(given["wave"])
    soundfile.write(tmp_path / "a.wav", wave, rate, subtype="FLOAT")
    for name in variant.split():
        layout = datasets.load(name)
        audio = layout.spec(layout.Settings())["audio"]
        bank = audio.spectrogram(torch.from_numpy(wave))  # frequency first
        stored = audio.to_input(extract(audio, tmp_path / "a.wav").payload, Draw())
        assert np.abs(stored - bank.numpy()).max() < 0.01  # float16 from -16 to 16
        bank, kept = bank.T.double(), expect["kept"]
        x = inputs_of(audio)(bank.T[None, None])[0][0].mT
        assert list(x.shape) == expect["shape"]
        windows, padding = bank[:kept], x[0, kept:]
        assert (bank[kept:] == 0).all() and (windows != 0).any(1).all()
        for value, wanted in ((windows, "_of_windows"), (x, "")):
            assert value.mean().item() == pytest.approx(expect[f"mean{wanted}"], abs=2e-4)
            spread = value.std(correction=0).item()
            assert spread == pytest.approx(expect[f"std{wanted}"], abs=2e-4)
        if expect["padding"] is not None:
            assert (padding - expect["padding"]).abs().max() < 2e-4
        for window, mel, before, after in expect["values"]:
            slack = 2e-3 if before < -12 else 2e-4
            assert bank[window, mel].item() == pytest.approx(before, abs=slack)
            assert x[0, window, mel].item() == pytest.approx(after, abs=slack)


def reachable(stored, rule):
    """The possible results of three draws of a training view, each as a list of positions."""
    drawn = [choose_frames(stored, 3, np.random.default_rng(seed), rule) for seed in range(400)]
    return [sorted(set(places)) for places in zip(*drawn)]


def between(places):
    return list(range(min(places), max(places) + 1))


@cases("frames")
def test_the_frames_of_a_view(variant, given, expect, tmp_path):
    """The rules are those of the views of `--recipe official`."""
    run, _ = resolve(["--dataset", variant, "--method", "Joint", "--recipe", "official"], "")
    for count in map(int, next(iter(given.values()))):
        wanted = expect[str(count)]
        if wanted is None or wanted["val"] is None:
            clip = write_clip(tmp_path / f"{count}.mp4", count + (variant == "ucf101"))
            settings = run.layout.Settings(**({"keep_all": False} if variant == "cremad" else {}))
            (name, *_) = (m for m in ("flow", "video") if m in run.spec)
            assert refused(run.layout.spec(settings)[name], clip) == "few_frames"
            continue
        flat = variant != "ucf101"  # else frames count from 1, and there are flow frames
        for name, stored, key in (("video", count if flat else 6, "rgb"), ("flow", count, "flow")):
            if name in run.spec:
                train, val = (wanted[k] if flat else wanted[k][key] for k in ("train", "val"))
                rule, first = run.spec[name].choice, 0 if flat else 1
                found = [[k + first for k in places] for places in reachable(stored, rule)]
                assert found == [between(places) for places in train], count
                assert [k + first for k in choose_frames(stored, 3, None, rule)] == val, count


def picture_of(formula):
    """[H, W, channels] from the formulas of a case."""
    width, height = map(int, re.search(r"(\d+) wide, (\d+) high", formula).groups())
    y, x = np.mgrid[:height, :width]
    channels = [7 * x + 3 * y, 5 * x + 11 * y] + ([x * y] if "RGB" in formula else [])
    return (np.stack(channels, 2) % 256).astype(np.uint8)


@cases("picture")
def test_the_evaluation_view_of_a_picture(variant, given, expect):
    picture = picture_of(given["picture"])
    motion = picture.shape[2] == 2
    planes = [picture[:, :, 0], picture[:, :, 1]] if motion else [picture[:, :, ::-1]]
    stored = [cv2.imencode(".png", plane)[1].tobytes() for plane in planes]
    for dataset in variant.split():
        layout = datasets.load(dataset)
        spec = layout.spec(layout.Settings())
        modality = spec["flow" if motion else "video" if "video" in spec else "image"]
        clip = torch.from_numpy(modality.to_input(stored, Draw(224)))
        out, _ = inputs_of(modality)(clip[None, :1])
        assert list(out[0].shape) == expect["shape"]
        assert out[0].mean().item() == pytest.approx(expect["mean"], abs=1e-4)
        assert out[0].std(correction=0).item() == pytest.approx(expect["std"], abs=1e-4)
        for channel, row, column, value in expect["values"]:
            assert out[0, channel, row, column].item() == pytest.approx(value, abs=1e-4)
        if "no_motion" in expect:
            still = torch.full((1, 1, 2, 4, 4), 128, dtype=torch.uint8)
            mean = inputs_of(modality)(still)[0].mean().item()
            assert mean == pytest.approx(expect["no_motion"], abs=1e-4)


# Splits -------------------------------------------------------------------------------------------


def labels_of(formula, count):
    """The label of each sample in the pool of a case."""
    if sizes := re.match(r"class c \[(.+)\] times", formula):
        return [c for c, size in enumerate(sizes[1].split(",")) for _ in range(int(size))]
    rule = formula.split(": ")[1].replace("mod", "%").replace("3k", "3 * k")
    return [eval(rule, {"k": k}) for k in range(count)]


def prepared_pool(folder, dataset, labels, lost):
    """A finished prepared folder whose ids are in reverse order of the lists."""
    layout, spec = datasets.load(dataset), {"video": Video()}
    ids = [f"{len(labels) - k:05d}" for k in range(len(labels))]
    folder.mkdir()
    texts = dict.fromkeys(("group", "part", "sources", "flags"), "")
    rows = [
        {"id": sample, "label": label, "duration_s": 0.0, "n_frames": 0, "video": []} | texts
        for sample, label in sorted(zip(ids, labels))
    ]
    write_shard(folder / shard_name(0), schema(dataset, spec), rows)
    write_pool(
        folder / "pool.csv", [Listed(*row, k in lost) for k, row in enumerate(zip(ids, labels))]
    )
    sums = {name: {name: file_digest(folder / name)} for name in (shard_name(0), "pool.csv")}
    meta = {"complete": True, "shards": sums[shard_name(0)], "tables": sums["pool.csv"]}
    meta |= {"samples": len(ids), "spec_hash": spec_hash(dataset, spec)}
    meta |= {"label_names": sorted(map(str, set(labels))), "split_second": layout.SPLIT_SECOND}
    meta["release_cut"] = getattr(layout, "RELEASE_CUT", "test")
    write_json(folder / "meta.json", spec_json(dataset, spec) | meta)
    return Prepared(folder), ids


@cases("split")
def test_the_split_of_the_release(variant, given, expect, tmp_path):
    lost = [0, *given["lists_cut_at"]] if variant == "kinetics" else []
    labels = labels_of(given["labels"], given["samples"])
    prepared, ids = prepared_pool(tmp_path / "data", variant, labels, lost)
    place = {sample: k for k, sample in enumerate(ids)}
    for _ in range(2):  # drawn, then read from its file
        parts = prepared.split("release", given["seed"])
        found = {part: [place[prepared.ids[k]] for k in parts[part]] for part in PARTS}
        assert [len(found[part]) for part in PARTS] == expect["sizes"]
        for part in PARTS:
            if "sha256" in expect:
                text = ",".join(map(str, found[part]))
                assert hashlib.sha256(text.encode()).hexdigest() == expect["sha256"][part]
                assert found[part][:5] == expect[f"first_of_{part}"]
            else:
                assert found[part] == expect[part]
    assert set(lost).isdisjoint(k for places in found.values() for k in places)
