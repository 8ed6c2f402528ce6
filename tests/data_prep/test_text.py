"""Texts: cleaning, vocabularies, the tokens of a sample."""

import csv
import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import tokenizers
import torch
from conftest import ROOT

from common.options import UsageError
from data_prep.datasets.manifest import Settings
from data_prep.loader import Loader
from data_prep.modalities.text import (
    MAX_CHARACTERS,
    SPECIAL,
    build_vocabulary,
    clean,
    extract,
    place_vocabulary,
    text_spec,
    well_formed,
)
from data_prep.modalities.transforms import make_input, without_padding
from data_prep.prepare import prepare
from data_prep.spec import Array, Image, PlainView, Text
from data_prep.store import Prepared
from models.sequences import TextEncoder
from models.weights import TINY, text_body

WORDS = (
    "Apple pie café recipe Über the best pies baking bakers 12 minutes , . ' # niño 我 😀".split()
)


def texts(count=300, seed=0):
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 12))) for _ in range(count)]


def built(folder, lines=None):
    """A folder with a vocabulary of `lines`, as a prepared one has it."""
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_bytes(build_vocabulary(lines or texts(), 4000))
    return folder


def real_vocabulary():
    """The folder of ELECTRA's own vocab.txt: $ELECTRA_FOLDER, or real/electra beside the project.

    It is not ours to hand on; without it the ids are not tested.
    """
    beside = ROOT.parent / "shared" / "real" / "electra"
    folder = Path(os.environ.get("ELECTRA_FOLDER", beside))
    if not (folder / "vocab.txt").is_file():
        pytest.skip("ELECTRA's vocab.txt is not here: give its folder as ELECTRA_FOLDER")
    return folder


def arrays(extracted):
    ids, segments = extracted.payload
    return np.frombuffer(ids, np.uint16).tolist(), np.frombuffer(segments, np.uint8).tolist()


def words_of(folder):
    return (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]


# --- cleaning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw,cleaned", [
    ("Mac &amp; Cheese &#39;n&#x27; more", "Mac & Cheese 'n' more"),
    ("  two\t words \n\u00a0here\u2003", "two words here"),
    ("see https://a.b/c?d=1 and http://x then", "see and then"),
    ("ﬁne ① Ｗide", "fine 1 Wide"),
    ("a\x00b\u200bc\x1bd\ufeffe", "abcde"),
    ("RT # tag stays", "RT # tag stays"),
    ("crème brûlée", "crème brûlée"),
    ("", ""), ("\x07", ""), ("https://only.url", ""),
])  # fmt: skip
def test_plain_cleaning(raw, cleaned):
    assert clean(raw, "plain") == cleaned == clean(cleaned, "plain")
    assert clean(raw, "") == raw


def golden_texts():
    """(texts, rows) of the official release; "'word ' 600 times" is spelled out."""
    cases = json.loads((ROOT / "tests" / "golden_midas_official.json").read_text())["cases"]
    (case,) = (case for case in cases if case["kind"] == "text")
    *raw, long = case["inputs"]["texts"]
    assert long == "'word ' 600 times"
    return [*raw, "word " * 600], case["expect"]["rows"]


def test_the_releases_cleaning():
    raw, rows = golden_texts()
    for text, row in zip(raw, rows, strict=True):
        expected = row["cleaned"] if row["cleaned"] != "the same" else text
        assert clean(text, "release") == expected


def test_the_releases_tokens():
    folder = real_vocabulary()
    raw, rows = golden_texts()
    spec = text_spec(str(folder), 512, cleaning="release")
    assert spec.words == 30522
    for text, row in zip(raw, rows, strict=True):
        payload = extract(text, spec, folder).payload
        ids, segments, mask = make_input(payload, spec, PlainView(), 224, None).tolist()
        length, first, last = row["length"], row.get("first_ids", []), row.get("last_ids", [])
        assert len(ids) == row["total"] and mask == [1] * length + [0] * (512 - length)
        assert ids[: len(first)] == first and ids[len(ids) - len(last) :] == last
        assert "ids" not in row or ids == row["ids"] + [0] * (512 - length)
        assert not any(segments)


def test_well_formed_joins_pairs_and_replaces_lone_surrogates():
    assert well_formed("a\ud83d\ude00b") == "a😀b"
    assert well_formed("a\ud800b\udfffc") == "a\ufffdb\ufffdc"
    assert well_formed("café 😀") == "café 😀"


