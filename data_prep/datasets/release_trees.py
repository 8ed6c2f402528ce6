"""Trees made for the official MIDAS release, as candidates: see `release_lists` for their names.

What the release's loaders leave out is rejected with a reason. So is what our own rules refuse, for
example a kinetics clip of fewer than three frames. Class ids are those of our layouts. The split
rule `release` draws from all rows of the lists.
"""

import os
import re
from pathlib import PurePosixPath

from common.files import shown
from data_prep.datasets import cremad, food101, kinetics, ucf101
from data_prep.datasets.release_lists import SHOWN, Reading, Row, csv_fields, name_fault
from data_prep.datasets.walk import walk
from data_prep.spec import Candidate, Rejection, Scan

PARTS = {"train_split.csv": "train", "val.csv": "val", "test.csv": "test"}
FEWEST_FRAMES = 3  # cremad: the release's loader leaves out folders of fewer
FOOD101 = {str(number): number for number in range(len(food101.LABELS))}
NUMBER = re.compile(r"\d{1,9}", re.ASCII)
UNKNOWN = "{!r} is none of the {} classes"


def _no_label(word: str, labels: tuple[str, ...]) -> tuple[str, str]:
    return "no_label", UNKNOWN.format(word[:SHOWN], len(labels))


def _missing(reading: Reading, files: list[str], folders: list[str]) -> tuple[str, str]:
    """The reason and detail for a sample that lacks one of its files or folders, or two ""."""
    lacking = [path for path in files if not reading.exists(path)]
    lacking += [path for path in folders if not os.path.isdir(reading.root / path)]
    return ("missing_file", f"no {', '.join(lacking)}") if lacking else ("", "")


def _check_classes(reading: Reading, name: str, place: int, classes: set[str]) -> None:
    """Tells of lines of stat.csv or classInd.txt, if there, that name a class of another set."""
    if not os.path.isfile(reading.root / reading.path(name)):
        return
    for source, where, line in reading.lines(name):
        fields = csv_fields(line) if name.endswith(".csv") else line.split()
        if not fields or fields[place].casefold() not in classes:
            what = f"{where}: a class of another set"
            reading.rejected.append(Rejection(where, source, "no_label", what))


# CREMA-D ------------------------------------------------------------------------------------------


def scan_cremad(reading: Reading) -> Scan:
    """AudioWAV/<clip>.wav and visual_frames/<clip>/ of the clips of three lists."""
    _check_classes(reading, "stat.csv", 0, {name.casefold() for name in cremad.LABELS})
    used = set()
    for name, part in PARTS.items():
        for row in reading.rows(name, csv_fields, 2):
            used.add(row.fields[0])
            _cremad_row(reading, row, part)
    reading.tell_others("AudioWAV", {f"{clip}.wav" for clip in used}, ".wav")
    reading.tell_others("visual_frames", used)
    return reading.scan("cremad", cremad.LABELS)


def _cremad_row(reading: Reading, row: Row, part: str) -> None:
    clip, emotion = row.fields[:2]
    sample = re.sub("_X$", "_XX", clip)  # as in the download
    if not reading.first(sample, row):
        return
    wav = reading.path("AudioWAV", f"{clip}.wav")
    folder = reading.path("visual_frames", clip)
    reason, detail = name_fault(clip), clip[:SHOWN]
    if not reason and emotion not in cremad.LABELS:
        reason, detail = _no_label(emotion, cremad.LABELS)
    if not reason:
        reason, detail = _missing(reading, [wav], [folder])
    if not reason:
        count = len(reading.names(f"visual_frames/{clip}"))
        if count < FEWEST_FRAMES:
            reason, detail = "few_frames", f"{count} in {folder}"
    if reason:
        reading.refuse(sample, row, reason, detail)
        return
    told = cremad.NAME.fullmatch(sample)
    if told and told[3] != emotion:
        detail = f"list: {emotion}, name: {told[3]}"
        reading.refuse(sample, row, "label_conflict", detail)
    sources = {"audio": (wav,), "video": (folder,)}
    group = told[1] if told else ""
    label = cremad.LABELS.index(emotion)
    reading.candidates.append(Candidate(sample, label, sources, group, part))


# UCF-101 ------------------------------------------------------------------------------------------


def scan_ucf101(reading: Reading) -> Scan:
    """frames_rgb/<clip>/, flows_u/<clip>/ and flows_v/<clip>/ of the clips of two lists.

    Names are compared without regard to case, as in the download.
    """
    _check_classes(reading, "classInd.txt", -1, set(ucf101.IDS))
    folders = ("frames_rgb", "flows_u", "flows_v")
    there = [{name.casefold(): name for name in reading.names(f)[::-1]} for f in folders]
    used: list[set[str]] = [set(), set(), set()]
    for part in ("train", "test"):
        for row in reading.rows(f"{part}list01_new.txt", str.split, 2):
            clip = PurePosixPath(row.fields[0]).stem
            names = [found.get(clip.casefold(), clip) for found in there]
            for known, name in zip(used, names):
                known.add(name)
            paths = [reading.path(folder, name) for folder, name in zip(folders, names)]
            _ucf101_row(reading, row, part, paths)
    for folder, known in zip(folders, used):
        reading.tell_others(folder, known)
    scan = reading.scan("ucf101", ucf101.LABELS)
    scan.warnings.append("optical flow is that of flows_u and flows_v, whatever --flow_algo says")
    return scan


