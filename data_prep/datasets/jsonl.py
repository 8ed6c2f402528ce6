"""Lists of a JSON object a line, as in the official MIDAS release and in MMBT.

MMBT's layout (facebookresearch/mmbt, scripts/food_101.py and mmbt/data/dataset.py) has train.jsonl,
dev.jsonl and test.jsonl with the keys id, label (a class name), text, and img, a path relative to
the folder of the lists. QingyangZhang/QMF publishes such lists of Food-101 and MVSA-Single, which
Cecile-hi/Multimodal-Learning-with-Alternating-Unimodal-Adaptation (MLA) reads, too. Only dev.jsonl
tells this layout from others. test_hard_gt.jsonl has rows of test.jsonl again.
"""

import json
import re

from data_prep.datasets.release import Form

COLUMNS = ("img", "text", "label")
MMBT_LISTS = ("train.jsonl", "dev.jsonl", "test.jsonl")


def mmbt(images: tuple[str, ...], *beside: str) -> Form:
    """MMBT's layout with folders of images, and the names of other files that may be there."""
    return Form(
        MMBT_LISTS,
        images,
        (),
        shared=("train.jsonl", "test.jsonl", *images),
        unread=("test_hard_gt.jsonl", *beside),
        made="in MMBT's layout",
    )


def read_object(line: str) -> list[str]:
    """The `COLUMNS` of a line; empty if it is not an object with these keys."""
    try:
        page = json.loads(line)
        words = [page[key] for key in COLUMNS]
    except (ValueError, RecursionError, TypeError, KeyError):
        return []
    if type(words[2]) is int:
        words[2] = str(words[2])
    if not all(isinstance(word, str) for word in words):
        return []
    # JSON can contain lone surrogates, which UTF-8 cannot encode.
    return [re.sub("[\ud800-\udfff]", "\ufffd", word) for word in words]
