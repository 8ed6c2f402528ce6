"""Text: cleaned, tokenised, and stored as token ids or as text.

With ELECTRA's vocabulary, or one from the user, samples are stored as token ids. A vocabulary built
from the data belongs to a split, because it must only use training texts: then the cleaned texts
are stored, and tokenised when read. Special tokens that occur in a text are treated as ordinary
words: only this module adds [CLS] and [SEP].
"""

import codecs
import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from data_prep.modalities.base import Draw, Extracted, Modality, last_used, the_file
from data_prep.modalities.vocabulary import named, place_vocabulary, split_words, tokenizer_of
from data_prep.reasons import Reject

MAX_CHARACTERS = 100_000  # per text; titles and tweets are far shorter


@dataclass(frozen=True)
class Text(Modality):
    """Stored token ids, uint16 [n], including special tokens; or the cleaned texts in UTF-8.

    `vocabulary`: "electra" (uncased WordPiece), the first digits of the SHA-256 of a vocab.txt, or
    "build". The first two are stored as vocab.txt next to the samples. "build" stores texts, and
    its vocabulary, built from a split's training part, is stored next to the split file.
    """

    vocabulary: str = "electra"
    words: int = 30522  # maximum size of the vocabulary
    max_tokens: int = 40
    pair: bool = False  # two texts, joined by the separator token, with segment ids
    cleaning: str = ""  # the rule of `clean` that is applied first

    inline: ClassVar[bool] = True

    @property
    def built_vocabulary(self) -> bool:
        return self.vocabulary == "build"

    def columns(self, name: str) -> list[str]:
        """The second text of a pair is in the column "target"."""
        return [name, "target"] if self.pair else [name]

    def from_row(self, name: str, row: dict[str, str]) -> tuple[list[str], Any]:
        texts = [row[column] for column in self.columns(name)]
        return [], texts if self.pair else texts[0]

    def prepare_folder(self, folder: Path, settings: Any) -> None:
        """Writes the vocabulary of stored tokens as vocab.txt."""
        if not self.built_vocabulary:
            place_vocabulary(folder / "vocab.txt", settings.vocabulary)

    def extract(self, paths: Sequence[Path], inline: Any, folder: Path | None) -> Extracted:
        """The stored form of a text or pair: tokens, or the cleaned texts in UTF-8.

        Without `paths`, `inline` is the text or pair; else the text is in the one file of `paths`,
        and `inline` is the second argument of `read_text`. Uses folder/vocab.txt for tokens. A
        sample without any word counts as not found. Flags: "empty_text", "cut" (to `max_tokens`),
        "cut_text" (to `MAX_CHARACTERS`), and those of `read_text`, whose errors are raised.
        """
        flags: tuple[str, ...] = ()
        if paths:
            inline, flags = read_text(the_file(paths, "missing_file"), inline)
        texts = [inline] if isinstance(inline, str) else inline
        cleaned = [clean(text[:MAX_CHARACTERS], self.cleaning) for text in texts]
        words = [len(split_words(text)) for text in cleaned]
        flags += ("empty_text",) * (0 in words)
        flags += ("cut_text",) * any(len(text) > MAX_CHARACTERS for text in texts)
        if self.built_vocabulary:
            payload, found = [text.encode() for text in cleaned], sum(words)
            # A word has at least one token, and special tokens are added.
            cut = sum(words) + 2 + self.pair > self.max_tokens
        else:
            payload, cut = tokenise(cleaned, self, folder / "vocab.txt")
            found = len(payload[1]) if any(words) else 0
        return Extracted(payload, flags + ("cut",) * cut, 0.0, found, found > 0)

    def to_input(self, stored: Any, draw: Draw) -> np.ndarray:
        """int32 [3, max_tokens]: ids, segments, and a mask that is 1 on tokens and 0 on padding."""
        if self.built_vocabulary:
            assert draw.vocabulary, "a vocabulary is needed to tokenise stored texts"
            texts = [bytes(text).decode() for text in stored]
            stored, _ = tokenise(texts, self, draw.vocabulary)
        ids = np.frombuffer(stored[0], dtype=np.uint16)
        out = np.zeros((3, self.max_tokens), dtype=np.int32)
        out[0, : len(ids)], out[2, : len(ids)] = ids, 1
        out[1, : len(ids)] = np.frombuffer(stored[1], dtype=np.uint8)
        return out

    def on_device(self, stored: Iterable, draw: Draw, device: Any) -> Any:
        from data_prep.modalities.on_device import whole

        return whole(self, stored, draw, device)

    def trim(self, batch: np.ndarray) -> np.ndarray:
        """[B, 3, L] cut to the longest text of the batch: attention costs O(L^2)."""
        return batch[:, :, : last_used(batch[:, 2].any(0))]

    def stream(self) -> dict[str, Any]:
        return {"kind": "text", "length": self.max_tokens, "vocabulary": self.words}


