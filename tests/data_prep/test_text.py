"""Texts: cleaning, vocabularies, the tokens of a sample, and the encoder that reads them."""

import csv
import hashlib
import json
import os
import random
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from clips import extract
from conftest import ROOT, program
from official import cases
from raw import plant

from common.options import UsageError
from data_prep.datasets.manifest import Settings
from data_prep.datasets.sarcasm import well_formed
from data_prep.loader import Loader
from data_prep.modalities.array import Array
from data_prep.modalities.base import Draw
from data_prep.modalities.text import MAX_CHARACTERS, Text, clean, read_text, text_spec
from data_prep.modalities.vocabulary import SPECIAL, build_vocabulary, place_vocabulary
from data_prep.prepare import prepare
from data_prep.reasons import Reject
from data_prep.store import Prepared
from models.sequences import TextEncoder
from models.weights import TINY, text_body

WORDS = (
    "Apple pie café recipe Über the best pies baking bakers 12 minutes , . ' # niño 我 😀".split()
)


def texts(count=300, seed=0):
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 12))) for _ in range(count)]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder with a vocabulary, like a prepared one."""
    folder = tmp_path_factory.mktemp("shelf")
    more = "[ sep cls pad mask ] " * 5
    (folder / "vocab.txt").write_bytes(build_vocabulary([*texts(), more], 4000))
    return folder


def words_of(folder):
    return (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]


def stored(text, spec, folder):
    """(ids, segments) of a text or a pair, and the other extracted values."""
    found = extract(spec, inline=text, folder=folder)
    ids, segments = found.payload
    return np.frombuffer(ids, np.uint16).tolist(), list(segments), found


@pytest.mark.parametrize("raw,cleaned", [
    ("Mac &amp; Cheese &#39;n&#x27; more", "Mac & Cheese 'n' more"),
    ("  two\t words \n\u00a0here\u2003", "two words here"),
    ("see https://a.b/c?d=1 and http://x then", "see and then"),
    ("ﬁne ① Ｗide", "fine 1 Wide"), ("a\x00b\u200bc\x1bd\ufeffe", "abcde"),
    ("RT # tag stays", "RT # tag stays"), ("", ""), ("\x07", ""), ("https://only.url", ""),
])  # fmt: skip
def test_plain_cleaning(raw, cleaned):
    assert clean(raw, "plain") == cleaned == clean(cleaned, "plain")
    assert clean(raw, "") == raw


@cases("text")
def test_the_releases_texts(variant, given, expect):
    """Its cleaning, and its tokens if ELECTRA_FOLDER has ELECTRA's own vocab.txt."""
    *raw, long = given["texts"]
    assert long == "'word ' 600 times"
    raw, rows = [*raw, "word " * 600], expect["rows"]
    for text, row in zip(raw, rows, strict=True):
        assert clean(text, "release") == (text if row["cleaned"] == "the same" else row["cleaned"])
    beside = ROOT.parent / "shared" / "real" / "electra"
    folder = Path(os.environ.get("ELECTRA_FOLDER", beside))
    if not (folder / "vocab.txt").is_file():
        pytest.skip("ELECTRA's vocab.txt, which is not ours to hand on, is not here")
    spec = text_spec(str(folder), 512, cleaning="release")
    assert spec.words == 30522
    for text, row in zip(raw, rows, strict=True):
        payload = extract(spec, inline=text, folder=folder).payload
        ids, segments, mask = spec.to_input(payload, Draw()).tolist()
        length, first, last = row["length"], row.get("first_ids", []), row.get("last_ids", [])
        assert len(ids) == row["total"] and mask == [1] * length + [0] * (512 - length)
        assert ids[: len(first)] == first and ids[len(ids) - len(last) :] == last
        assert "ids" not in row or ids == row["ids"] + [0] * (512 - length)
        assert not any(segments)


def test_well_formed_joins_pairs_and_replaces_lone_surrogates():
    assert well_formed("a\ud83d\ude00b café") == "a😀b café"
    assert well_formed("a\ud800b\udfffc") == "a\ufffdb\ufffdc"


def test_spec_of_each_setting(shelf, tmp_path):
    assert text_spec("electra", 40) == Text("electra", 30522, 40, False)
    assert text_spec("build", 64, pair=True) == Text("build", 4000, 64, True)
    content, spec = (shelf / "vocab.txt").read_bytes(), text_spec(str(shelf), 40)
    digits = hashlib.sha256(content).hexdigest()[:12]
    assert spec == Text(digits, content.count(b"\n"), 40)
    (tmp_path / "vocab.txt").write_bytes(content.replace(b"\n", b"\r\n").rstrip())
    assert text_spec(str(tmp_path), 40) == spec


HEAD = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n"


