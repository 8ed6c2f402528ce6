"""IEMOCAP: one pickle with text, audio and video features of utterances and their emotions.

MulT's files (see `features.py`) have an array [N, 4, 2] under "labels": for each of neutral, happy,
sad and angry, in this order, (1, 0) if the utterance does not have the emotion and (0, 1) if it
does (src/dataset.py takes the argmax, src/eval_metrics.py has the order). MulT trains four binary
classifiers. Here, the class is the only emotion of the utterance; an utterance with none or several
is rejected. The files may lack "id".

The files of DialogueRNN and MMGCN (github.com/declare-lab/conv-emotion, DialogueRNN/dataloader.py;
github.com/hujingwen6666/MMGCN, dataloader.py) are a tuple of nine: the utterances' ids, speakers,
labels (numbers of `SIX`), vectors of text, audio and video, and sentences, each a dict dialogue ->
list; the training and the test dialogues. Such a file has one vector per utterance and modality.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.options import UsageError, option
from data_prep.datasets import features
from data_prep.datasets.features import FeatureFiles, Label, Variant
from data_prep.spec import Candidate, Scan, Spec

LABELS = ("neutral", "happy", "sad", "angry")  # of MulT's files
SIX = ("happy", "sad", "neutral", "angry", "excited", "frustrated")  # of dialogues
PLACES = {"text": 3, "audio": 4, "video": 5}  # modality -> place in the tuple
VAL_EVERY = 10  # of the sorted training dialogues, one goes to val: our choice, readers differ
SPLIT_SECOND = 2 / 3
SPLIT_RULE = "official"
# Readers of MulT's aligned file report 20 rows, but CMU's folder of it is named seq_length_50.
FILES = FeatureFiles(
    "iemocap",
    "IEMOCAP",
    "github.com/yaohungt/Multimodal-Transformer and github.com/declare-lab/conv-emotion",
    {
        "mult_aligned": Variant(("iemocap_data.pkl",), "labels", 50),
        "mult_unaligned": Variant(("iemocap_data_noalign.pkl",), "labels", 500),
        "dialogues": Variant(("IEMOCAP_features.pkl", "IEMOCAP_features_raw.pkl"), "", 1),
    },
    needs_ids=False,
)
SOURCE = FILES.source
detect = FILES.detect


@dataclass(frozen=True)
class Settings:
    """How IEMOCAP is prepared."""

    feature_files: str = option("mult_aligned", "feature files", choices=tuple(FILES.variants))
    standardise: bool = option(
        True, "scale audio and video features to mean 0 and deviation 1 over the training part"
    )


def spec(settings: Settings) -> Spec:
    """See `features.spec`."""
    rows = FILES.variants[settings.feature_files].rows
    return features.spec(rows, settings.feature_files, settings.standardise)


def scan(root: Path, settings: Settings) -> Scan:
    """The rows of the pickle as candidates; raises `UsageError` for a damaged or other file."""
    if settings.feature_files == "dialogues":
        return _scan_dialogues(root)
    return FILES.scan(root, settings.feature_files, LABELS, _label)


def _scan_dialogues(root: Path) -> Scan:
    """The utterances of a file of dialogues; the group is the session, which has two speakers."""
    tree, source, content = FILES.open(root, "dialogues")
    _check_dialogues(content, root / source)
    ids, labels, train = content[0], content[2], sorted(content[7])
    val = train[VAL_EVERY - 1 :: VAL_EVERY]
    for dialogue in (*train, *sorted(content[8])):
        part = "val" if dialogue in val else "train" if dialogue in content[7] else "test"
        numbers = labels[dialogue]
        numbers = numbers if isinstance(numbers, list) else numbers.tolist()
        for row, label in enumerate(numbers):
            name, where = features.clip(ids[dialogue][row])[0], f"{dialogue}/{row}"
            known = type(label) is int and 0 <= label < len(SIX)
            sources = dict.fromkeys(PLACES, (source,))
            rows = {m: f"{place}/{where}" for m, place in PLACES.items()}
            tree.take(
                Candidate(name or where, label, sources, dialogue[:5], part, rows),
                source,
                (not name, "unknown_name", f"id of {where}"),
                (not known, "no_label", f"{where}: its label is not a number from 0 to 5"),
                (name in tree.candidates, "duplicate", where),
            )
    return tree.scan(SIX, FILES.name)


def _check_dialogues(content: Any, path: Path) -> None:
    """Raises `UsageError` unless all dialogues are complete and in one part."""
    kinds: tuple[Any, ...] = (*[dict] * 7, *[(list, tuple, set)] * 2)
    fits = isinstance(content, (list, tuple)) and len(content) == len(kinds)
    if not fits or not all(isinstance(field, kind) for field, kind in zip(content, kinds)):
        raise UsageError(
            f"{path} is not a file of dialogues: it must have seven dicts and the names of the"
            f" training and the test dialogues. {FILES.source}"
        )
    parts = [*content[7], *content[8]]
    named = all(isinstance(name, str) and name == features.clip(name)[0] for name in parts)
    once = named and len(set(parts)) == len(parts)
    if not once or any(fields.keys() != set(parts) for fields in content[:7]):
        raise UsageError(f"{path}: the dialogues of train and test are not those of the lists")
    for dialogue in parts:
        counts = [_count(content[place][dialogue]) for place in (0, 2, *PLACES.values())]
        if counts[0] < 0 or len(set(counts)) != 1:
            raise UsageError(f"{path}: dialogue {dialogue!r} has {counts} ids, labels and vectors")


def _count(rows: Any) -> int:
    """The length of a list or an array, and -1 for anything else."""
    return len(rows) if isinstance(rows, list) else (*getattr(rows, "shape", ()), -1)[0]


def _label(value: Any) -> Label:
    """The label of an array [4, 2] of zeros and ones."""
    pairs = value.tolist() if getattr(value, "shape", ()) == (len(LABELS), 2) else []
    if not pairs or any(pair not in ([0, 1], [1, 0]) for pair in pairs):
        return -1, "its labels are not four pairs of 0 and 1"
    there = [k for k, pair in enumerate(pairs) if pair == [0, 1]]
    if len(there) != 1:
        names = " and ".join(LABELS[k] for k in there) or "none"
        return -1, f"it must have one emotion, but has {names}"
    return there[0], ""
