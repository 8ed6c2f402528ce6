"""Your own data: a manifest as the data set, and as the list of new files."""

import csv
import shutil
import unicodedata

import numpy as np
import pytest
from conftest import program

from common.files import file_digest, read_table
from common.options import UsageError
from data_prep import datasets
from data_prep.datasets.manifest import Manifest, Settings
from data_prep.prepare import scan_root
from data_prep.spec import Array, Audio, Flow, Image, Text, Video
from experiments.run.folder import RunFolder
from experiments.run.predict import read_manifest
from experiments.run.resolve import resolve


def write(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([header, *rows])
    return path


@pytest.fixture
def pets(tmp_path):
    """(folder, write): the files of six pets, and a function that writes their manifest."""
    for k in range(6):
        (tmp_path / f"{k}.wav").write_bytes(b"x")

    def manifest(header=("id", "label", "audio", "text"), change=None):
        rows = [[f"p{k}", "cat" if k % 2 else "dog", f"{k}.wav", f"a text, {k}"] for k in range(6)]
        if change:
            change(rows)
        return write(tmp_path / "pets.csv", header, rows)

    return tmp_path, manifest


def scan(path, root=None):
    layout = Manifest(path)
    layout.anywhere = root is not None
    return scan_root(layout, "pets", root or path.parent, Settings(vocabulary="build"))


def test_rows_become_candidates_in_id_order_with_sorted_classes(pets):
    folder, manifest = pets
    found = scan(manifest())
    assert found.label_names == ("cat", "dog") and not found.rejected
    assert [c.id for c in found.candidates] == [f"p{k}" for k in range(6)]
    first = found.candidates[0]
    assert (first.label, first.sources, first.inline) == (
        1,
        {"audio": ("0.wav",)},
        {"text": "a text, 0"},
    )


def test_the_columns_decide_modalities_and_their_order(tmp_path):
    header = ("id", "label", "array", "split", "video", "audio", "group")
    layout = Manifest(write(tmp_path / "a.csv", header, []))
    spec = layout.spec(Settings())
    assert [type(kind) for kind in spec.values()] == [Array, Video, Audio]
    assert list(layout.views(Settings())) == list(layout.normalise(Settings())) == list(spec)
    assert layout.defaults == {"split_rule": "official"}


def test_texts_are_prepared_with_the_vocabulary_asked_for(tmp_path):
    layout = Manifest(write(tmp_path / "a.csv", ("id", "label", "text"), []))
    kind = layout.spec(Settings(vocabulary="build", max_tokens=9))["text"]
    assert isinstance(kind, Text) and (kind.vocabulary, kind.max_tokens) == ("build", 9)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (("id", "audio"), "no column label .* it needs id, label"),
        (("id", "label", "sound"), "one or more of audio, video"),
        (("id", "label", "audio", "Audio"), "the column audio twice"),
        (("id", "label"), "one or more of audio, video"),
    ],
)
def test_a_header_that_cannot_be_one_is_refused(tmp_path, header, words):
    with pytest.raises(UsageError, match=words):
        Manifest(write(tmp_path / "a.csv", header, [])).spec(Settings())


def test_what_cannot_be_a_sample_is_listed_with_its_line(pets):
    def damage(rows):
        rows[0][2], rows[1][1], rows[3][0] = "gone.wav", "", "p2"

    found = scan(pets[1](change=damage))
    listed = {(r.source, r.reason) for r in found.rejected}
    assert listed == {
        ("pets.csv, line 2", "missing_file"),
        ("pets.csv, line 3", "no_label"),
        ("pets.csv, line 5", "duplicate"),
    }
    assert len(found.candidates) == 3


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("../secret.wav", "leaves the folder"),
        ("/etc/hostname", "is not under .*: give --dataset_root a folder that holds all"),
        ("a/../../b.wav", "leaves the folder"),
        ("link/hostname", "is a link that leads out of .* with --dataset_root .* anywhere"),
    ],
)
def test_a_path_outside_is_refused_with_the_way_out(pets, path, words):
    folder, manifest = pets
    (folder / "link").symlink_to("/etc")
    with pytest.raises(UsageError, match=f"line 2: .*{words}"):
        scan(manifest(change=lambda rows: rows[0].__setitem__(2, path)))


