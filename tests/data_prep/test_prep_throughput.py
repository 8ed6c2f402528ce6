"""The preparation benchmark compares like with like."""

import cv2
import numpy as np
import pytest

from benchmarks import prep_throughput as bench
from data_prep.shards import Shard

SECONDS = 4.0


@pytest.mark.parametrize("row", bench.rows(SECONDS), ids=lambda row: row.title)
def test_both_ways_store_as_many_pictures_of_the_same_size(row, tmp_path):
    (clip,) = bench.write_clips(tmp_path, row, 1, SECONDS)
    bench.usual([clip], tmp_path / "usual", row)
    bench.ours([clip], tmp_path / "ours.arrow", row.spec)
    stored = Shard(tmp_path / "ours.arrow").value(0, "video")
    pictures = [cv2.imdecode(np.frombuffer(data, np.uint8), 1).shape for data in stored]
    files = sorted((tmp_path / "usual" / clip.stem).glob("*.jpg"))
    assert pictures == [cv2.imread(str(file)).shape for file in files] and len(files) == row.k
    (values,) = map(np.load, tmp_path.rglob("sound.npy"))
    assert values.shape == (257, int(row.spec["audio"].seconds * 22050) // 353 + 1)
