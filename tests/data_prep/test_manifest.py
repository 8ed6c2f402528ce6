"""Custom data: a manifest as the dataset, and as the list of new files."""

import csv
import unicodedata

import cv2
import numpy as np
import pytest

from common.files import file_digest, read_table
from common.options import UsageError
from data_prep import datasets
from data_prep.datasets.manifest import Manifest, Settings
from data_prep.modalities.flow import Flow
from data_prep.modalities.image import Image
from data_prep.modalities.text import Text
from data_prep.prepare import check_source, prepare, scan_root
from data_prep.store import Prepared
from experiments.run.predict import read_manifest
from experiments.run.resolve import resolve
from fixtures.release import write_frames

HEADER = ("id", "label", "audio", "text")


def write(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([header, *rows])
    return path


@pytest.fixture
def pets(tmp_path):
    """A function that writes the manifest of six pets, with their files next to it."""
    for k in range(6):
        (tmp_path / f"{k}.wav").write_bytes(b"x")

    def manifest(header=HEADER, change=lambda rows: None):
        rows = [[f"p{k}", "cat" if k % 2 else "dog", f"{k}.wav", f"a text, {k}"] for k in range(6)]
        change(rows)
        return write(tmp_path / "pets.csv", header, rows)

    return manifest


def scan(path, root=None):
    layout = Manifest(path)
    layout.anywhere = root is not None
    return scan_root(layout, "pets", root or path.parent, Settings(vocabulary="build"))


def put(row, column, value):
    """A change of one cell."""
    return lambda rows: rows[row].__setitem__(column, value)


def audio(found):
    return [c.sources["audio"][0] for c in found.candidates]


# Columns and rows ---------------------------------------------------------------------------------


def test_rows_become_candidates_in_id_order_with_sorted_classes(pets):
    found = scan(pets())
    assert found.label_names == ("cat", "dog") and not found.rejected
    assert [c.id for c in found.candidates] == [f"p{k}" for k in range(6)]
    first = found.candidates[0]
    assert (first.label, first.sources) == (1, {"audio": ("0.wav",)})
    assert first.inline == {"text": "a text, 0"}


def test_the_columns_decide_modalities_their_order_and_the_split(tmp_path):
    header = ("id", "label", "array", "split", "video", "audio", "group", "text")
    layout = Manifest(write(tmp_path / "a.csv", header, []))
    spec = layout.spec(Settings(vocabulary="build", max_tokens=9, frames=2, flip=False))
    assert {m: kind.kind for m, kind in spec.items()} == {
        m: m for m in ("array", "video", "audio", "text")
    }
    assert (spec["text"].vocabulary, spec["text"].max_tokens) == ("build", 9)
    assert (spec["video"].frames, spec["video"].augment) == (2, "none")
    assert spec["audio"].normalise == spec["array"].normalise == "train"
    assert layout.SPLIT_RULE == "official" and layout.defaults == {"split_rule": "official"}
    assert Manifest(write(tmp_path / "b.csv", HEADER, [])).defaults == {}


def test_a_column_may_name_its_modality(pets, tmp_path):
    for k in range(6):
        (tmp_path / f"{k}.npy").write_bytes(b"x")

    def change(rows):
        for k, row in enumerate(rows):
            row += [f"{k}.wav", f"{k}.npy"]

    path = pets(("id", "label", "Audio : Near", "text", "audio", "array:video"), change)
    path.write_text(path.read_text().replace("0.wav", "gone.wav", 1))
    spec = Manifest(path).spec(Settings(vocabulary="build", seconds=3.0))
    kinds = {"near": "audio", "text": "text", "audio": "audio", "video": "array"}
    assert {m: modality.kind for m, modality in spec.items()} == kinds and list(spec) == list(kinds)
    assert spec["near"] == spec["audio"] and spec["near"].seconds == 3.0
    found = scan(path)
    files = {"near": ("1.wav",), "audio": ("1.wav",), "video": ("1.npy",)}
    assert found.candidates[0].sources == files and not found.warnings
    assert [r.detail for r in found.rejected] == ["near: 'gone.wav' does not exist"]
    new, row = tmp_path / "new.csv", ("a", "1.wav", "a text", "2.wav", "1.npy")
    for header in (("id", "audio:near", *HEADER[3:], "audio", "array:video"), ("id", *kinds)):
        ((candidate,), _) = read_manifest(write(new, header, [row]), spec)
        due = {"near": ("1.wav",), "audio": ("2.wav",), "video": ("1.npy",)}
        assert candidate.sources == due and candidate.inline == {"text": "a text"}


@pytest.mark.parametrize(("column", "words"), [
    ("array:left eye", "'left eye' is no name of a modality, which begins with one of a-z"),
    ("array:a/b", "'a/b' is no name"), ("array:a.b", "'a.b' is no name"), ("array:2d", "'2d' is"),
    ("array:tiefe_ü", "is no name"), ("array:" + "a" * 31, "is no name"),
    ("array:label", "no modality can be called 'label'"), ("array:flags", "called 'flags'"),
    ("array:fused", "called 'fused', as none of id, label"),
    ("array:float", "PyTorch allows no part of a model to be called 'float'"),
    ("array:training", "called 'training'"), ("array:text", "the column text twice"),
])  # fmt: skip
def test_a_name_that_cannot_be_used_everywhere_is_refused(tmp_path, column, words):
    path = write(tmp_path / "a.csv", ("id", "label", column, "text"), [])
    with pytest.raises(UsageError, match=words):
        Manifest(path).spec(Settings(vocabulary="build"))


@pytest.mark.parametrize(("header", "words"), [
    (("id", "audio"), "no column label .* it needs id, label"),
    (("id", "label", "sound"), "one or more of audio, video"),
    (("id", "label", "audio", "Audio"), "the column audio twice"),
    (("id", "label"), "one or more of audio, video"),
    (("id", "label", "Sound"), "the columns id, label, sound; it needs"),
])  # fmt: skip
def test_an_invalid_header_is_refused(tmp_path, header, words):
    with pytest.raises(UsageError, match=words):
        Manifest(write(tmp_path / "a.csv", header, [])).spec(Settings())


def test_rows_that_cannot_be_samples_are_listed_with_their_line(pets):
    def damage(rows):
        rows[0][2], rows[1][1], rows[3][0] = "gone.wav", "", "p2"

    path = pets(change=damage)
    path.write_text(path.read_text().replace('"a text, 4"', "a text, 4"))
    found = scan(path)
    assert {(r.source, r.reason) for r in found.rejected} == {
        ("pets.csv, line 2", "missing_file"), ("pets.csv, line 3", "no_label"),
        ("pets.csv, line 5", "duplicate"), ("pets.csv, line 6", "bad_line"),
    }  # fmt: skip
    assert "5 cells, but the header has 4" in {r.detail for r in found.rejected}
    assert len(found.candidates) == 2 and found.listed == 6


def test_a_text_may_span_several_lines(pets):
    text = 'First line, with commas, and,\na "second", one\r\n\nlast'
    found = scan(pets(change=put(2, 3, text)))
    assert found.candidates[2].inline["text"] == text and len(found.candidates) == 6


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 1, 3, 2)])
@pytest.mark.parametrize("last", ["b", '5 inches"'])
def test_an_open_quote_is_an_error_that_names_its_line(pets, order, last):
    def change(rows):
        rows[:] = [[row[k] for k in order] for row in rows]

    path = pets(tuple(HEADER[k] for k in order), change)
    text = path.read_text().replace('"a text, 2"', '"a text, 2').replace('"a text, 5"', last)
    path.write_text(text)
    with pytest.raises(UsageError, match=r"pets.csv, line 4: it opens a quote that is not closed"):
        scan(path)