@pytest.mark.parametrize("content,words", [
    (None, "electra, build, or a folder"), (b"", "no line [PAD]"),
    (b"<html>not found</html>", "no line [PAD]"),
    (HEAD.replace("[SEP]\n", "").encode(), "no line [SEP]"),
    (b"a\n" + HEAD.encode(), "first line 'a'"), (HEAD.encode() + b"a\nb\na\n", "twice"),
    (HEAD.encode() + b"\xff\n", "not UTF-8"),
    (HEAD.encode() + b"".join(b"w%d\n" % k for k in range(1 << 16)), "more than 65536 lines"),
    (HEAD.encode() + b"w" * (9 << 20), "more than 65536 lines"),
])  # fmt: skip
def test_invalid_vocabularies_are_refused(tmp_path, content, words):
    if content is not None:
        (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(UsageError) as error:
        text_spec(str(tmp_path), 40)
    assert words in str(error.value) and str(tmp_path / "vocab.txt") in str(error.value)


def test_a_built_vocabulary_is_the_same_in_any_order_and_in_other_processes():
    first, shuffled = build_vocabulary(texts(), 120), texts()
    random.Random(5).shuffle(shuffled)
    code = (
        "import json, sys; from data_prep.modalities.vocabulary import build_vocabulary as build;"
        "print(build(json.loads(sys.argv[1]), 120).decode(), end='')"
    )
    done = program("-c", code, json.dumps(shuffled), PYTHONHASHSEED="1", PYTHONUTF8="1")
    assert done.stdout.encode() == first, done.stderr


@pytest.mark.parametrize("most", [20, 60, 4000])
def test_what_a_built_vocabulary_contains(most):
    lines = build_vocabulary(texts(), most).decode().split("\n")[:-1]
    assert tuple(lines[:5]) == SPECIAL and len(lines) == len(set(lines)) <= most
    assert "A" not in "".join(lines[5:]) and "é" not in "".join(lines)  # uncased, accents folded
    if most == 4000:
        assert {"apple", "recipe", "uber", "baking", "我", "😀", "#", "##a"} <= set(lines)
    assert "##我" not in lines
    assert build_vocabulary([], most).decode().split("\n")[:-1] == list(SPECIAL)


def test_a_folders_vocabulary_is_copied_and_another_is_refused(shelf, tmp_path):
    source, target = tmp_path / "vocab.txt", tmp_path / "target" / "vocab.txt"
    source.write_bytes((shelf / "vocab.txt").read_bytes())
    for _ in range(2):
        place_vocabulary(target, str(tmp_path))
        assert target.read_bytes() == source.read_bytes()
    source.write_bytes(source.read_bytes() + b"more\n")
    with pytest.raises(UsageError, match="differs from the vocabulary"):
        place_vocabulary(target, str(tmp_path))


@pytest.mark.parametrize("lines,words", [
    (30522, []), (30000, ["30000 lines, not 30522"]),
    (0, ["google/electra-base-discriminator", "google/electra-small-discriminator", "vocab.txt",
         "--vocabulary <folder>", "--vocabulary build", "hf download"]),
])  # fmt: skip
def test_electras_vocabulary_comes_from_the_cache(tmp_path, monkeypatch, lines, words):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "models--google--electra-base-discriminator"
    if lines:
        content = HEAD + "".join(f"w{k}\n" for k in range(lines - 4))
        plant(place, lists={"refs/main": "0123", "snapshots/0123/vocab.txt": content})
    target = tmp_path / "vocab.txt"
    if not words:
        place_vocabulary(target, "electra")
        assert target.read_text() == content
        return
    with pytest.raises(UsageError) as error:
        place_vocabulary(target, "electra")
    assert all(word in str(error.value) for word in words) and not target.exists()


HARD = "Don't stop-it!|naïve ÉCLAIR|我们 a我b|tabs\tand\nlines|😀😀|##a [x]".split("|") + [
    "x" * 150
]


def test_tokens_are_those_of_the_libraries_own_bert_tokenizer(shelf):
    other = tokenizers.BertWordPieceTokenizer(str(shelf / "vocab.txt"), lowercase=True)
    single, pair = text_spec(str(shelf), 512), text_spec(str(shelf), 512, pair=True)
    for a, b in zip([*HARD, *texts(50)], [*texts(50, seed=1), *HARD]):
        assert stored(a, single, shelf)[0] == other.encode(a).ids
        both = other.encode(a, b)
        assert stored([a, b], pair, shelf)[:2] == (both.ids, both.type_ids)


@pytest.mark.parametrize("first", [0, 1, 5, 6, 11, 30])
@pytest.mark.parametrize("most", [8, 13, 14])
def test_a_pair_is_cut_as_in_berts_script(shelf, first, most):
    words, spec = words_of(shelf), text_spec(str(shelf), most, pair=True)
    for second in (0, 1, 5, 6, 12, 30):
        a, b = ["apple"] * first, ["pie"] * second
        ids, segments, found = stored([" ".join(a), " ".join(b)], spec, shelf)
        while len(a) + len(b) > most - 3:
            (a if len(a) > len(b) else b).pop()
        assert [words[k] for k in ids] == ["[CLS]", *a, "[SEP]", *b, "[SEP]"]
        assert segments == [0] * (len(a) + 2) + [1] * (len(b) + 1)
        empty = ("empty_text",) * (not first or not second)
        assert found.flags == empty + ("cut",) * (first + second > most - 3)


@pytest.mark.parametrize("text,tokens,flags", [
    ("apple " * 5 + "pie " * 50, ["apple"] * 5 + ["pie"] * 33, ("cut",)),
    ("pie " * 38, ["pie"] * 38, ()), ("pie " * 39, ["pie"] * 38, ("cut",)),
    ("pie " * (MAX_CHARACTERS // 4) + "x", ["pie"] * 38, ("cut_text", "cut")),
    ("", [], ("empty_text",)), ("   ", [], ("empty_text",)), ("\x00\u200b\n", [], ("empty_text",)),
    ("pie [SEP] [CLS]", "pie [ sep ] [ cls ]".split(), ()),  # words, and no marks
])  # fmt: skip
def test_tokens_and_flags_of_a_text(shelf, text, tokens, flags):
    words, spec = words_of(shelf), text_spec(str(shelf), 40)
    ids, segments, found = stored(text, spec, shelf)
    assert [words[k] for k in ids] == ["[CLS]", *tokens, "[SEP]"] and not any(segments)
    assert (found.flags, found.duration_s) == (flags, 0.0)
    assert found.n_frames == (len(ids) if tokens else 0) and found.found == bool(tokens)
    seen, used = spec.to_input(found.payload, Draw()), len(ids)
    assert seen[0].tolist() == ids + [0] * (40 - used)
    assert seen[2].tolist() == [1] * used + [0] * (40 - used) and not seen[1].any()


@pytest.mark.parametrize(("data", "legacy", "text", "flags"), [
    ("\ufeffCafé 我".encode(), "gb18030", "Café 我", ()),
    ("Café 我".encode("gb18030"), "gb18030", "Café 我", ("encoding=gb18030",)),
    ("Café 我".encode("gb18030"), None, "Caf\xa8\xa6 \xce\xd2", ("encoding=latin-1",)),
    ("Café ".encode("latin-1"), "gb18030", "Café ", ("encoding=latin-1",)), (b"", None, "", ()),
])  # fmt: skip
def test_a_text_file_is_utf8_or_its_older_encoding_or_latin1(tmp_path, data, legacy, text, flags):
    (tmp_path / "a.txt").write_bytes(data)
    assert read_text(tmp_path / "a.txt", legacy) == (text, flags)


@pytest.mark.parametrize(("encoding", "letter"), [("utf-8", "é"), ("gb18030", "我")])
def test_an_endless_text_file_is_cut_between_characters(tmp_path, encoding, letter):
    (tmp_path / "a.txt").write_bytes(f"a{letter * 2 * MAX_CHARACTERS}".encode(encoding) * 2)
    text, flags = read_text(tmp_path / "a.txt", "gb18030")
    assert set(text) == {"a", letter} and MAX_CHARACTERS < len(text) < 5 * MAX_CHARACTERS
    assert flags == ("encoding=gb18030",) * (encoding != "utf-8")


def test_a_text_file_that_cannot_be_read_is_rejected(tmp_path):
    for name, reason in (("gone.txt", "missing_file"), (".", "unreadable")):
        with pytest.raises(Reject) as reject:
            read_text(tmp_path / name, None)
        assert reject.value.reason == reason


def test_a_vocabulary_replaced_under_the_same_name_is_noticed(shelf, tmp_path):
    (tmp_path / "vocab.txt").write_bytes((shelf / "vocab.txt").read_bytes())
    spec = text_spec(str(tmp_path), 40)
    before = stored("apple", spec, tmp_path)[0]
    (tmp_path / "vocab.txt").write_text(HEAD + "apple\n")
    assert before != stored("apple", spec, tmp_path)[0] == [2, 4, 3]


def test_texts_for_a_built_vocabulary_are_stored_as_cleaned_text(shelf, tmp_path):
    spec, own = (text_spec(v, 40, True, "release") for v in ("build", str(shelf)))
    pair = ["RT #niño pies! http://x.y z", "我 a"]
    found = extract(spec, inline=pair)
    assert [part.decode() for part in found.payload] == ["niño pies! ", "我 a"]
    assert (found.flags, found.n_frames) == ((), 5)  # words, and marks apart
    seen = spec.to_input(found.payload, Draw(vocabulary=shelf / "vocab.txt"))
    tokens = extract(own, inline=pair, folder=shelf).payload
    assert np.array_equal(seen, own.to_input(tokens, Draw()))


# --- the vocabulary of a split --------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A prepared manifest of 60 texts; each part of its split has a word that no other part has."""
    folder = tmp_path_factory.mktemp("own")
    own = {"train": "plum", "val": "quince", "test": "zebra"}
    with open(folder / "own.csv", "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(("id", "label", "split", "text"))
        for k, text in enumerate(texts(60)):
            part = ("train", "train", "val", "test")[k % 4]
            writer.writerow((f"t{k:02d}", "ab"[k // 4 % 2], part, f"{own[part]} {text}"))
    settings = Settings(vocabulary="build", max_tokens=512)
    return Prepared(prepare(str(folder / "own.csv"), folder, folder / "data", settings))


def test_a_built_vocabulary_uses_only_the_train_part_and_is_made_once(prepared):
    path = prepared.vocabulary("official", 0)
    assert path == prepared.folder / "splits" / "official-seed0.vocab.txt"
    words = path.read_text().split("\n")
    assert "plum" in words and not {"quince", "zebra"} & set(words) and "z" not in words
    train = prepared.split("official", 0)["train"]
    assert path.read_bytes() == build_vocabulary(prepared.texts(train[::-1], "text"), 4000)
    assert not (prepared.folder / "vocab.txt").exists()
    first, second = prepared.vocabulary("paper", 0), prepared.vocabulary("paper", 1)
    before = first.read_bytes(), first.stat().st_mtime_ns
    assert first != second and before[0] != second.read_bytes()
    assert prepared.vocabulary("paper", 0) == first
    assert (first.read_bytes(), first.stat().st_mtime_ns) == before
    first.unlink()
    assert prepared.vocabulary("paper", 0).read_bytes() == before[0]


def test_batches_are_as_wide_as_their_longest_text(prepared):
    file, train = prepared.vocabulary("official", 0), prepared.split("official", 0)["train"]

    def batches(size, workers):
        how = prepared.spec, 224, size, 0, workers, torch.device("cpu")
        loader = Loader(prepared, train, *how, vocabulary=file)
        return [batch["inputs"]["text"] for batch in loader.batches()]

    alone = [x[0] for x in batches(1, 0)]
    assert all(x[2].all() for x in alone)
    for workers in (0, 2):
        together = batches(8, workers)
        assert [len(x) for x in together] == [8, 8, 8, 6]
        for k, row in enumerate(row for x in together for row in x):
            used = alone[k].shape[1]
            assert torch.equal(row[:, :used], alone[k]) and not row[2, used:].any()
        longest = [max(x.shape[1] for x in alone[k : k + 8]) for k in range(0, 30, 8)]
        assert [x.shape[2] for x in together] == longest


def test_only_padding_is_trimmed():
    x, vectors = np.zeros((2, 3, 9), np.int32), np.zeros((2, 9, 5), np.float32)
    assert Text().trim(x).shape == (2, 3, 1)
    x[0, 2, :4], x[1, 2, :6], vectors[1, 6, 2] = 1, 1, 1  # a token's own id may be 0
    assert Text().trim(x).shape == (2, 3, 6) and Array().trim(vectors).shape == (2, 7, 5)


# --- the encoder ----------------------------------------------------------------------------------


def body_of(readout, folder):
    """The tiny model, or one from a folder of pretrained weights, which reads the first token."""
    if readout == "largest":
        return text_body("tiny", False, 50, 512)
    config = transformers.ElectraConfig(**TINY | {"readout": "first"}, vocab_size=50)
    transformers.ElectraModel(config).save_pretrained(folder)
    return text_body(str(folder), True, 50, 512)


@torch.no_grad()
@pytest.mark.parametrize("readout", ["first", "largest"])
def test_features_are_those_of_the_readout_and_independent_of_padding(readout, tmp_path):
    encoder, draw = TextEncoder(body_of(readout, tmp_path)).eval(), np.random.default_rng(0)
    x = torch.zeros(6, 3, 40, dtype=torch.int32)
    for row, used in zip(x, np.linspace(3, 40, 6).astype(int)):
        row[0, :used], row[2, :used] = torch.from_numpy(draw.integers(5, 50, used)), 1
    features = encoder(x)
    x[:, 0][x[:, 2] == 0] = 7  # content of the padding
    assert (encoder(x) - features).abs().max() < 1e-6
    for row, feature in zip(x, features):
        alone = torch.from_numpy(Text().trim(row[None].numpy()))
        ids, segments, mask = alone.long().unbind(1)
        out = encoder.body(input_ids=ids, token_type_ids=segments, attention_mask=mask)
        states = out.last_hidden_state[0]
        wanted = states[0] if readout == "first" else states.max(0).values
        assert mask.all() and torch.equal(encoder(alone)[0], wanted)
        assert (wanted - feature).abs().max() < 1e-5
