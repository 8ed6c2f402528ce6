"""Text vocabularies: uncased WordPiece, stored as a vocab.txt with one token per line.

The line number is the token id. The file comes from ELECTRA or the user, or is built from the texts
of a dataset.
"""

import functools
import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.trainers import WordPieceTrainer

from common.files import write_text
from common.options import UsageError

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # parallelism comes from the worker processes
# Both have the same vocab.txt; the first one in the cache is used.
ELECTRA_MODELS = ("google/electra-small-discriminator", "google/electra-base-discriminator")
ELECTRA_WORDS = 30522
BUILD_WORDS = 4000  # our choice: a few thousand short texts do not fill a larger one
BUILD_ALPHABET = 1000  # most frequent characters; the default of tokenizers' BERT trainer
BUILD_FREQUENCY = 2  # minimum frequency of a piece; also the default of that trainer
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_WORDS = 1 << 16  # ids are stored as uint16
MAX_VOCABULARY_BYTES = 8 << 20  # a vocab.txt of 30,522 lines has 232 kB
FOLD, SPLIT = BertNormalizer(lowercase=True), BertPreTokenizer()  # as in BERT's uncased models


def named(setting: str) -> tuple[str, int]:
    """(name, number of words) of the vocabulary for a setting: "electra", "build", or a folder.

    The vocab.txt of a folder is named by the first 12 digits of its SHA-256 (with LF line breaks),
    so its location does not matter. Raises `UsageError` if it is missing or invalid.
    """
    if setting in ("electra", "build"):
        return setting, {"electra": ELECTRA_WORDS, "build": BUILD_WORDS}[setting]
    content, lines = _read_vocabulary(Path(setting).expanduser() / "vocab.txt")
    return hashlib.sha256(content).hexdigest()[:12], len(lines)


def place_vocabulary(path: Path, setting: str) -> None:
    """Writes the vocabulary of `setting`, "electra" or a folder, to a prepared folder's vocab.txt.

    Raises `UsageError` if that file is another vocabulary, or the requested one is not available.
    """
    source = _find_electra() if setting == "electra" else Path(setting).expanduser() / "vocab.txt"
    content, lines = _read_vocabulary(source)
    if setting == "electra" and len(lines) != ELECTRA_WORDS:
        raise UsageError(
            f"{source} has {len(lines)} lines, not {ELECTRA_WORDS}: it is damaged or another"
            " vocabulary"
        )
    if not path.exists():
        write_text(path, content.decode())
    elif path.read_bytes() != content:
        raise UsageError(
            f"{path} differs from the vocabulary that --vocabulary {setting} gives now, and may"
            f" have been used for existing samples: remove {path.parent} and prepare again"
        )


def build_vocabulary(texts: Iterable[str], words: int) -> bytes:
    """An uncased WordPiece vocab.txt of at most `words` lines, independent of the order of texts.

    The trainer numbers characters inside words in hash table order and breaks ties between merges
    by number. So it gets all characters beforehand, in sorted order, as separate tokens.
    """
    lines = sorted(texts)
    counts: Counter[str] = Counter()
    inside: set[str] = set()  # characters that occur after the first of a word
    for line in lines:
        for word in split_words(line):
            counts.update(word)
            inside.update(word[1:])
    ranked = sorted(counts, key=lambda c: (-counts[c], c))
    alphabet = sorted(ranked[: min(BUILD_ALPHABET, (words - len(SPECIAL)) // 2)])
    trainer = WordPieceTrainer(
        vocab_size=words,
        min_frequency=BUILD_FREQUENCY,
        special_tokens=[*SPECIAL, *alphabet, *(f"##{c}" for c in alphabet if c in inside)],
        limit_alphabet=len(alphabet),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer = _uncased(None)
    tokenizer.train_from_iterator(lines, trainer)
    vocabulary = tokenizer.get_vocab()
    return "".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.get)).encode()


def _find_electra() -> Path:
    """ELECTRA's vocab.txt in the Hugging Face cache; raises `UsageError` if it is not there."""
    from huggingface_hub import constants, try_to_load_from_cache

    for model in ELECTRA_MODELS:
        path = try_to_load_from_cache(model, "vocab.txt")
        if isinstance(path, str):
            return Path(path)
    raise UsageError(
        f"--vocabulary electra needs vocab.txt of {' or '.join(ELECTRA_MODELS)} in the cache"
        f" {constants.HF_HUB_CACHE}, which does not contain it: fetch it with `hf download"
        f" {ELECTRA_MODELS[0]}`, or put the file into a folder and give"
        " --vocabulary <folder>, or build one without any download with --vocabulary build"
    )


def _read_vocabulary(path: Path) -> tuple[bytes, list[str]]:
    """The content of a vocab.txt with LF line breaks, and its tokens; raises `UsageError`."""
    try:
        with open(path, "rb") as handle:
            content = handle.read(MAX_VOCABULARY_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"--vocabulary needs {path}, which cannot be read ({error.strerror}); allowed: electra,"
            " build, or a folder with a vocab.txt"
        ) from None
    content = content.replace(b"\r\n", b"\n").rstrip(b"\n") + b"\n"
    try:
        # Not splitlines(): ELECTRA has tokens with characters that it treats as line breaks.
        lines = content.decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a vocabulary: it is not UTF-8 text") from None
    wrong = ""
    if len(content) > MAX_VOCABULARY_BYTES or len(lines) > MAX_WORDS:
        wrong = f"more than {MAX_WORDS} lines or {MAX_VOCABULARY_BYTES} bytes"
    elif missing := [token for token in SPECIAL[:4] if token not in lines]:
        wrong = f"no line {missing[0]}"
    elif lines[0] != "[PAD]":  # stored texts are padded with id 0
        wrong = f"a first line {lines[0][:80]!r}, not [PAD]"
    elif len(set(lines)) != len(lines):
        wrong = "the same line twice"
    if wrong:
        raise UsageError(f"{path} cannot be used as a vocabulary: it has {wrong}")
    return content, lines


def split_words(text: str) -> list[str]:
    """The normalised words of a text; each gives at least one token in any vocabulary."""
    return [word for word, _ in SPLIT.pre_tokenize_str(FOLD.normalize_str(text))]


def tokenizer_of(path: Path) -> Tokenizer:
    """The tokenizer of a vocab.txt, cached until the file's mtime or size changes."""
    status = path.stat()
    return _tokenizer(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4)
def _tokenizer(path: Path, changed_ns: int, size: int) -> Tokenizer:
    return _uncased({token: k for k, token in enumerate(_read_vocabulary(path)[1])})


def _uncased(vocabulary: dict[str, int] | None) -> Tokenizer:
    """A tokenizer that normalises and splits like BERT uncased, without special tokens."""
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = FOLD, SPLIT
    return tokenizer