@pytest.mark.parametrize(("separator", "encoding"), [
    (",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-16"),
])  # fmt: skip
def test_files_of_spreadsheets_and_of_pandas_are_read(pets, separator, encoding):
    path = pets(("ID", " Label", "AUDIO", "Text"))
    with open(path, newline="") as handle:
        rows = list(csv.reader(handle))
    with open(path, "w", newline="", encoding=encoding) as handle:
        writer = csv.writer(handle, delimiter=separator)
        writer.writerow(["", *rows[0], "speaker"])
        writer.writerows([str(k), *row, "me; too"] for k, row in enumerate(rows[1:]))
    found = scan(path)
    assert [c.inline["text"] for c in found.candidates] == [f"a text, {k}" for k in range(6)]
    assert found.warnings == ["pets.csv: ignored columns: one without a name, speaker"]


# Labels and splits --------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [
    ("cat", "Cat"), ("1", "01"), ("caf\u00e9", "cafe\u0301"), ("hot dog", "hot\u00a0 dog"),
    ("dog", "do\u200bg"), ("0", "0.0", "cat", "Cat", "CAT"),
])  # fmt: skip
def test_classes_with_two_spellings_are_noted(pets, labels):
    def change(rows):
        for row, label in zip(rows, labels):
            row[1] = label

    (note,) = scan(pets(change=change)).warnings
    assert all(repr(label) in note for label in labels[:2])
    assert (" (and 2 more pairs) differ only" in note) == (len(labels) == 5)