def test_absolute_paths_and_links_work_where_the_user_names_the_root(pets, tmp_path_factory):
    folder, manifest = pets
    scratch = tmp_path_factory.mktemp("scratch")
    shutil.move(folder / "0.wav", scratch / "0.wav")
    (folder / "link").symlink_to(scratch)

    def change(rows):
        rows[0][2], rows[1][2] = "link/0.wav", str(folder / "1.wav")
        rows[2][2] = (folder / "2.wav").as_uri()

    found = scan(manifest(change=change), root=folder)
    assert [c.sources["audio"][0] for c in found.candidates[:3]] == ["link/0.wav", "1.wav", "2.wav"]

    def elsewhere(rows):
        for row in rows:
            row[2] = str(scratch / "0.wav")

    assert len(scan(manifest(change=elsewhere), root=scratch).candidates) == 6


def test_paths_as_other_systems_write_them(pets):
    folder, manifest = pets
    composed = unicodedata.normalize("NFC", "chât.wav")
    (folder / "a").mkdir()
    (folder / "a" / unicodedata.normalize("NFD", composed)).write_bytes(b"x")
    (folder / "b\\c.wav").write_bytes(b"x")  # a name of its own here, and no path

    def change(rows):
        rows[0][2], rows[1][2], rows[2][2] = f"a\\{composed}", "b\\c.wav", "./3.wav"

    found = scan(manifest(change=change))
    sources = [c.sources["audio"][0] for c in found.candidates[:3]]
    assert sources == [f"a/{unicodedata.normalize('NFD', composed)}", "b\\c.wav", "3.wav"]


def test_no_sample_at_all_is_explained(pets):
    path = pets[1](
        change=lambda rows: [row.__setitem__(2, f"{k}.WAV") for k, row in enumerate(rows)]
    )
    with pytest.raises(UsageError) as error:
        scan(path)
    told = str(error.value)
    assert "6 missing_file (pets.csv, line 2: audio: '0.WAV' is not there; there is '0.wav'" in told
    assert "line 3" in told and "line 4" not in told


def test_a_cell_of_ten_million_characters_is_refused(pets):
    path = pets[1](change=lambda rows: rows[0].__setitem__(3, "x" * 10_000_000))
    with pytest.raises(UsageError, match="line 2: it has more than 100000 characters"):
        scan(path)


@pytest.mark.parametrize("closed", ["", "closed"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 1, 3, 2)])
def test_an_open_quote_is_an_error_that_names_its_line(pets, order, closed):
    def change(rows):
        rows[5][3] = "5 inches" if closed else rows[5][3]
        rows[:] = [[row[k] for k in order] for row in rows]

    header = ("id", "label", "audio", "text")
    path = pets[1](tuple(header[k] for k in order), change)
    text = path.read_text().replace('"a text, 2"', '"a text, 2')
    text = text.replace("5 inches", '5 inches"') if closed else text.replace('"a text, 5"', "b")
    path.write_text(text)
    with pytest.raises(UsageError, match=r"pets.csv, line 4: it opens a quote that nothing closes"):
        scan(path)


def test_a_text_may_stand_on_several_lines(pets):
    text = 'First line, with commas, and,\na "second", one\r\n\nlast'
    found = scan(pets[1](change=lambda rows: rows[2].__setitem__(3, text)))
    assert found.candidates[2].inline["text"] == text and len(found.candidates) == 6


