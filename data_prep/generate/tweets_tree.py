"""Raw trees of the two sets of tweets with pictures in miniature, in the layouts of the real ones.

Names and lists are those of the real sets, hostile ones included; the content comes from `tweets`.
Beside the root stands the truth as in `trees`: m1 is the picture, m2 the text, and a cue is there
or left out, never replaced by another class's.
"""

import functools
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.files import write_table, write_text
from common.options import unknown
from data_prep.generate import corrupt
from data_prep.generate.media import run_jobs, whole_folder
from data_prep.generate.pictures import FORMS
from data_prep.generate.trees import PART_CYCLE, TRUTH
from data_prep.generate.tweets import (
    FEELINGS,
    MARKERS,
    SENTIMENTS,
    TARGETS,
    TWEET_LOOK,
    Tweet,
    TweetLook,
    damaged_text,
    noise,
    sentence,
    write_picture,
)
from data_prep.layouts import sarcasm, twitter2015

# What damage becomes of, in the terms of `corrupt.EXPECTED`.
LINE_DAMAGE = {
    "bad_line": "bad_line",
    "long_line": "bad_line",
    "bad_label": "no_label",
    "empty_text": "flag:empty_text",
    "long_text": "",
}
FILE_DAMAGE = {
    "file_without_row": "no_label",
    "unknown_name": "unknown_name",
    "not_utf8": "unknown_name",
    "second_picture": "second_file",  # the same name in another folder
}
EXPECTED = {
    "sarcasm": {
        "zero_byte": "unreadable",
        "html": "unreadable",
        "cut_jpg": "bad_image",
        "bomb_png": "bad_image",
        "lfs_pointer": "lfs_pointer",
        "pipe": "unreadable",
        **dict.fromkeys(("row_without_file", "folder", "broken_link"), "missing_file"),
        "duplicate": "duplicate",
        "filtered": "filtered",
        **dict.fromkeys(FORMS, ""),
        **LINE_DAMAGE,
        **FILE_DAMAGE,
    },
    "twitter2015": {
        # A grey picture stands in for it.
        **dict.fromkeys(("zero_byte", "html", "cut_jpg", "bomb_png"), "flag:missing_image"),
        **dict.fromkeys(("row_without_file", "folder", "broken_link"), "flag:missing_image"),
        "lfs_pointer": "lfs_pointer",
        "pipe": "unreadable",
        **dict.fromkeys(FORMS, ""),
        **LINE_DAMAGE,
        **FILE_DAMAGE,
    },
}

LISTS = ("both", "tsv", "txt")  # which of Twitter2015's forms are written
# Part -> its list, for Twitter2015 without the ending.
SARCASM_LISTS = {"train": "train.txt", "val": "valid2.txt", "test": "test2.txt"}
TWITTER_LISTS = {"train": "train", "val": "dev", "test": "test"}


def _plan(labels: Sequence[str], per_class: int, kinds: list[str]) -> list[tuple[int, str]]:
    """(label, damage) of each tweet: the sound ones by turns of the classes, then the others."""
    plan = [(label, "") for _ in range(per_class) for label in range(len(labels))]
    return plan + [(k % len(labels), kind) for k, kind in enumerate(kinds)]


def _write_pictures(
    folder: Path, tweets: list[Tweet], look: TweetLook, seed: int, workers: int | None, what: str
) -> None:
    """One picture a file name, a second one of some in another folder, hidden files beside."""
    folder.mkdir(parents=True)
    corrupt.write_hidden(folder, (".DS_Store", "._1.jpg", "Thumbs.db", "__MACOSX/._1.jpg"))
    there = [t for t in tweets if t.file and t.kind != "row_without_file"]
    first = {tweet.file: tweet for tweet in reversed(there)}
    work = functools.partial(write_picture, folder, look, seed)
    run_jobs(work, [first[name] for name in sorted(first)], workers, f"write {what} fixture")
    for tweet in there:
        if tweet.kind == "second_picture":
            (folder / "more").mkdir(exist_ok=True)
            shutil.copy(folder / tweet.file, folder / "more")


def _truth(tweets: list[Tweet], dataset: str, labels: Sequence[str]) -> list[tuple]:
    expected = EXPECTED[dataset] | {"": ""}
    return sorted(
        (t.id, labels[t.label], int(t.glyph is not None), int(t.text_cue), t.kind, expected[t.kind])
        for t in tweets
    )


# --- Sarcasm --------------------------------------------------------------------------------------