def test_splits_by_several_names(pets):
    names = ("Train", "TRAINING", "Validation", "DEV", "Test", "valid")
    path = pets((*HEADER, "split"), lambda rows: [r.append(n) for r, n in zip(rows, names)])
    parts = [c.part for c in scan(path).candidates]
    assert parts == ["train", "train", "val", "val", "test", "val"]
    path.write_text(path.read_text().replace("Train", "third", 1))
    with pytest.raises(UsageError, match="line 2: split 'third' is not one of"):
        scan(path)


def test_the_datasets_name_comes_from_its_file_and_content(pets):
    path = pets()
    run, _ = resolve(["--dataset", str(path), "--method", "joint", "--vocabulary", "build"], "")
    name = f"pets-{file_digest(path)[:8]}"
    assert (run.dataset, run.manifest) == (name, str(path))
    assert datasets.public_name(str(pets(change=put(0, 1, "cat")))) != name
    (path.parent / "my pets!.csv").write_text("id")
    assert datasets.public_name(str(path.parent / "my pets!.csv")).startswith("my_pets_-")
    with pytest.raises(UsageError, match="gone.csv cannot be read: No such file"):
        datasets.public_name(str(path.parent / "gone.csv"))


# Paths --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "words"), [
    ("../secret.wav", "leaves the folder"), ("a/../../b.wav", "leaves the folder"),
    ("/etc/hostname", "is not under .*: set --dataset_root to a folder that contains all"),
    ("link/hostname", "is a link that points outside .* give --dataset_root "),
])  # fmt: skip
def test_a_path_outside_is_refused_with_the_way_out(pets, tmp_path, path, words):
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(UsageError, match=f"line 2: .*{words}"):
        scan(pets(change=put(0, 2, path)))


def test_absolute_paths_and_links_work_if_the_user_names_the_root(pets, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "0.wav").write_bytes(b"x")
    (tmp_path / "link").symlink_to(scratch)

    def change(rows):
        rows[0][2], rows[1][2] = "link/0.wav", str(tmp_path / "1.wav")
        rows[2][2] = (tmp_path / "2.wav").as_uri()

    assert audio(scan(pets(change=change), tmp_path))[:3] == ["link/0.wav", "1.wav", "2.wav"]


def test_paths_as_other_systems_write_them(pets, tmp_path):
    composed, apart = (unicodedata.normalize(form, "chât.wav") for form in ("NFC", "NFD"))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / apart).write_bytes(b"x")
    (tmp_path / "b\\c.wav").write_bytes(b"x")  # here a file name, not a path

    def change(rows):
        rows[0][2], rows[1][2], rows[2][2] = f"a\\{composed}", "b\\c.wav", "./3.wav"

    assert audio(scan(pets(change=change)))[:3] == [f"a/{apart}", "b\\c.wav", "3.wav"]


@pytest.mark.parametrize("value", [
    "file:/etc/hostname", "http://127.0.0.1:9/a.wav", "pipe:0", "-", ".", "a\0b", "a" * 5000,
    "concat:0.wav|/etc/hostname", "~/a.wav", "$HOME/a.wav", "`id`", "self.wav", "a\r\nb",
])  # fmt: skip
def test_a_path_that_other_programs_would_follow_names_no_file(pets, tmp_path, value):
    (tmp_path / "self.wav").symlink_to("self.wav")
    found = scan(pets(change=put(5, 2, value)))
    assert [r.reason for r in found.rejected] == ["missing_file"]


# Folders of frames --------------------------------------------------------------------------------


@pytest.fixture
def films(tmp_path):
    """A csv of six films: folders of 12 frames each, with frame k of the level 10 * k."""
    shades = np.arange(12, dtype=np.uint8)[:, None, None, None] * 10
    for k in range(6):
        write_frames(tmp_path / f"{k}", "f{}.jpg", np.broadcast_to(shades, (12, 8, 8, 3)))
    rows = [(f"p{k}", "cat" if k % 2 else "dog", f"{k}") for k in range(6)]
    return write(tmp_path / "films.csv", ("id", "label", "video"), rows)