def test_rows_with_more_or_fewer_cells_are_refused_with_both_counts(pets):
    path = pets[1]()
    text = path.read_text().replace('"a text, 2"', "a text, 2").replace(',"a text, 3"', "")
    path.write_text(text)
    found = scan(path)
    assert [(r.source, r.reason, r.detail) for r in found.rejected] == [
        ("pets.csv, line 4", "bad_line", "5 cells where the header has 4"),
        ("pets.csv, line 5", "bad_line", "3 cells where the header has 4"),
    ]
    assert len(found.candidates) == 4 and found.listed == 6


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_of_spreadsheets_and_of_pandas_are_read(pets, separator, encoding):
    path = pets[1](("ID", " Label", "AUDIO", "Text"))
    with open(path, newline="") as handle:
        rows = list(csv.reader(handle))
    with open(path, "w", newline="", encoding=encoding) as handle:
        writer = csv.writer(handle, delimiter=separator)
        writer.writerow(["", *rows[0], "speaker"])
        writer.writerows([str(k), *row, "me; too"] for k, row in enumerate(rows[1:]))
    found = scan(path)
    assert [c.inline["text"] for c in found.candidates] == [f"a text, {k}" for k in range(6)]
    assert found.warnings == ["pets.csv: columns passed over: one without a name, speaker"]


@pytest.mark.parametrize("labels", [
    ("cat", "Cat"), ("0", "0.0"), ("1", "01"), ("caf\u00e9", "cafe\u0301"),
    ("hot dog", "hot\u00a0dog"), ("hot dog", "hot  dog"), ("dog", "do\u200bg"),
])  # fmt: skip
def test_classes_that_are_written_in_two_ways_are_noted(pets, labels):
    def change(rows):
        rows[0][1], rows[1][1] = labels

    (note,) = scan(pets[1](change=change)).warnings
    assert all(repr(label) in note for label in labels)


def test_further_classes_written_in_two_ways_are_counted(pets):
    def change(rows):
        for row, label in zip(rows, ("0", "0.0", "cat", "Cat", "CAT")):
            row[1] = label

    (note,) = scan(pets[1](change=change)).warnings
    assert (
        note == "the classes '0' and '0.0' (and 2 more pairs) differ only in how they are written"
    )


def test_splits_by_several_names_and_none_other(pets):
    header = ("id", "label", "audio", "text", "split")

    def parts(*names):
        return lambda rows: [row.append(name) for row, name in zip(rows, names)]

    found = scan(pets[1](header, parts("train", "train", "valid", "dev", "test", "test")))
    assert [c.part for c in found.candidates] == ["train", "train", "val", "val", "test", "test"]
    upper = scan(pets[1](header, parts("Train", "TRAINING", "Validation", "DEV", "Test", "")))
    assert [c.part for c in upper.candidates] == ["train", "train", "val", "val", "test", ""]
    with pytest.raises(UsageError, match="line 2: split 'third' is none of"):
        scan(pets[1](header, parts("third", *["train"] * 5)))


def test_one_class_alone_is_refused(pets):
    with pytest.raises(UsageError, match="has 1 label"):
        scan(pets[1](change=lambda rows: [row.__setitem__(1, "cat") for row in rows]))


def test_a_run_is_named_after_the_manifests_file(pets):
    path = pets[1]()
    run, _ = resolve(["--dataset", str(path), "--method", "joint", "--vocabulary", "build"], "")
    assert (run.dataset, run.manifest) == (f"pets-{file_digest(path)[:8]}", str(path))
    (path.parent / "my pets!.csv").write_text("id")
    assert datasets.public_name(str(path.parent / "my pets!.csv")).startswith("my_pets_-")


def test_other_rows_are_another_data_set(pets):
    first = datasets.public_name(str(pets[1]()))
    second = datasets.public_name(str(pets[1](change=lambda rows: rows[0].__setitem__(1, "cat"))))
    assert first != second and first.startswith("pets-") and second.startswith("pets-")
    with pytest.raises(UsageError, match="gone.csv cannot be read: No such file"):
        datasets.public_name(str(pets[0] / "gone.csv"))


def test_new_texts_in_pairs_have_two_columns(tmp_path):
    spec = {"image": Image(), "text": Text(pair=True)}
    new = write(tmp_path / "new.csv", ("id", "image", "text", "target"), [("a", "a.jpg", "x", "y")])
    (candidate,), _ = read_manifest(new, spec)
    assert candidate.inline == {"text": ["x", "y"]} and candidate.sources == {"image": ("a.jpg",)}
    write(new, ("id", "image", "text"), [("a", "a.jpg", "x")])
    with pytest.raises(
        UsageError, match="has no column target .* it needs id, image, text, target"
    ):
        read_manifest(new, spec)


