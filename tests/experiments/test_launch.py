"""Child processes of a launch, local and on a Ray cluster: start, end, kills, reports."""

import os
import signal

import launch_stub as stub
import psutil
import pytest
from conftest import program
from fake_runs import fake_run
from launch_stub import hold, in_the_middle, make, start_launcher, started, state, wait_for

from common.options import UsageError
from common.program import cores, free_memory
from experiments.launch import on_ray
from experiments.launch.local import SPARE, LocalPool, pick_slots
from experiments.launch.sweep import Progress
from experiments.paper.illustration import JOINT
from experiments.report.reader import Reader

SEEDS = range(20, 26)


@pytest.fixture
def script(tmp_path):
    return stub.write_script(tmp_path)


@pytest.fixture(scope="module")
def cluster():
    """The address of a Ray cluster of two nodes with one CPU each."""
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=small | {"include_dashboard": False})
    cluster.add_node(**small)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def address(request):
    """Where the children run: "" for two slots on this machine, or the cluster."""
    return "" if request.param == "local" else request.getfixturevalue("cluster")


# --- on this machine and on a cluster alike -------------------------------------------------------


def test_runs_are_made_failures_collected_and_done_runs_skipped(tmp_path, script, address, capsys):
    results, seeds = tmp_path / "results", (7, 8, 6, 11, 12)  # the last two only finish together
    assert make(results, script, address, *seeds) == 1
    out, error = capsys.readouterr()
    threads = 1 if address else max(1, cores() // 2)
    where = "a cluster of 2 machines with 2 CPUs" if address else "devices cpu, 2 at a time"
    assert f"5 runs to make, 0 done; {where}, {threads} CPU threads each" in out
    assert "FAILED demo/Joint/default/seed7: exit status 1\n" in error
    assert "    error: the seven is refused\n" in error
    assert f"    (log: {results / 'launch/demo-Joint-default-seed7.log'})" in error
    assert "FAILED demo/Joint/default/seed8: exit status 0, but no result.json\n" in error
    assert "done demo/Joint/default/seed12 (" in out
    assert "s, then exit status 1)" in out and "3 done, 2 failed\n" in out  # a result counts
    assert "  4 of 5" in out and "  5 of 5\n" in out
    log = (results / "launch/demo-Joint-default-seed12.log").read_text()
    assert log == f"hello from seed 12 on cpu with {threads}\n"
    assert set(stub.starts(results).values()) == {1}  # failed runs are not retried
    assert make(results, script, address, 6, 11, 12) == 0
    assert "0 runs to make, 3 done" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_children_and_nothing_new_is_started(tmp_path, script, address, number):
    hold(tmp_path, 21)  # with 9, so that no slot is free for the others
    process = start_launcher(tmp_path, script, 9, 21, 22, 23, address=address)
    child = started(tmp_path)
    in_the_middle(tmp_path, 21)
    process.send_signal(number)
    out, error = process.communicate(timeout=180)
    assert process.returncode == 128 + number, error
    passed_on = signal.SIGTERM if address else number
    assert (tmp_path / "stopped").read_text() == str(int(passed_on)) and not stub.alive(child)
    assert "stopped demo/Joint/default/seed9" in out and "0 done, 0 failed, 4 left" in out
    assert "run the same command to continue" in error
    assert state(tmp_path, 22) == state(tmp_path, 23) == "new"


@pytest.mark.slow
def test_a_launcher_killed_in_the_middle_loses_and_repeats_nothing(tmp_path, script, address):
    hold(tmp_path, 22)
    process = start_launcher(tmp_path, script, *SEEDS, address=address)
    in_the_middle(tmp_path, 22)
    wait_for(lambda: any(state(tmp_path, seed) == "done" for seed in SEEDS))
    process.kill()
    done = [seed for seed in SEEDS if state(tmp_path, seed) == "done"]
    assert 22 not in done
    stub.let_go(tmp_path)
    again = start_launcher(tmp_path, script, *SEEDS, address=address)  # old children may still live
    out, error = again.communicate(timeout=180)
    process.communicate(timeout=180)
    assert again.returncode == 0, error
    stub.check_sweep(tmp_path, SEEDS, done)


def test_a_run_that_another_process_makes_is_waited_for(tmp_path, script, address):
    note = "note: demo/Joint/default/seed1 waits: another process is using it\n"
    errors = tmp_path / "errors"
    with open(errors, "w") as file, JOINT.folder(tmp_path, 1).lock():
        process = start_launcher(tmp_path, script, 1, 2, address=address, stderr=file)
        wait_for(lambda: state(tmp_path, 2) == "done" and errors.read_text() == note)
        assert process.poll() is None and state(tmp_path, 1) == "new"  # the others do not wait
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 0 and errors.read_text() == note and "2 done, 0 failed" in out


# --- on this machine ------------------------------------------------------------------------------


def test_an_unusable_folder_is_left_alone_and_reported(tmp_path, script, capsys):
    fake_run(tmp_path, JOINT, 1).file("result.json").write_text("{")
    assert make(tmp_path, script, "", 1) == 1
    command = JOINT.command(1, ["--results_dir", str(tmp_path), "--overwrite"])
    text = f"is unusable; this command replaces it:\n    {command}\n"
    assert text in capsys.readouterr().err


@pytest.mark.slow
def test_a_child_killed_in_the_middle_affects_no_others(tmp_path, script):
    hold(tmp_path, 21)
    process = start_launcher(tmp_path, script, *SEEDS)
    child = started(tmp_path, 21)
    in_the_middle(tmp_path, 21)
    os.kill(child, signal.SIGKILL)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 1 and "5 done, 1 failed" in out
    assert "seed21: exit status -9: killed, most often because memory ran out" in error
    stub.let_go(tmp_path)
    out, error = start_launcher(tmp_path, script, *SEEDS).communicate(timeout=120)
    assert "1 runs to make, 5 done" in out and "1 done, 0 failed" in out, error
    stub.check_sweep(tmp_path, SEEDS, [seed for seed in SEEDS if seed != 21])
    assert stub.starts(tmp_path)[21] == 2


def test_runs_that_do_not_fit_the_memory_take_turns(tmp_path, script, monkeypatch):
    assert 0 < free_memory() <= psutil.virtual_memory().total
    free = [SPARE - 1]
    monkeypatch.setattr("experiments.launch.local.free_memory", lambda: free[0])
    hold(tmp_path, 20, 21)
    pool, found = LocalPool(tmp_path, ["cpu", "cpu"], script), []
    for seed in (20, 21):
        assert not list(pool.ended()) and pool.most == 2  # one alone is never stopped
        pool.start(stub.tasks_for(tmp_path, seed)[0])
        in_the_middle(tmp_path, seed)
    wait_for(lambda: found.extend(pool.ended()) or found)
    ((task, why),) = found
    assert (task.seed, why) == (21, "memory is low, so at most 1 at a time from now on")
    assert not pool.has_room() and state(tmp_path, 21) == "partial"
    free[0] = SPARE + 1
    stub.let_go(tmp_path)
    wait_for(lambda: found.extend(pool.ended()) or len(found) == 2)
    assert found[1][1].done and pool.has_room()


def test_slots_and_the_shares_of_a_cluster():
    assert [pick_slots("cpu", 3), pick_slots("cpu", None)] == [["cpu"] * 3, ["cpu"] * cores()]
    assert [pick_slots("0,1", None), pick_slots("0,1", 3)] == [["0", "1"], ["0", "1", "0"]]
    for bad in ("gpu", "0,", "1,1", "cpu,0"):
        with pytest.raises(UsageError, match="--devices .*: give CUDA device numbers"):
            pick_slots(bad, None)
    cpus = [{"CPU": 8.0}, {"CPU": 4.0}]
    shares = {None: (0, 1), 2: (0, 4), 5: (0, 2), 1: (0, 8), 50: (0, 1)}  # jobs -> GPUs, CPUs
    assert {jobs: on_ray.split(cpus, 0, jobs) for jobs in shares} == shares
    gpus = [{"CPU": 16.0, "GPU": 2.0}, {"CPU": 4.0, "GPU": 1.0}, {"CPU": 64.0}]
    shares = {None: (1, 4), 2: (1, 4), 6: (0.5, 2)}
    assert {jobs: on_ray.split(gpus, 3, jobs) for jobs in shares} == shares
    assert on_ray.split([{"GPU": 1.0}], 1, None) == (1, 0)


# --- on a cluster ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_worker_that_dies_loses_only_its_run(tmp_path, script, cluster):
    process = start_launcher(tmp_path, script, 9, 1, address=cluster)
    child = started(tmp_path)
    psutil.Process(child).parent().kill()
    out, error = process.communicate(timeout=180)
    assert process.returncode == 1 and "1 done, 1 failed" in out
    assert "FAILED demo/Joint/default/seed9: its worker died (" in error
    assert "    hello from seed 9 on cpu with 1\n" in error
    wait_for(lambda: not stub.alive(child))
    assert stub.starts(tmp_path) == {9: 1, 1: 1}


# --- progress -------------------------------------------------------------------------------------


def test_progress_counts_epochs_of_all_runs(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("experiments.launch.sweep.time.monotonic", lambda: now[0])
    fake_run(tmp_path, JOINT, 1, done=False)  # 3 epochs
    first, second, third = stub.tasks_for(tmp_path, 1, 2, 3)
    progress = Progress(Reader(tmp_path), [first, second, third])
    assert (progress.count, progress.total, progress.remaining()) == (3, 90, None)
    fake_run(tmp_path, JOINT, 2, epochs=8, done=False)  # 7 epochs
    progress.update(second)
    now[0] += 14.0
    assert (progress.count, progress.total) == (10, 90)
    assert progress.remaining() == 160.0  # 7 epochs in 14 s, 80 to go
    progress.update(first, done=True)
    progress.update(third, done=False)
    assert (progress.count, progress.total) == (37, 60)
    fake_run(tmp_path, JOINT, 3, epochs=33)  # more than expected
    progress.update(third, done=True)
    assert (progress.count, progress.total) == (70, 93)


def test_the_launcher_imports_neither_torch_nor_ray():
    code = "import sys, experiments.__main__; assert not {'torch', 'ray'} & set(sys.modules)"
    assert program("-c", code).returncode == 0