def write_sarcasm(
    root: Path,
    per_class: int,
    *,
    truth_path: Path,
    seed: int = 0,
    look: TweetLook = TWEET_LOOK,
    corrupt_each: int = 0,
    workers: int | None = None,
) -> None:
    """text/*.txt and dataset_image/<id>.jpg: `per_class` sound tweets of each class, and
    `corrupt_each` more of each kind of damage. Raises `UsageError` when `root` is in use.

    With q_t, q_i the shares of erased cues and r of `look.interaction`, the best accuracies are
    1/2 from pictures, 1/2 + (1 - r)(1 - q_t)/2 from texts, and r(1 - q_t)(1 - q_i)/2 more from
    both.
    """
    kinds = [kind for kind in EXPECTED["sarcasm"] for _ in range(corrupt_each)]
    rng = np.random.default_rng([seed, 0])
    tweets, seen = [], set()
    for k, (label, kind) in enumerate(_plan(sarcasm.LABELS, per_class, kinds)):
        while (name := str(rng.integers(600_000_000_000_000_000, 940_000_000_000_000_000))) in seen:
            pass
        seen.add(name)
        tweet = _sarcasm_tweet(k, name, label, kind, look, seed)
        if kind in ("duplicate", "second_picture"):
            tweets.append(replace(tweet, kind=""))
        tweets.append(tweet)
    with whole_folder(root, truth_path) as folder:
        _write_pictures(folder / sarcasm.IMAGES, tweets, look, seed, workers, "sarcasm")
        # What the authors' repository holds beside the lists, under names that look like theirs.
        write_text(folder / "train.txt", "682716753374351360 a text of another form\n")
        write_text(folder / "text" / "Readme.MD", "The last element is the label.\n")
        tweets = _write_sarcasm_lists(folder / "text", tweets)
        write_table(truth_path, TRUTH, _truth(tweets, "sarcasm", sarcasm.LABELS))


