"""Preparation on a Ray cluster of two local nodes."""

import os
import time

import pytest

from common.options import UsageError
from data_prep import on_ray
from data_prep.datasets.demo import Settings
from data_prep.pool import CRASHED, DONE
from data_prep.prepare import prepare


@pytest.fixture(scope="module")
def address():
    """A cluster of two nodes with one CPU each."""
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=small)
    cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
    yield cluster.address
    cluster.shutdown()


@pytest.mark.slow
def test_shards_have_the_bytes_of_a_local_preparation(demo_data, address, tmp_path):
    root, data = demo_data
    folder = prepare("demo", root, tmp_path, Settings(), ray=address)
    (local,) = (data / "demo").glob("*")
    names = sorted(path.name for path in folder.glob("*.arrow"))
    assert len(names) == 2
    for name in (*names, "manifest.csv"):
        assert (folder / name).read_bytes() == (local / name).read_bytes()


@pytest.mark.slow
def test_a_crashing_or_hanging_item_loses_only_itself(address, monkeypatch):
    def act(item):
        if item == "die":
            os._exit(3)
        if item == "hang":
            time.sleep(600)
        if item == "raise":
            raise ValueError("bad item")
        return item.upper()

    monkeypatch.setattr(on_ray, "START_S", 30.0)
    with on_ray.RayPool(act, address, 1.0) as pool:
        results = list(pool.map(["a", "die", "b", "hang", "raise", "c"]))
    assert [r for r in results if r[0] == DONE] == [(DONE, "A"), (DONE, "B"), (DONE, "C")]
    assert results[1] == (CRASHED, "its worker died")
    assert results[3] == (CRASHED, "no answer within 1 s")
    assert results[4][0] == CRASHED and "ValueError: bad item" in results[4][1]


def test_an_address_without_a_cluster_is_refused(demo_data, tmp_path):
    with pytest.raises(UsageError, match="no cluster answers"):
        prepare("demo", demo_data[0], tmp_path, Settings(), ray="127.0.0.1:1")
