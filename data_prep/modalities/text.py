"""Texts become token ids: cleaning, the vocabulary, what is stored of a sample, its tokens.

A vocabulary is a vocab.txt of uncased WordPiece, one token a line, the line's number its id:
ELECTRA's own, the user's, or one made of the data set's texts. The first two stand beside the
samples, which are stored as tokens. The third belongs to a split, since only the texts of the train
part may make it: samples are stored as cleaned texts then, and become tokens when they are read.
Special tokens that stand in a text as words are words: only this module places [CLS] and [SEP].
"""

import functools
import hashlib
import html
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from common.files import write_text
from common.options import UsageError
from data_prep.modalities.base import Draw, Extracted, Modality, last_used

# Their vocab.txt is the same file; whichever is in the cache is taken.
ELECTRA_MODELS = ("google/electra-small-discriminator", "google/electra-base-discriminator")
ELECTRA_WORDS = 30522
BUILD_WORDS = 4000  # our choice: some thousand short texts fill no larger one
BUILD_ALPHABET = 1000  # characters, the most frequent; the default of tokenizers' BERT trainer
BUILD_FREQUENCY = 2  # a piece seen once is not one; also that trainer's default
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_WORDS = 1 << 16  # ids are stored as uint16
MAX_VOCABULARY_BYTES = 8 << 20  # a vocab.txt of 30,522 lines has 232 kB
MAX_CHARACTERS = 100_000  # of one text; no title or tweet comes near

URL = re.compile(r"https?://\S+")


@dataclass(frozen=True)
class Text(Modality):
    """Stored token ids, uint16 [n], special tokens included, at most `max_tokens`.

    `vocabulary`: "electra" (uncased WordPiece of 30,522), or the first digits of the SHA-256 of a
    vocab.txt of `words` lines; the file stands beside the samples as vocab.txt. With "build" the
    cleaned texts are stored in UTF-8, and become tokens when they are read, by a vocabulary of at
    most `words` made of the train part's texts of a split, which stands beside the split's file. A
    pair of texts is joined by the separator token and carries segment ids. `cleaning` names the
    rule of `clean` that a text passes first; "" is none.
    """

    vocabulary: str = "electra"
    words: int = 30522
    max_tokens: int = 40
    pair: bool = False
    cleaning: str = ""

    inline: ClassVar[bool] = True

    @property
    def built_vocabulary(self) -> bool:
        """Whether the vocabulary is made of the texts, which are stored themselves then."""
        return self.vocabulary == "build"

    def columns(self, name: str) -> list[str]:
        """The second text of a pair is in the column "target"."""
        return [name, "target"] if self.pair else [name]

    def from_row(self, name: str, row: dict[str, str]) -> tuple[list[str], Any]:
        """The text, or the pair, itself."""
        texts = [row[column] for column in self.columns(name)]
        return [], texts if self.pair else texts[0]

    def prepare_folder(self, folder: Path, settings: Any) -> None:
        """Where tokens are stored: their vocabulary as vocab.txt."""
        if not self.built_vocabulary:
            place_vocabulary(folder / "vocab.txt", self, settings.vocabulary)

    def extract(self, paths: Sequence[Path], inline: Any, folder: Path | None) -> Extracted:
        """What is stored of a text or a pair, `inline`: tokens, or the cleaned texts in UTF-8.

        Tokens are those of folder/vocab.txt. A sample without any word counts as filled. Flags:
        "empty_text", "cut" (more than `max_tokens` hold), "cut_text" (of a text of megabytes).
        """
        texts = [inline] if isinstance(inline, str) else inline
        if len(texts) != 1 + self.pair:
            raise ValueError(f"{len(texts)} texts for a spec of {1 + self.pair}")
        cleaned = [clean(text[:MAX_CHARACTERS], self.cleaning) for text in texts]
        words = [len(split_words(text)) for text in cleaned]
        flags = ("empty_text",) * (0 in words)
        flags += ("cut_text",) * any(len(text) > MAX_CHARACTERS for text in texts)
        if self.built_vocabulary:
            payload, found = [text.encode() for text in cleaned], sum(words)
            # A word is one token or more, and there are marks beside them.
            cut = sum(words) + 2 + self.pair > self.max_tokens
        else:
            payload, cut = tokenise(cleaned, self, folder / "vocab.txt")
            found = len(payload[1]) if any(words) else 0
        return Extracted(payload, flags + ("cut",) * cut, 0.0, found, found > 0)

    def to_input(self, stored: Any, draw: Draw) -> np.ndarray:
        """int32 [3, max_tokens]: ids, segments, and a mask that is 1 on tokens and 0 on padding."""
        if self.built_vocabulary:
            assert draw.vocabulary, "texts are stored: a vocabulary must be given"
            texts = [bytes(text).decode() for text in stored]
            stored, _ = tokenise(texts, self, draw.vocabulary)
        ids = np.frombuffer(stored[0], dtype=np.uint16)
        out = np.zeros((3, self.max_tokens), dtype=np.int32)
        out[0, : len(ids)], out[2, : len(ids)] = ids, 1
        out[1, : len(ids)] = np.frombuffer(stored[1], dtype=np.uint8)
        return out

    def trim(self, batch: np.ndarray) -> np.ndarray:
        """[B, 3, L] cut to the longest text of the batch: attention costs L squared."""
        return batch[:, :, : last_used(batch[:, 2].any(0))]

    def stream(self) -> dict[str, Any]:
        """The most tokens of a text, and the size of the vocabulary."""
        return {"kind": "text", "length": self.max_tokens, "vocabulary": self.words}


