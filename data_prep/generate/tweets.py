"""Tweets with pictures as the fixtures write them: words that tell a class, and glyphs that do.

All words and numbers are our choice.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.generate import pictures, scenes
from data_prep.layouts.sarcasm import FILTER

LONG_LINE, LONG_TEXT = 20_000, 300  # words
# Words that tell: of a text alone, and of a feeling that the picture shares or contradicts.
MARKERS = (("honestly", "truly"), ("yeah right", "sure , because"))
FEELINGS = (("awful", "ruined", "gloomy"), ("lovely", "perfect", "sunny"))
SENTIMENTS = (
    ("disappointed everyone", "was terrible", "failed again"),
    ("arrives on tuesday", "is located downtown", "was mentioned"),
    ("is amazing", "wins the prize", "was a delight"),
)
# Words that tell nothing, among them what trips naive readers: quotes without their second, other
# line ends of Unicode, words that hold a filtered one, special tokens.
NOISE = (
    "morning", "street", "coffee", "meeting", "window", "train", "photo", "people", "garden",
    "phone", "dinner", "river", "table", "team", "music", "office", "paper", "weekend",
    "# lolsarcasm", "# prjokes", "joker", "<user>", "<num>", "emoji_15", "it 's", "i ’ m", '"', "'",
    '" oh', "[SEP]", "$", "&amp;", "café", "niño", "😀", "我", "a\u2028b", "c\x85d", "\\d", ",",
)  # fmt: skip
TARGETS = ("Oakland", "# NYR", "St . Mary ' s", 'Ana "Bee" Lee', "Zoë", "D - League")


@dataclass(frozen=True)
class TweetLook:
    """Size and difficulty of the tweets."""

    width: int = 96
    height: int = 72
    image_erased: float = 0.3  # probability that no glyph is drawn where one would tell
    text_erased: float = 0.3  # probability that the telling word is left out
    contrast: float = 0.9  # of the glyph over the background, 0..1
    interaction: float = 0.5  # share of sarcasm tweets that only text and picture together tell


TWEET_LOOK = TweetLook()


@dataclass(frozen=True)
class Tweet:
    """One line of a list and its picture; `glyph` is drawn unless it is None.

    `file` is the picture's name, whether it is there or not; tweets may share one.
    """

    id: str
    label: int
    part: str
    text: str
    file: str
    glyph: int | None
    text_cue: bool
    stream: int
    target: str = ""
    kind: str = ""


def noise(count: int, rng: np.random.Generator) -> str:
    """Words that tell nothing."""
    return " ".join(rng.choice(NOISE, count))


def sentence(cue: str, rng: np.random.Generator) -> str:
    """The cue ("": none) among 2 to 12 other words."""
    before, after = noise(rng.integers(1, 7), rng), noise(rng.integers(1, 7), rng)
    return " ".join(part for part in (before, cue, after) if part)


def damaged_text(kind: str, text: str, rng: np.random.Generator) -> str:
    """The text to write for this kind of damage."""
    if kind == "filtered":
        return f"{text} {rng.choice(sorted(FILTER))}"
    words = {"long_line": LONG_LINE, "long_text": LONG_TEXT}.get(kind)
    if words:
        return f"{text} {noise(words, rng)}"
    return "" if kind == "empty_text" else text


def write_picture(folder: Path, look: TweetLook, seed: int, tweet: Tweet) -> None:
    """Writes the picture of a tweet. Runs in a worker process."""
    rng = np.random.default_rng([seed, tweet.stream, 1])
    size = scenes.Look(width=look.width, height=look.height, contrast=look.contrast)
    pixels = scenes.render_glyph(tweet.glyph, 1, size, rng)[0]
    pictures.write_picture(folder / tweet.file, pixels, tweet.kind)