def _ucf101_row(reading: Reading, row: Row, part: str, paths: list[str]) -> None:
    name = row.fields[0]
    place, sample = PurePosixPath(name), PurePosixPath(name).stem or name
    if not reading.first(sample, row):
        return
    reason, detail = name_fault(name), name[:SHOWN]
    if not reason and (len(place.parts) != 2 or place.suffix.lower() != ".avi"):
        reason = "unknown_name"
    label = ucf101.IDS.get(place.parent.name.casefold())
    if not reason and label is None:
        reason, detail = _no_label(place.parent.name, ucf101.LABELS)
    if not reason:
        reason, detail = _missing(reading, [], paths)
    if reason:
        reading.refuse(sample, row, reason, detail)
        return
    told = ucf101.CLIP.fullmatch(sample)
    if told and told[1].casefold() != place.parent.name.casefold():
        reading.refuse(sample, row, "label_conflict", f"list: {name}")
    group = f"{ucf101.LABELS[label]}_g{told[2]}" if told else ""
    if told and told[2] in ucf101.VAL_GROUPS and part == "train":
        part = "val"
    sources = {"flow": tuple(paths[1:]), "video": (paths[0],)}
    reading.candidates.append(Candidate(sample, label, sources, group, part))


# Food-101 -----------------------------------------------------------------------------------------


def scan_food101(reading: Reading) -> Scan:
    """images/<part>/<img> with the text of each line of <part>.jsonl.

    A label is a class's number in our order, which is that of the sorted names, or its name.
    """
    for part in food101.PARTS:
        used = set()
        for row in reading.objects(f"{part}.jsonl"):
            used.add(row.fields[0])
            _food101_row(reading, row, part)
        for path in walk(reading.root / reading.path("images", part)):
            if path not in used:
                place, listed = PurePosixPath(path), path.lower().endswith(food101.SUFFIXES)
                reason = "no_text" if listed else "unknown_name"
                source = reading.path("images", part, path)
                told = f"not in {part}.jsonl"
                reading.rejected.append(Rejection(place.stem, source, reason, told))
    reading.tell_others("images", set(food101.PARTS))
    return reading.scan("food101", food101.LABELS)


def _food101_row(reading: Reading, row: Row, part: str) -> None:
    name, text = row.fields
    sample = f"{part}/{name}"
    if not reading.first(sample, row):
        return
    path = reading.path("images", part, name)
    number = FOOD101.get(row.key, food101.IDS.get(food101.canonical(row.key)))
    reason, detail = name_fault(name), name[:SHOWN]
    if not reason and number is None:
        reason, detail = _no_label(row.key, food101.LABELS)
    if not reason:
        reason, detail = _missing(reading, [path], [])
    if reason:
        reading.refuse(sample, row, reason, detail)
        return
    folder = food101.canonical(PurePosixPath(name).parent.name)
    if food101.IDS.get(folder, number) != number:
        detail = f"list: {food101.LABELS[number]}, folder: {folder}"
        reading.refuse(sample, row, "label_conflict", detail)
    inline = {"text": text}
    reading.candidates.append(Candidate(sample, number, {"image": (path,)}, "", part, inline))


# Kinetics-Sounds ----------------------------------------------------------------------------------


def scan_kinetics(reading: Reading) -> Scan:
    """audios/<name>.wav and videos/<name>/ of the clips of two lists: name, start, end, label.

    The release takes the first line of each list for a header: a sample there stands in no part
    under the rule `release`, and is one like others under the other rules.
    """
    used, lost = set(), []
    for part in ("train", "val"):
        name, header = f"videos/{part}.txt", True
        for source, place, line in reading.lines(name):
            fields = line.split()
            sound = len(fields) == 4 and NUMBER.fullmatch(fields[3])
            if sound:
                used.add(fields[0])
                lost += [fields[0]] if header else []
                _kinetics_row(reading, Row(source, place, fields, fields[3]), part, header)
            elif header and not NUMBER.fullmatch(fields[-1]):
                reading.rejected.append(Rejection(place, source, "header_line", line[:SHOWN]))
            else:
                reading.bad_line(source, place, line)
            header = False
    first = {name.split("/")[0] for name in used}  # a name may lead into a folder
    reading.tell_others("audios", first | {f"{name}.wav" for name in used}, ".wav")
    reading.tell_others("videos", first | {"train.txt", "val.txt"})
    scan = reading.scan("kinetics", kinetics.LABELS)
    if lost:
        scan.warnings.append(
            "the official code takes the first line of each list for a header: under --split_rule"
            f" release, {' and '.join(shown(name, SHOWN) for name in lost)} in no part"
        )
    return scan


def _kinetics_row(reading: Reading, row: Row, part: str, header: bool) -> None:
    name, number = row.fields[0], int(row.key)
    if not reading.first(name, row, header):
        return
    wav, folder = reading.path("audios", f"{name}.wav"), reading.path("videos", name)
    reason, detail = name_fault(name), name[:SHOWN]
    if not reason and number >= len(kinetics.LABELS):
        reason, detail = _no_label(row.key, kinetics.LABELS)
    if not reason:
        reason, detail = _missing(reading, [wav], [folder])
    if reason:
        reading.refuse(name, row, reason, detail)
        return
    told = kinetics.NAME.fullmatch(PurePosixPath(name).name)
    sources = {"audio": (wav,), "video": (folder,)}
    group = told[1] if told else name
    reading.candidates.append(Candidate(name, number, sources, group, part))