def text_spec(vocabulary: str, max_tokens: int, pair: bool = False, cleaning: str = "") -> Text:
    """The stored form of a text under the setting `vocabulary`: "electra", "build", or a folder.

    A folder's vocab.txt is named by the first 12 digits of its SHA-256 (with LF line ends): where
    it lies decides nothing. Raises `UsageError` where it is not there or is no vocabulary.
    """
    if vocabulary == "electra":
        return Text("electra", ELECTRA_WORDS, max_tokens, pair, cleaning)
    if vocabulary == "build":
        return Text("build", BUILD_WORDS, max_tokens, pair, cleaning)
    content = _read_vocabulary(_folder_file(vocabulary))
    return Text(_digits(content), len(_lines(content)), max_tokens, pair, cleaning)


def clean(text: str, rule: str) -> str:
    """A text by one of the rules of `Text.cleaning`; "" leaves it as it is."""
    return {"": str, "plain": clean_plainly, "release": clean_as_released}[rule](text)


def clean_as_released(text: str) -> str:
    """The official release's three steps, in its order.

    A leading "RT" goes with the blanks behind it, then from each http(s):// all that is left of the
    line and the line breaks after it, then every "#".
    """
    text = re.sub(r"^RT\s+", "", text)
    text = re.sub(r"https?://.*[\r\n]*", "", text)
    return text.replace("#", "")


def clean_plainly(text: str) -> str:
    """A web page's title as plain words: entities resolved, NFKC, no URLs, single spaces.

    Characters of the Unicode categories C (control, format, unassigned) go, but those that are
    blanks become spaces. Unlike BalanceBenchmark's rule, what follows a URL stays.
    """
    text = unicodedata.normalize("NFKC", html.unescape(text))
    text = URL.sub(" ", text)
    kept = (c for c in text if c.isspace() or unicodedata.category(c)[0] != "C")
    return " ".join("".join(kept).split())


# The vocabulary -----------------------------------------------------------------------------------


def place_vocabulary(path: Path, spec: Text, setting: str) -> None:
    """Writes the vocabulary of `setting`, "electra" or a folder, to a prepared folder's vocab.txt.

    An equal file that is there stays. Raises `UsageError` where another vocabulary stands there, or
    the one asked for is not on this machine.
    """
    if setting == "electra":
        content = _electra_vocabulary()
    else:
        content = _read_vocabulary(_folder_file(setting))
        if _digits(content) != spec.vocabulary:
            raise UsageError(f"{_folder_file(setting)} has changed while this ran: start again")
    if not path.exists():
        write_text(path, content.decode())
    elif path.read_bytes() != content:
        raise UsageError(
            f"{path} holds another vocabulary than --vocabulary {setting} gives now, and samples"
            f" beside it may be made with it: remove {path.parent} and prepare again"
        )