def test_new_precomputed_flow_is_two_folders(tmp_path):
    spec = {"flow": Flow("precomputed")}
    new = write(tmp_path / "new.csv", ("id", "flow"), [("a", "u/a;v/a")])
    assert read_manifest(new, spec)[0][0].sources == {"flow": ("u/a", "v/a")}
    for cell, words in (("u/a", "not two folders"), ("u/a;../a", "line 2: .* leaves the folder")):
        with pytest.raises(UsageError, match=words):
            read_manifest(write(new, ("id", "flow"), [("a", cell)]), spec)


@pytest.mark.parametrize("content", [b"id,text\na,\xff\n", b"id,text\na," + b"x" * 10_000_000])
def test_a_list_of_new_files_that_cannot_be_read_is_refused(tmp_path, content):
    (tmp_path / "new.csv").write_bytes(content)
    with pytest.raises(UsageError, match="new.csv, line 2: it (is not UTF-8|has more than)"):
        read_manifest(tmp_path / "new.csv", {"text": Text()})


@pytest.mark.slow
def test_from_a_folder_of_files_to_predictions_for_new_ones(demo_data, tmp_path):
    """Sound, video, text and feature vectors; the run's folder alone serves new files."""
    root, own = demo_data[0], tmp_path / "own"
    own.mkdir()
    rng, rows = np.random.default_rng(0), []
    for row in read_table(root / "labels.csv")[:120]:
        name = row["id"]
        for end in ("wav", "avi"):
            shutil.copy(root / "clips" / f"{name}.{end}", own)
        vectors = rng.standard_normal((int(rng.integers(2, 6)), 4)).astype(np.float32)
        np.save(own / f"{name}.npy", vectors)
        text = f"a {'round' if row['label'] in '0689' else 'straight'} digit"
        text += " indeed" * (len(rows) % 4)
        rows.append([name, row["label"], f"{name}.wav", f"{name}.avi", text, f"{name}.npy"])
    path = write(own / "digits.csv", ("id", "label", "audio", "video", "text", "array"), rows)
    small = ("--encoder", "small", "--size", "32", "--text_model", "tiny", "--vocabulary", "build")
    cut = ("--seconds", "1.2", "--fps", "3", "--max_length", "4", "--max_epochs", "2")
    places = ("--data_dir", tmp_path / "data", "--output_dir", tmp_path / "run")
    run = ("--dataset", path, "--method", "Midas", "--devices", "cpu", "--threads", "1")
    done = program("train.py", *run, *places, *small, *cut, "--batch_size", "16")
    assert done.returncode == 0, done.stderr
    log = RunFolder(tmp_path / "run").read_log()
    assert log[-1]["train/n_valid"] > 0 and "val/acc_zero/array" in log[-1]

    tested = {row["id"]: row for row in read_table(tmp_path / "run" / "predictions.csv")}
    rows = [row for row in rows if row[0] in tested]
    shutil.rmtree(tmp_path / "data")
    np.save(own / "wide.npy", np.ones((3, 5), np.float32))
    wide = ["wide", *rows[0][2:5], "wide.npy"]
    header = ("id", "audio", "video", "text", "array")
    new = write(own / "new.csv", header, [*(r[:1] + r[2:] for r in rows[:3]), wide])
    path.unlink()
    out = tmp_path / "out.csv"
    told = program(
        "evaluate.py", tmp_path / "run", "--predict", new, "--out", out, "--devices", "cpu"
    )
    assert told.returncode == 3, told.stderr
    assert "wide: array has 5 values a vector, the run's data had 4" in told.stderr
    assert [row["id"] for row in read_table(out)] == [row[0] for row in rows[:3]]
    assert "text/prediction" in read_table(out)[0]
    for row in read_table(out):  # one by one, without padding, as in the test part's batches
        for name in "0123456789":
            expected = float(tested[row["id"]][f"p/{name}"])
            assert abs(float(row[f"fused/p/{name}"]) - expected) < 1e-5