# --- the spec -------------------------------------------------------------------------------------


def test_spec_of_each_setting(tmp_path):
    assert text_spec("electra", 40) == Text("electra", 30522, 40, False)
    assert text_spec("build", 64, pair=True) == Text("build", 4000, 64, True)
    built(tmp_path)
    content = (tmp_path / "vocab.txt").read_bytes()
    spec = text_spec(str(tmp_path), 40)
    assert spec.vocabulary == hashlib.sha256(content).hexdigest()[:12]
    assert spec.words == content.count(b"\n")
    (tmp_path / "vocab.txt").write_bytes(content.replace(b"\n", b"\r\n").rstrip())
    assert text_spec(str(tmp_path), 40) == spec


def test_a_folder_without_vocabulary_names_the_file(tmp_path):
    with pytest.raises(UsageError) as error:
        text_spec(str(tmp_path / "nothing"), 40)
    assert str(tmp_path / "nothing" / "vocab.txt") in str(error.value)
    assert "electra" in str(error.value) and "build" in str(error.value)


HEAD = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n"


@pytest.mark.parametrize("content,words", [
    (b"", "no line [PAD]"),
    (b"<html>not found</html>", "no line [PAD]"),
    (HEAD.replace("[SEP]\n", "").encode(), "no line [SEP]"),
    (b"a\n" + HEAD.encode(), "first line 'a'"),
    (HEAD.encode() + b"a\nb\na\n", "twice"),
    (HEAD.encode() + b"\xff\n", "not UTF-8"),
    (HEAD.encode() + b"".join(b"w%d\n" % k for k in range(1 << 16)), "more than 65536 lines"),
    (HEAD.encode() + b"w" * (9 << 20), "more than 65536 lines"),
])  # fmt: skip
def test_what_is_no_vocabulary_is_refused(tmp_path, content, words):
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(UsageError) as error:
        text_spec(str(tmp_path), 40)
    assert words in str(error.value) and str(tmp_path) in str(error.value)


# --- building a vocabulary ------------------------------------------------------------------------


def test_a_built_vocabulary_is_the_same_twice_and_in_any_order():
    first = build_vocabulary(texts(), 200)
    assert build_vocabulary(texts(), 200) == first
    shuffled = texts()
    random.Random(5).shuffle(shuffled)
    assert build_vocabulary(iter(shuffled), 200) == first


def test_a_built_vocabulary_is_the_same_in_other_processes():
    code = (
        "import json, sys; from data_prep.modalities.text import build_vocabulary as build;"
        "sys.stdout.buffer.write(build(json.load(sys.stdin), 120))"
    )
    for seed in "12":
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(texts()).encode(),
            capture_output=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
        )
        assert done.stdout == build_vocabulary(texts(), 120), done.stderr


@pytest.mark.parametrize("most", [20, 60, 200])
def test_a_built_vocabulary_has_special_tokens_first_and_no_more_words_than_asked(most):
    lines = build_vocabulary(texts(), most).decode().split("\n")[:-1]
    assert tuple(lines[:5]) == SPECIAL and len(lines) <= most
    assert len(set(lines)) == len(lines)
    assert "A" not in "".join(lines[5:]) and "é" not in "".join(lines)  # uncased, accents folded


def test_frequent_words_are_whole_in_a_built_vocabulary(tmp_path):
    words = words_of(built(tmp_path))
    assert {"apple", "recipe", "uber", "baking", "我", "😀", "#"} <= set(words)
    assert "##我" not in words and "##a" in words


def test_no_texts_make_the_special_tokens_alone():
    assert build_vocabulary([], 100).decode().split("\n")[:-1] == list(SPECIAL)


# --- placing it -----------------------------------------------------------------------------------


def test_an_equal_vocabulary_stays_and_another_is_refused(tmp_path):
    source, target = built(tmp_path / "source"), tmp_path / "target" / "vocab.txt"
    place_vocabulary(target, text_spec(str(source), 40), str(source))
    before = target.stat().st_mtime_ns
    place_vocabulary(target, text_spec(str(source), 40), str(source))
    assert target.stat().st_mtime_ns == before
    built(source, texts()[:20] + ["entirely other words entirely other words"])
    with pytest.raises(UsageError, match="another vocabulary"):
        place_vocabulary(target, text_spec(str(source), 40), str(source))
    assert target.stat().st_mtime_ns == before