def _sarcasm_tweet(k: int, name: str, label: int, kind: str, look: TweetLook, seed: int) -> Tweet:
    """A tweet whose text tells its class, or whose feeling and picture agree (0) or clash (1)."""
    rng = np.random.default_rng([seed, k])
    together, feeling = rng.random() < look.interaction, int(rng.integers(2))
    word = str(rng.choice(FEELINGS[feeling] if together else MARKERS[label]))
    has_word, has_glyph = rng.random() >= look.text_erased, rng.random() >= look.image_erased
    text = damaged_text(kind, sentence(word if has_word else "", rng), rng)
    # A disc for a good feeling, a cross for a bad one.
    glyph = 2 * (1 - (feeling ^ label)) if together and has_glyph else None
    file = f"my photo {k}.jpg" if kind == "unknown_name" else f"{name}.jpg"
    name = corrupt.told_stem(kind, Path(file).stem)
    part = PART_CYCLE[k // 2 % len(PART_CYCLE)]
    has_word = bool(has_word) and kind != "empty_text"
    return Tweet(name, label, part, text, file, glyph, has_word, k, kind=kind)


def _write_sarcasm_lists(folder: Path, tweets: list[Tweet]) -> list[Tweet]:
    """The three lists; returns the tweets with the ids under which they are to be found."""
    named = []
    for part, name in SARCASM_LISTS.items():
        lines = []
        for tweet in tweets:
            if tweet.part == part and tweet.kind not in FILE_DAMAGE:
                lines.append(_sarcasm_line(tweet))
                if LINE_DAMAGE.get(tweet.kind) == "bad_line":
                    tweet = replace(tweet, id=f"{part}-{len(lines):05d}")
            if tweet.part == part:
                named.append(tweet)
        mark, end = ("\ufeff", "\r\n") if part == "val" else ("", "\n")
        write_text(folder / name, mark + end.join([*lines, ""]))
    return named


def _sarcasm_line(tweet: Tweet) -> str:
    if tweet.kind == "bad_line":  # code, which a reader that evaluates lines would run
        return f"['{tweet.id}', __import__('os').getcwd(), {tweet.label}]"
    label = 7 if tweet.kind == "bad_label" else tweet.label
    hashtag = [] if tweet.part == "train" else [(tweet.label + (tweet.stream % 3 == 0)) % 2]
    return repr([tweet.id, tweet.text, *hashtag, label])


# --- Twitter2015 ----------------------------------------------------------------------------------


def write_twitter2015(
    root: Path,
    per_class: int,
    *,
    truth_path: Path,
    lists: str = "both",
    seed: int = 0,
    look: TweetLook = TWEET_LOOK,
    corrupt_each: int = 0,
    workers: int | None = None,
) -> None:
    """absa_data/twitter2015/{train,dev,test}.{tsv,txt} and twitter2015_images/<image>.

    `per_class` sound samples of each class, a quarter of them in tweets with two targets of
    different classes, and `corrupt_each` more of each kind of damage. `lists`: "tsv", "txt" or
    "both". Raises `UsageError` when `root` is in use.
    """
    if lists not in LISTS:
        raise unknown("lists", lists, LISTS)
    kinds = [kind for kind in EXPECTED["twitter2015"] for _ in range(corrupt_each)]
    if lists == "txt":  # a line too few would be read as all others out of step
        kinds = [kind for kind in kinds if kind != "bad_line"]
    tweets = _twitter_tweets(per_class, kinds, look, seed)
    with whole_folder(root, truth_path) as folder:
        images = folder / twitter2015.IMAGES
        _write_pictures(images, tweets, look, seed, workers, "Twitter2015")
        tweets = _write_twitter_lists(folder / twitter2015.FOLDERS[0], tweets, lists)
        write_table(truth_path, TRUTH, _truth(tweets, "twitter2015", twitter2015.LABELS))


def _twitter_tweets(per_class: int, kinds: list[str], look: TweetLook, seed: int) -> list[Tweet]:
    """Every fourth sample of a class shares its tweet with one of another class."""
    classes = len(twitter2015.LABELS)
    plan = _plan(twitter2015.LABELS, per_class, kinds)
    shared = [k for k in range(per_class * classes) if k // classes % 4 == 3]
    pairs = dict(zip(shared[0::2], shared[1::2]))
    rng = np.random.default_rng([seed, 0])
    numbers = rng.permutation(2_100_000)[: len(plan)]
    tweets = []
    for k, (label, kind) in enumerate(plan):
        if k in pairs.values():
            continue
        name = f"{'-' if k % 7 == 0 else ''}{numbers[k]}.jpg"
        if k in pairs:
            tweets += _two_targets(k, (label, plan[pairs[k]][0]), name, look, seed)
        else:
            tweet = _one_target(k, label, kind, name, look, seed)
            if kind == "second_picture":
                tweets.append(replace(tweet, id="", kind=""))
            tweets.append(tweet)
    return tweets


def _one_target(k: int, label: int, kind: str, file: str, look: TweetLook, seed: int) -> Tweet:
    """A tweet about one target, which the picture's glyph agrees with."""
    rng = np.random.default_rng([seed, k])
    has_word, has_glyph = rng.random() >= look.text_erased, rng.random() >= look.image_erased
    word = f" {rng.choice(SENTIMENTS[label])}" if has_word else ""
    text = f"RT @ user{k} : {noise(3, rng)} $T${word} {sentence('', rng)}"
    text = damaged_text(kind, text, rng)
    glyph, part = label if has_glyph else None, PART_CYCLE[k // 3 % len(PART_CYCLE)]
    has_word = bool(has_word) and kind != "empty_text"
    target = str(rng.choice(TARGETS))
    if kind == "unknown_name":
        file = f"my photo {k}.jpg"
    # A picture without a sample is known by its name alone.
    name = {
        "unknown_name": Path(file).stem,
        "not_utf8": corrupt.told_stem(kind, Path(file).stem),
        **dict.fromkeys(("file_without_row", "second_picture"), file),
    }.get(kind, "")
    return Tweet(name, label, part, text, file, glyph, has_word, k, target, kind)


def _two_targets(
    k: int, labels: tuple[int, int], file: str, look: TweetLook, seed: int
) -> list[Tweet]:
    """Two samples of one tweet, which only the place of $T$ and the target tell apart."""
    rng = np.random.default_rng([seed, k])
    part = PART_CYCLE[k // 3 % len(PART_CYCLE)]
    cues = [bool(rng.random() >= look.text_erased) for _ in labels]
    said = [
        f"{rng.choice(SENTIMENTS[label]) if cue else 'again'} {noise(2, rng)}"
        for label, cue in zip(labels, cues)
    ]
    names = [str(name) for name in rng.choice(TARGETS, 2, replace=False)]
    texts = [f"$T$ {said[0]} ; {names[1]} {said[1]}", f"{names[0]} {said[0]} ; $T$ {said[1]}"]
    return [
        Tweet("", label, part, text, file, None, cue, k, target)
        for label, text, cue, target in zip(labels, texts, cues, names)
    ]


def _write_twitter_lists(folder: Path, tweets: list[Tweet], lists: str) -> list[Tweet]:
    """The lists in the forms asked for; returns the tweets with their ids."""
    named = [tweet for tweet in tweets if tweet.kind in FILE_DAMAGE]
    for part, name in TWITTER_LISTS.items():
        rows = [t for t in tweets if t.part == part and t.kind not in FILE_DAMAGE]
        named += [replace(t, id=f"{name}-{k:05d}") for k, t in enumerate(rows, 1)]
        header = "index\t#1 Label\t#2 ImageID\t#3 String\t#3 String"
        if part == "test":  # as in the real file
            header = "index\t#1 ImageID\t#2 String\t#2 String"
        lines = [header]
        for k, tweet in enumerate(rows, 1):
            label = 7 if tweet.kind == "bad_label" else tweet.label
            cells = [str(k), str(label), tweet.file, tweet.text, tweet.target]
            lines.append("\t".join(cells[:4] if tweet.kind == "bad_line" else cells))
        if lists != "txt":
            write_text(folder / f"{name}.tsv", "\n".join([*lines, ""]))
        lines = []
        for tweet in rows:
            polarity = 7 if tweet.kind == "bad_label" else tweet.label - 1
            lines += [tweet.text, tweet.target, str(polarity), tweet.file]
        if lists != "tsv":
            write_text(folder / f"{name}.txt", "\n".join([*lines, ""]))
    return named