def test_a_folder_of_frames_is_a_video_without_a_frame_rate(films, tmp_path):
    found = prepare(str(films), None, tmp_path / "data", Settings(max_frames=4), workers=1)
    (row, *_) = read_table(found / "manifest.csv")
    assert (row["sources"], row["n_frames"], row["flags"]) == ("0", "12", "")
    stored = Prepared(found).value(0, "video")
    assert [round(cv2.imdecode(np.frombuffer(s, np.uint8), 0).mean() / 10) for s in stored] == [
        1, 4, 7, 10,
    ]  # fmt: skip


def test_frames_that_were_extracted_again_are_noticed(films, tmp_path):
    folder = prepare(str(films), None, tmp_path / "data", Settings(), workers=1)
    check_source(Prepared(folder), str(films), None, Settings())
    for path in (tmp_path / "3").iterdir():  # written over the former ones: the folder is unchanged
        path.write_bytes(cv2.imencode(".jpg", np.full((99, 99, 3), 90, np.uint8))[1].tobytes())
    with pytest.raises(UsageError, match="was prepared from other files"):
        check_source(Prepared(folder), str(films), None, Settings())


def test_only_a_video_may_be_a_folder_and_its_links_stay_inside(films, tmp_path, pets):
    sounds = scan(pets(change=put(0, 2, "0")))
    assert [r.detail for r in sounds.rejected] == ["audio: it is not a file"]
    (tmp_path / "0" / "f3.jpg").unlink()
    (tmp_path / "0" / "f3.jpg").symlink_to("/etc/hostname")
    with pytest.raises(UsageError, match="line 2: '0/f3.jpg' is a link that points outside"):
        scan(films)
    assert len(scan(films, tmp_path).candidates) == 6


def test_no_sample_at_all_is_explained(pets):
    def change(rows):
        for k, row in enumerate(rows):
            row[2] = f"{k}.WAV"

    with pytest.raises(UsageError) as error:
        scan(pets(change=change))
    message = str(error.value)
    assert (
        "6 missing_file (pets.csv, line 2: audio: '0.WAV' does not exist; there is '0.wav'"
        in message
    )
    assert "line 3" in message and "line 4" not in message


# New files ----------------------------------------------------------------------------------------


def test_new_files_have_the_columns_of_the_run_s_modalities(tmp_path):
    new, pair = tmp_path / "new.csv", {"image": Image(), "text": Text(pair=True)}
    write(new, ("id", "image", "text", "target"), [("a", "a.jpg", "x", "y")])
    (candidate,), _ = read_manifest(new, pair)
    assert candidate.inline == {"text": ["x", "y"]} and candidate.sources == {"image": ("a.jpg",)}
    write(new, ("id", "image", "text"), [("a", "a.jpg", "x")])
    words = "has no column target .* it needs id, image, text, target"
    with pytest.raises(UsageError, match=words):
        read_manifest(new, pair)


@pytest.mark.parametrize(("spec", "cell", "due"), [
    (Flow("precomputed"), "u/a;v/a", ("u/a", "v/a")),
    (Flow("precomputed"), "u/a", "not two folders"),
    (Flow("precomputed"), "u/a;../a", "line 2: .* leaves the folder"),
    (Flow("dis", of_folder=30), "u/a;v/a", ("u/a", "v/a")),  # as in trees for the official code
    (Flow("dis", of_folder=30), "a.avi", ("a.avi",)),
])  # fmt: skip
def test_new_flow_is_two_folders_or_a_video(tmp_path, spec, cell, due):
    new = write(tmp_path / "new.csv", ("id", "flow"), [("a", cell)])
    if isinstance(due, tuple):
        assert read_manifest(new, {"flow": spec})[0][0].sources == {"flow": due}
    else:
        with pytest.raises(UsageError, match=due):
            read_manifest(new, {"flow": spec})


@pytest.mark.parametrize("content", [b"id,text\na,\xff\n", b"id,text\na," + b"x" * 10_000_000])
def test_a_list_of_new_files_that_cannot_be_read_is_refused(tmp_path, content):
    (tmp_path / "new.csv").write_bytes(content)
    with pytest.raises(UsageError, match="new.csv, line 2: it (is not UTF-8|has more than)"):
        read_manifest(tmp_path / "new.csv", {"text": Text()})
