"""Runs on a Ray cluster of two local machines with one CPU each."""

import os
import signal

import pytest
from launch_stub import (
    alive,
    check_sweep,
    hold,
    in_the_middle,
    let_go,
    start_launcher,
    started,
    starts,
    state,
    tasks_for,
    wait_for,
    write_script,
)

from common.options import UsageError
from experiments.launch.on_ray import launch, split
from experiments.paper.illustration import JOINT
from experiments.report.reader import Reader


@pytest.fixture(scope="module")
def address():
    """A cluster of two nodes with one CPU each."""
    from ray.cluster_utils import Cluster

    small = {
        "num_cpus": 1,
        "num_gpus": 0,
        "object_store_memory": 100_000_000,
        "include_dashboard": False,
    }
    cluster = Cluster(initialize_head=True, head_node_args=small)
    cluster.add_node(num_cpus=1, num_gpus=0, object_store_memory=100_000_000)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def script(tmp_path):
    return write_script(tmp_path)


@pytest.mark.slow
def test_runs_are_made_on_all_machines_and_failures_collected(tmp_path, script, address, capsys):
    results, seeds = tmp_path / "results", (7, 8, 6, 11, 12)  # the last two only end together
    assert launch(Reader(results), tasks_for(results, *seeds), address, script=script) == 1
    out, error = capsys.readouterr()
    assert "5 runs to make, 0 done; a cluster of 2 machines with 2 CPUs, 1 CPU threads each" in out
    assert "FAILED demo/Joint/default/seed7: exit status 1\n" in error
    assert "    error: the seven is refused\n" in error
    assert f"    (log: {results / 'launch/demo-Joint-default-seed7.log'})" in error
    assert "FAILED demo/Joint/default/seed8: exit status 0, and no result.json\n" in error
    assert "s, then exit status 1)" in out and "3 done, 2 failed\n" in out
    log = (results / "launch/demo-Joint-default-seed12.log").read_text()
    assert log == "hello from seed 12 on cpu with 1\n"
    assert set(starts(results).values()) == {1}  # what failed is not tried again
    again = tasks_for(results, 6, 11, 12)
    assert launch(Reader(results), again, address, script=script) == 0
    assert "0 runs to make, 3 done" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_everything(tmp_path, script, address, number):
    hold(tmp_path, 21)  # beside 9, so that there is no place for the others
    process = start_launcher(tmp_path, script, 9, 21, 22, 23, address=address)
    child = started(tmp_path)
    in_the_middle(tmp_path, 21)
    process.send_signal(number)
    out, error = process.communicate(timeout=180)
    assert process.returncode == 128 + number, error
    assert (tmp_path / "stopped").read_text() == str(int(signal.SIGTERM))
    assert not alive(child)
    assert "stopped demo/Joint/default/seed9" in out
    assert "stopped demo/Joint/default/seed23" in out and "0 failed, " in out
    assert state(tmp_path, 22) == state(tmp_path, 23) == "new"


@pytest.mark.slow
def test_a_launcher_killed_in_the_middle_loses_and_repeats_nothing(tmp_path, script, address):
    seeds = range(20, 26)
    hold(tmp_path, 22)
    process = start_launcher(tmp_path, script, *seeds, address=address)
    in_the_middle(tmp_path, 22)
    wait_for(lambda: any(state(tmp_path, seed) == "done" for seed in seeds))
    process.kill()
    process.communicate(timeout=180)
    done = [seed for seed in seeds if state(tmp_path, seed) == "done"]
    assert 22 not in done
    let_go(tmp_path)
    again = start_launcher(tmp_path, script, *seeds, address=address)
    out, error = again.communicate(timeout=180)
    assert again.returncode == 0, error
    check_sweep(tmp_path, seeds, done)


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_own_run_alone(tmp_path, script, address):
    process = start_launcher(tmp_path, script, 9, 1, address=address)
    child = started(tmp_path)
    worker = int(open(f"/proc/{child}/stat").read().rpartition(")")[2].split()[1])
    os.kill(worker, signal.SIGKILL)
    out, error = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "FAILED demo/Joint/default/seed9: its worker died (" in error
    assert "    hello from seed 9 on cpu with 1\n" in error
    assert "1 done, 1 failed" in out
    wait_for(lambda: not alive(child))
    assert starts(tmp_path) == {9: 1, 1: 1}


@pytest.mark.slow
def test_a_run_that_another_launcher_is_at_is_waited_for(tmp_path, script, address):
    note, errors = (
        "note: demo/Joint/default/seed1 waits: another process is working on it\n",
        tmp_path / "err",
    )
    with open(errors, "w") as file, JOINT.folder(tmp_path, 1).lock():
        process = start_launcher(tmp_path, script, 1, 2, address=address, stderr=file)
        wait_for(lambda: state(tmp_path, 2) == "done" and errors.read_text() == note)
        assert process.poll() is None and state(tmp_path, 1) == "new"
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 0 and errors.read_text() == note
    assert "2 done, 0 failed" in out


def test_a_cluster_is_split_as_a_machine_is():
    cpus = [{"CPU": 8.0}, {"CPU": 4.0}]
    assert split(cpus, 0, None) == (0, 1)
    assert split(cpus, 0, 2) == (0, 4)  # not 6, of which there is room for one
    assert split(cpus, 0, 5) == (0, 2)
    assert split(cpus, 0, 1) == (0, 8)  # no more than a machine has
    assert split(cpus, 0, 50) == (0, 1)
    gpus = [{"CPU": 16.0, "GPU": 2.0}, {"CPU": 4.0, "GPU": 1.0}, {"CPU": 64.0}]
    assert split(gpus, 3, None) == (1, 4)
    assert split(gpus, 3, 2) == (1, 4)
    assert split(gpus, 3, 6) == (0.5, 2)
    assert split([{"GPU": 1.0}], 1, None) == (1, 0)


def test_an_address_without_a_cluster_is_refused(tmp_path, script):
    for address, words in (("127.0.0.1:1", "no cluster answers"), ("here", "takes HOST:PORT")):
        with pytest.raises(UsageError, match=words):
            launch(Reader(tmp_path), tasks_for(tmp_path, 1), address, script=script)