def text_spec(vocabulary: str, max_tokens: int, pair: bool = False, cleaning: str = "") -> Text:
    """The `Text` for the setting `vocabulary`: "electra", "build", or a folder.

    Raises `UsageError` if the folder contains no valid vocabulary.
    """
    name, words = named(vocabulary)
    return Text(vocabulary=name, words=words, max_tokens=max_tokens, pair=pair, cleaning=cleaning)


def read_text(path: Path, legacy: str | None) -> tuple[str, tuple[str, ...]]:
    """The text of a file, and the flag "encoding=<name>" if it is not UTF-8.

    Other bytes are in the encoding `legacy` if they are valid in it, else in Latin-1, in which all
    bytes are. No more than `MAX_CHARACTERS` + 1 characters are needed, so a longer file is not read
    to its end. Raises `Reject`: "missing_file" or "unreadable".
    """
    most = 4 * (MAX_CHARACTERS + 1)  # bytes
    try:
        with open(path, "rb") as file:
            data = file.read(most)
    except FileNotFoundError:
        raise Reject("missing_file", path.name) from None
    except OSError as error:
        raise Reject("unreadable", f"{path.name}: {error.strerror}") from None
    for name in ("utf-8-sig", *([legacy] if legacy else [])):
        try:  # the last character that was read may be incomplete
            text = codecs.getincrementaldecoder(name)().decode(data, len(data) < most)
        except UnicodeDecodeError:
            continue
        return text, () if name == "utf-8-sig" else (f"encoding={name}",)
    return data.decode("latin-1"), ("encoding=latin-1",)


def clean(text: str, rule: str) -> str:
    """Cleans a text by one of the rules of `Text.cleaning`; "" leaves it unchanged.

    "release" (the official release) removes a leading "RT" with the whitespace after it, then from
    each http(s):// the rest of the line and the line breaks after it, then every "#".

    "plain" is for web page titles: resolves entities, normalises to NFKC, removes URLs, collapses
    whitespace to single spaces, and removes other characters of the Unicode categories C (control,
    format, unassigned). Unlike BalanceBenchmark's rule, it keeps the text after a URL.
    """
    if rule == "release":
        text = re.sub(r"^RT\s+", "", text)
        text = re.sub(r"https?://.*[\r\n]*", "", text).replace("#", "")
    elif rule == "plain":
        text = unicodedata.normalize("NFKC", html.unescape(text))
        text = re.sub(r"https?://\S+", " ", text)
        kept = (c for c in text if c.isspace() or unicodedata.category(c)[0] != "C")
        text = " ".join("".join(kept).split())
    return text


def tokenise(cleaned: Sequence[str], spec: Text, vocabulary: Path) -> tuple[list[bytes], bool]:
    """([uint16 ids, uint8 segments] as bytes, whether some were cut) of one or two cleaned texts.

    [CLS] a [SEP], or for a pair [CLS] a [SEP] b [SEP] with the segments 0 and 1. Tokens beyond
    `spec.max_tokens` are removed one by one from the end of the longer text, as in BERT's scripts.
    """
    tokenizer = tokenizer_of(vocabulary)
    found = [tokenizer.encode(text, add_special_tokens=False).ids for text in cleaned]
    room = max(0, spec.max_tokens - 1 - len(found))
    kept = [min(len(found[0]), room)]
    if len(found) == 2:
        # This leaves both texts with half of the room unless one is shorter.
        second = min(len(found[1]), max(room // 2, room - len(found[0])))
        kept = [min(len(found[0]), room - second), second]
    separator = [tokenizer.token_to_id("[SEP]")]
    ids, segments = [tokenizer.token_to_id("[CLS]")], [0]
    for segment, (text, length) in enumerate(zip(found, kept)):
        ids += text[:length] + separator
        segments += [segment] * (length + 1)
    stored = [np.asarray(ids, np.uint16).tobytes(), np.asarray(segments, np.uint8).tobytes()]
    return stored, sum(kept) < sum(map(len, found))