def test_a_folders_vocabulary_is_copied_unless_it_changed(tmp_path):
    source, target = built(tmp_path / "source"), tmp_path / "target" / "vocab.txt"
    spec = text_spec(str(source), 40)
    place_vocabulary(target, spec, str(source))
    assert target.read_bytes() == (source / "vocab.txt").read_bytes()
    with open(source / "vocab.txt", "a") as handle:
        handle.write("more\n")
    with pytest.raises(UsageError, match="changed"):
        place_vocabulary(target, spec, str(source))


def fake_cache(monkeypatch, folder, model=None, lines=30522):
    """A Hugging Face cache that holds a vocab.txt of `model` (None: an empty one)."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    if model:
        place = folder / f"models--google--{model}"
        (place / "refs").mkdir(parents=True)
        (place / "refs" / "main").write_text("0123")
        (place / "snapshots" / "0123").mkdir(parents=True)
        content = HEAD + "".join(f"w{k}\n" for k in range(lines - 4))
        (place / "snapshots" / "0123" / "vocab.txt").write_text(content)


@pytest.mark.parametrize("model", ["electra-base-discriminator", "electra-small-discriminator"])
def test_electras_vocabulary_comes_from_the_cache(tmp_path, monkeypatch, model):
    fake_cache(monkeypatch, tmp_path / "cache", model)
    place_vocabulary(tmp_path / "vocab.txt", text_spec("electra", 40), "electra")
    assert len(words_of(tmp_path)) == 30522


def test_a_short_electra_vocabulary_is_refused(tmp_path, monkeypatch):
    fake_cache(monkeypatch, tmp_path / "cache", "electra-base-discriminator", lines=30000)
    with pytest.raises(UsageError, match="30000 lines, not 30522"):
        place_vocabulary(tmp_path / "vocab.txt", text_spec("electra", 40), "electra")
    assert not (tmp_path / "vocab.txt").exists()


def test_without_the_cache_every_way_out_is_named(tmp_path, monkeypatch):
    fake_cache(monkeypatch, tmp_path / "cache")
    with pytest.raises(UsageError) as error:
        place_vocabulary(tmp_path / "vocab.txt", text_spec("electra", 40), "electra")
    for words in (
        "google/electra-base-discriminator", "google/electra-small-discriminator", "vocab.txt",
        str(tmp_path / "cache"), "--vocabulary <folder>", "--vocabulary build", "hf download",
    ):  # fmt: skip
        assert words in str(error.value)
    assert "\n" not in str(error.value)


# --- tokens of a sample ---------------------------------------------------------------------------


HARD = [
    "Don't stop-it!",
    "naïve ÉCLAIR",
    "我们 a我b",
    "x" * 150,
    "tabs\tand\nlines",
    "😀😀",
    "##a [x]",
]


def test_tokens_are_those_of_the_libraries_own_bert_tokenizer(tmp_path):
    built(tmp_path)
    other = tokenizers.BertWordPieceTokenizer(str(tmp_path / "vocab.txt"), lowercase=True)
    single, pair = text_spec(str(tmp_path), 512), text_spec(str(tmp_path), 512, pair=True)
    for a, b in zip([*HARD, *texts(50)], [*texts(50, seed=1), *HARD]):
        assert arrays(extract(a, single, tmp_path))[0] == other.encode(a).ids
        both = other.encode(a, b)
        assert arrays(extract([a, b], pair, tmp_path)) == (both.ids, both.type_ids)


def test_a_long_text_keeps_its_beginning_and_ends_with_the_separator(tmp_path):
    words = words_of(built(tmp_path))
    text = " ".join(["apple"] * 5 + ["pie"] * 50)
    extracted = extract(text, text_spec(str(tmp_path), 9), tmp_path)
    ids, segments = arrays(extracted)
    expected = ["[CLS]", *["apple"] * 5, "pie", "pie", "[SEP]"]
    assert [words[k] for k in ids] == expected and segments == [0] * 9
    assert (extracted.n_frames, extracted.duration_s, extracted.flags) == (9, 0.0, ("cut",))


@pytest.mark.parametrize("first", [0, 1, 4, 5, 6, 11, 30])
@pytest.mark.parametrize("second", [0, 1, 5, 6, 12, 30])
@pytest.mark.parametrize("most", [8, 13, 14])
def test_a_pair_is_cut_as_berts_script_cuts_it(tmp_path, first, second, most):
    words = words_of(built(tmp_path))
    a, b = ["apple"] * first, ["pie"] * second
    spec = text_spec(str(tmp_path), most, pair=True)
    ids, segments = arrays(extract([" ".join(a), " ".join(b)], spec, tmp_path))
    while len(a) + len(b) > most - 3:
        (a if len(a) > len(b) else b).pop()
    assert [words[k] for k in ids] == ["[CLS]", *a, "[SEP]", *b, "[SEP]"]
    assert segments == [0] * (len(a) + 2) + [1] * (len(b) + 1)


@pytest.mark.parametrize("text", ["", "   ", "\x00\u200b\n"])
def test_an_empty_text_is_flagged_and_counts_as_filled(tmp_path, text):
    words = words_of(built(tmp_path))
    extracted = extract(text, text_spec(str(tmp_path), 40), tmp_path)
    assert [words[k] for k in arrays(extracted)[0]] == ["[CLS]", "[SEP]"]
    assert extracted.flags == ("empty_text",) and extracted.n_frames == 0


def test_a_pair_with_one_empty_text_is_flagged_and_counts(tmp_path):
    words = words_of(built(tmp_path))
    extracted = extract(["", "apple"], text_spec(str(tmp_path), 40, pair=True), tmp_path)
    ids, segments = arrays(extracted)
    assert [words[k] for k in ids] == ["[CLS]", "[SEP]", "apple", "[SEP]"]
    assert segments == [0, 0, 1, 1]
    assert extracted.flags == ("empty_text",) and extracted.n_frames == 4


def test_special_tokens_inside_of_a_text_are_words(tmp_path):
    words = words_of(built(tmp_path, [*texts(), "[ sep cls pad mask ] " * 5]))
    ids, _ = arrays(extract("pie [SEP] [CLS] [PAD] [MASK]", text_spec(str(tmp_path), 64), tmp_path))
    tokens = [words[k] for k in ids]
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
    assert not set(tokens[1:-1]) & set(SPECIAL) and tokens[2:5] == ["[", "sep", "]"]


def test_a_text_beyond_all_measure_is_cut_and_flagged(tmp_path):
    built(tmp_path)
    spec = text_spec(str(tmp_path), 40)
    assert extract("pie " * (MAX_CHARACTERS // 4), spec, tmp_path).flags == ("cut",)
    assert extract("pie " * 38, spec, tmp_path).flags == ()
    assert extract("pie " * 39, spec, tmp_path).flags == ("cut",)
    assert extract("pie " * (MAX_CHARACTERS // 4) + "x", spec, tmp_path).flags == (
        "cut_text",
        "cut",
    )


def test_a_vocabulary_replaced_under_the_same_name_is_noticed(tmp_path):
    built(tmp_path)
    spec = text_spec(str(tmp_path), 40)
    before = arrays(extract("apple", spec, tmp_path))[0]
    (tmp_path / "vocab.txt").write_text(HEAD + "apple\n")
    after = arrays(extract("apple", spec, tmp_path))[0]
    assert before != after == [2, 4, 3]


def test_a_pair_where_one_text_is_stored_is_a_defect(tmp_path):
    built(tmp_path)
    with pytest.raises(ValueError, match="2 texts"):
        extract(["a", "b"], text_spec(str(tmp_path), 40), tmp_path)


def test_inputs_have_the_length_asked_and_a_mask(tmp_path):
    built(tmp_path)
    for text, length in (("apple pie", 4), ("", 2), ("pie " * 300, 40)):
        spec = text_spec(str(tmp_path), 40)
        extracted = extract(text, spec, tmp_path)
        ids, segments, mask = make_input(extracted.payload, spec, PlainView(), 224, None)
        assert len(ids) == 40 and mask.tolist() == [1] * length + [0] * (40 - length)
        assert ids[length:].sum() == segments.sum() == 0 and (ids[:length] > 0).all()


def test_texts_for_a_built_vocabulary_are_stored_as_they_are_once_clean(tmp_path):
    folder, kind = built(tmp_path), text_spec("build", 40, pair=True, cleaning="release")
    pair = ["RT #niño pies! http://x.y z", "我 a"]
    extracted = extract(pair, kind, tmp_path / "nowhere")
    assert [part.decode() for part in extracted.payload] == ["niño pies! ", "我 a"]
    assert (extracted.flags, extracted.n_frames) == ((), 5)  # words, and marks apart
    own = text_spec(str(folder), 40, True, "release")
    tokens = extract(pair, own, folder).payload
    file = folder / "vocab.txt"
    seen = make_input(extracted.payload, kind, PlainView(), 224, None, False, file)
    assert np.array_equal(seen, make_input(tokens, own, PlainView(), 224, None))
    empty = extract(["\x00", "#"], kind, tmp_path)
    assert (empty.flags, empty.n_frames) == (("empty_text",), 0)
    whole = extract(["x" * (MAX_CHARACTERS + 1), "a"], kind, tmp_path)
    assert whole.flags == ("cut_text",) and len(whole.payload[0]) == MAX_CHARACTERS


# --- the vocabulary of a split --------------------------------------------------------------------


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A prepared manifest of 60 texts; each part of its own split has a word that no other has."""
    folder = tmp_path_factory.mktemp("shelf")
    own = {"train": "plum", "val": "quince", "test": "zebra"}
    with open(folder / "shelf.csv", "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(("id", "label", "split", "text"))
        for k, text in enumerate(texts(60)):
            part = ("train", "train", "val", "test")[k % 4]
            writer.writerow((f"t{k:02d}", "ab"[k // 4 % 2], part, f"{own[part]} {text}"))
    settings = Settings(vocabulary="build", max_tokens=512)
    return Prepared(prepare(str(folder / "shelf.csv"), folder, folder / "data", settings))


def test_a_built_vocabulary_is_that_of_the_train_part_alone(shelf):
    path = shelf.vocabulary("official", 0)
    assert path == shelf.folder / "splits" / "official-seed0.vocab.txt"
    words = path.read_text().split("\n")
    assert "plum" in words and not {"quince", "zebra"} & set(words) and "z" not in words
    train = shelf.split("official", 0)["train"]
    assert path.read_bytes() == build_vocabulary(shelf.texts(train[::-1], "text"), 4000)
    assert not (shelf.folder / "vocab.txt").exists()


def test_each_split_has_a_vocabulary_and_it_is_made_once(shelf):
    first, second = shelf.vocabulary("paper", 0), shelf.vocabulary("paper", 1)
    assert first != second and first.read_bytes() != second.read_bytes()
    before = first.read_bytes(), first.stat().st_mtime_ns
    assert shelf.vocabulary("paper", 0) == first
    assert (first.read_bytes(), first.stat().st_mtime_ns) == before
    first.unlink()
    assert shelf.vocabulary("paper", 0).read_bytes() == before[0]


def test_tokens_of_stored_texts_need_a_vocabulary(shelf):
    with pytest.raises(AssertionError, match="a vocabulary must be given"):
        make_input(shelf.value(0, "text"), shelf.spec["text"], PlainView(), 224, None)


def batches_of(shelf, size, workers=0, indices=None):
    """index -> (its tokens without padding, the width of its batch)."""
    file, positions = shelf.vocabulary("official", 0), shelf.split("official", 0)["train"]
    views, device = {"text": PlainView()}, torch.device("cpu")
    loader = Loader(shelf, positions, views, 224, size, 0, workers, device, vocabulary=file)
    found = {}
    for batch in loader.batches(indices):
        for index, row in zip(batch["index"].tolist(), batch["inputs"]["text"]):
            found[index] = (row[:, : int(row[2].sum())].tolist(), row.shape[1])
    return found


def test_batches_are_as_wide_as_their_longest_text(shelf):
    alone = batches_of(shelf, 1)
    assert all(width == len(tokens[0]) for tokens, width in alone.values())
    for workers in (0, 2):
        together = batches_of(shelf, 8, workers)
        for k in range(0, 30, 8):
            batch = [together[j] for j in range(k, min(k + 8, 30))]
            assert {width for _, width in batch} == {max(len(t[0]) for t, _ in batch)}
        assert {k: tokens for k, (tokens, _) in together.items()} == {
            k: tokens for k, (tokens, _) in alone.items()
        }
    turned = batches_of(shelf, 8, indices=range(29, -1, -1))
    assert {k: t for k, (t, _) in turned.items()} == {k: t for k, (t, _) in alone.items()}


def test_nothing_but_padding_is_cut():
    x = np.zeros((2, 3, 9), np.int32)
    x[0, 2, :4], x[1, 2, :6], x[1, 0, 5] = 1, 1, 0  # a token's own id may be 0
    assert without_padding(x, Text()).shape == (2, 3, 6)
    assert without_padding(np.zeros((2, 3, 9), np.int32), Text()).shape == (2, 3, 1)
    vectors = np.zeros((2, 9, 5), np.float32)
    vectors[1, 6, 2] = 1
    assert without_padding(vectors, Array()).shape == (2, 7, 5)
    assert without_padding(vectors, Image()) is vectors


# --- the encoder ----------------------------------------------------------------------------------


def token_batch(count=6, length=12, words=50, seed=0):
    """int32 [count, 3, length]: texts of 3 tokens to all, padded with zeros."""
    draw = np.random.default_rng(seed)
    x = np.zeros((count, 3, length), np.int32)
    for row, used in zip(x, np.linspace(3, length, count).astype(int)):
        row[0, :used], row[2, :used] = draw.integers(5, words, used), 1
    return torch.from_numpy(x)


def other_body(folder):
    """The body that a folder of transformers gives, with pretrained weights: ELECTRA, small."""
    import transformers

    config = transformers.ElectraConfig(
        vocab_size=50, hidden_size=8, embedding_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=16,
    )  # fmt: skip
    transformers.ElectraModel(config).save_pretrained(folder)
    return text_body(str(folder), True, 50, 12)


def hidden_states(encoder, x):
    ids, segments, mask = x.long().unbind(1)
    out = encoder.body(input_ids=ids, token_type_ids=segments, attention_mask=mask)
    return out.last_hidden_state


@torch.no_grad()
def test_a_pretrained_body_is_read_at_its_first_token(tmp_path):
    encoder, x = TextEncoder(other_body(tmp_path)).eval(), token_batch()
    assert torch.equal(encoder(x), hidden_states(encoder, x)[:, 0])


@torch.no_grad()
@pytest.mark.parametrize("readout", ["first", "largest"])
def test_features_depend_neither_on_padding_nor_on_the_batch(readout):
    """Of a batch padded to 512, of one cut to its longest text, and of each text alone."""
    import transformers

    torch.manual_seed(0)
    config = transformers.ElectraConfig(**{**TINY, "readout": readout}, vocab_size=50)
    encoder, x = TextEncoder(transformers.ElectraModel(config)).eval(), token_batch(length=40)
    wide = torch.nn.functional.pad(x, (0, 512 - x.shape[2]))
    assert np.array_equal(without_padding(wide.numpy(), Text()), x)
    features = encoder(x)
    assert (encoder(wide) - features).abs().max() < 1e-6
    head = torch.nn.Linear(64, 101)
    for row, feature in zip(x, features):
        alone = torch.from_numpy(without_padding(row[None].numpy(), Text()))
        assert alone.shape[2] == row[2].sum()
        assert (head(encoder(alone)) - head(feature)).abs().max() < 1e-5


@torch.no_grad()
def test_tiny_is_read_at_the_largest_value_of_its_tokens():
    encoder, x = TextEncoder(text_body("tiny", False, 50, 12)).eval(), token_batch()
    hidden, out = hidden_states(encoder, x), encoder(x)
    for row, states, used in zip(out, hidden, x[:, 2].sum(1)):
        assert torch.equal(row, states[:used].max(0).values)
    padded = x.clone()
    padded[:, 0][x[:, 2] == 0] = 7  # what stands in the padding
    assert torch.equal(encoder(padded), out)


def sgd_accuracy(largest, steps=120):
    """Of texts of 12 tokens, one of which tells the class, after training as the recipes do."""
    torch.manual_seed(0)
    encoder, head = TextEncoder(text_body("tiny", False, 50, 12)), torch.nn.Linear(64, 2)
    encoder.largest = largest
    weights = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(weights, lr=1e-2, momentum=0.9, weight_decay=1e-4)
    hits = []
    for _ in range(steps):
        x = torch.zeros(32, 3, 12, dtype=torch.int32)
        x[:, 0] = torch.randint(10, 50, (32, 12))
        x[:, 0, 0], x[:, 2] = 2, 1
        label = torch.arange(32) % 2
        x[torch.arange(32), 0, torch.randint(1, 12, (32,))] = (5 + label).int()
        z = head(encoder(x))
        loss = torch.nn.functional.cross_entropy(z, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        hits.append((z.argmax(1) == label).float().mean().item())
    return float(np.mean(hits[-20:]))


def test_tiny_learns_a_word_by_sgd_and_its_first_token_alone_does_not():
    assert sgd_accuracy(True) > 0.95
    assert sgd_accuracy(False) < 0.6