def build_vocabulary(texts: Iterable[str], words: int) -> bytes:
    """An uncased WordPiece vocab.txt of at most `words` lines; the same in any order of the texts.

    The trainer numbers the characters inside of words in the order of a hash table, and ties
    between merges go by number. So every character is given to it beforehand, in sorted order, as
    a token of its own.
    """
    tokenizers = _tokenizers()
    tokenizer = _uncased(tokenizers.models.WordPiece(unk_token="[UNK]"))
    lines = sorted(texts)
    counts: Counter = Counter()
    inside = set()  # characters that occur behind the first of a word
    for line in lines:
        for word in split_words(line):
            counts.update(word)
            inside.update(word[1:])
    ranked = sorted(counts, key=lambda c: (-counts[c], c))
    alphabet = sorted(ranked[: min(BUILD_ALPHABET, (words - len(SPECIAL)) // 2)])
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=words,
        min_frequency=BUILD_FREQUENCY,
        special_tokens=[*SPECIAL, *alphabet, *(f"##{c}" for c in alphabet if c in inside)],
        limit_alphabet=len(alphabet),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    vocabulary = tokenizer.get_vocab()
    return "".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.get)).encode()


def _electra_vocabulary() -> bytes:
    """ELECTRA's vocab.txt from the Hugging Face cache; raises `UsageError` where it is not."""
    from huggingface_hub import constants, try_to_load_from_cache

    for model in ELECTRA_MODELS:
        path = try_to_load_from_cache(model, "vocab.txt")
        if isinstance(path, str):
            content = _read_vocabulary(Path(path))
            if len(_lines(content)) != ELECTRA_WORDS:
                raise UsageError(
                    f"{path} has {len(_lines(content))} lines, not {ELECTRA_WORDS}: it is damaged"
                    " or another vocabulary"
                )
            return content
    raise UsageError(
        f"--vocabulary electra needs vocab.txt of {' or '.join(ELECTRA_MODELS)} in the cache"
        f" {constants.HF_HUB_CACHE}, and it is not there: fetch it with `hf download"
        f" {ELECTRA_MODELS[0]}` where there is a network, or put the file into a folder and give"
        " --vocabulary <folder>, or make one without any download with --vocabulary build"
    )


def _folder_file(setting: str) -> Path:
    return Path(setting).expanduser() / "vocab.txt"


def _read_vocabulary(path: Path) -> bytes:
    """The bytes of a vocab.txt, LF at the end of every line; raises `UsageError` for no such."""
    try:
        with open(path, "rb") as handle:
            content = handle.read(MAX_VOCABULARY_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"--vocabulary needs {path}, which cannot be read ({error.strerror}); it takes electra,"
            " build, or a folder that holds vocab.txt"
        ) from None
    content = content.replace(b"\r\n", b"\n").rstrip(b"\n") + b"\n"
    try:
        lines = _lines(content)
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no vocabulary: it is not UTF-8 text") from None
    wrong = ""
    if len(content) > MAX_VOCABULARY_BYTES or len(lines) > MAX_WORDS:
        wrong = f"more than {MAX_WORDS} lines or {MAX_VOCABULARY_BYTES} bytes"
    elif missing := [token for token in SPECIAL[:4] if token not in lines]:
        wrong = f"no line {missing[0]}"
    elif lines[0] != "[PAD]":  # stored texts are padded with id 0
        wrong = f"a first line {lines[0][:80]!r}, not [PAD]"
    elif len(set(lines)) != len(lines):
        wrong = "a line that stands there twice"
    if wrong:
        raise UsageError(f"{path} is no vocabulary that can be used: it has {wrong}")
    return content


def _lines(content: bytes) -> list[str]:
    # Not splitlines(): ELECTRA's tokens hold other characters that count as line ends there.
    return content.decode().removesuffix("\n").split("\n")


def _digits(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


# One sample ---------------------------------------------------------------------------------------


def tokenise(cleaned: Sequence[str], spec: Text, vocabulary: Path) -> tuple[list[bytes], bool]:
    """([uint16 ids, uint8 segments] as bytes, whether some were cut) of one or two cleaned texts.

    [CLS] a [SEP], or for a pair [CLS] a [SEP] b [SEP] with the segments 0 and 1. What is more than
    `spec.max_tokens` is cut from the end of whichever text is the longer one then, as BERT's own
    scripts do.
    """
    status = vocabulary.stat()
    tokenizer = _tokenizer(vocabulary, status.st_mtime_ns, status.st_size)
    found = [tokenizer.encode(text, add_special_tokens=False).ids for text in cleaned]
    separator = [tokenizer.token_to_id("[SEP]")]
    ids, segments = [tokenizer.token_to_id("[CLS]")], [0]
    kept = _shortened(list(map(len, found)), max(0, spec.max_tokens - 1 - len(found)))
    for segment, (text, length) in enumerate(zip(found, kept)):
        ids += text[:length] + separator
        segments += [segment] * (length + 1)
    stored = [np.asarray(ids, np.uint16).tobytes(), np.asarray(segments, np.uint8).tobytes()]
    return stored, sum(kept) < sum(map(len, found))


def split_words(text: str) -> list[str]:
    """The words of a text, folded: every vocabulary makes one token or more of each."""
    splitter = _splitter()
    folded = splitter.normalizer.normalize_str(text)
    return [word for word, _ in splitter.pre_tokenizer.pre_tokenize_str(folded)]


@functools.cache
def _splitter() -> Any:
    return _uncased(_tokenizers().models.WordPiece(unk_token="[UNK]"))


def _shortened(lengths: list[int], room: int) -> list[int]:
    """The lengths of one or two texts that together fit into `room` tokens."""
    if len(lengths) == 1:
        return [min(lengths[0], room)]
    first, second = lengths
    # Removed one by one, the longer first, both end at half of the room unless one is shorter.
    second_kept = min(second, max(room // 2, room - first))
    return [min(first, room - second_kept), second_kept]


@functools.lru_cache(maxsize=4)
def _tokenizer(path: Path, changed_ns: int, size: int) -> Any:
    """The tokenizer of a vocab.txt; the file's time and size tell another one of the same name."""
    lines = _lines(_read_vocabulary(path))
    vocabulary = {token: k for k, token in enumerate(lines)}
    return _uncased(_tokenizers().models.WordPiece(vocabulary, unk_token="[UNK]"))


def _uncased(model: Any) -> Any:
    """A tokenizer that splits and folds as BERT's uncased one; it knows no special tokens."""
    tokenizers = _tokenizers()
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _tokenizers() -> Any:
    """The library, told to keep to one thread: the worker processes are the parallelism."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import tokenizers
    import tokenizers.models
    import tokenizers.normalizers
    import tokenizers.pre_tokenizers
    import tokenizers.trainers

    return tokenizers
