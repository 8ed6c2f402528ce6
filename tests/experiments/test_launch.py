"""How the children of a launch start and end, what is reported, and what a kill leaves to do."""

import os
import pty
import signal
import termios

import psutil
import pytest
from conftest import program
from fake_runs import fake_run
from launch_stub import (
    alive,
    check_sweep,
    epochs,
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
from common.program import cores, free_memory
from experiments.launch.local import SPARE, LocalPool, launch, pick_slots
from experiments.launch.sweep import Progress
from experiments.paper.illustration import JOINT
from experiments.report.reader import Reader


@pytest.fixture
def script(tmp_path):
    return write_script(tmp_path)


def test_runs_are_made_and_their_output_is_kept(tmp_path, script, capsys):
    results = tmp_path / "results"
    assert launch(Reader(results), tasks_for(results, 1, 2), ["cpu", "cpu"], script) == 0
    out = capsys.readouterr().out
    threads = max(1, cores() // 2)
    assert f"2 runs to make, 0 done; devices cpu, 2 at a time, {threads} CPU threads each" in out
    assert "done demo/Joint/default/seed1 (" in out and "2 done, 0 failed\n" in out
    log = (results / "launch/demo-Joint-default-seed2.log").read_text()
    assert log == f"hello from seed 2 on cpu with {threads}\n"


def test_a_failing_child_is_reported_and_the_others_go_on(tmp_path, script, capsys):
    results = tmp_path / "results"
    assert launch(Reader(results), tasks_for(results, 7, 8, 1), ["cpu"], script) == 1
    out, error = capsys.readouterr()
    assert "FAILED demo/Joint/default/seed7: exit status 1\n" in error
    assert "    error: the seven is refused\n" in error
    assert f"    (log: {results / 'launch/demo-Joint-default-seed7.log'})" in error
    assert "FAILED demo/Joint/default/seed8: exit status 0, and no result.json\n" in error
    assert "1 done, 2 failed\n" in out


def test_a_result_counts_whatever_came_after_it(tmp_path, script, capsys):
    assert launch(Reader(tmp_path), tasks_for(tmp_path, 6), ["cpu"], script) == 0
    assert "s, then exit status 1)" in capsys.readouterr().out


def test_done_runs_are_skipped(tmp_path, script, capsys):
    fake_run(tmp_path, JOINT, 1)
    assert launch(Reader(tmp_path), tasks_for(tmp_path, 1), ["cpu"], script) == 0
    assert "0 runs to make, 1 done" in capsys.readouterr().out
    assert not (tmp_path / "launch").exists()


def test_an_unusable_folder_is_left_alone_and_reported(tmp_path, script, capsys):
    fake_run(tmp_path, JOINT, 1).file("result.json").write_text("{")
    assert launch(Reader(tmp_path), tasks_for(tmp_path, 1), ["cpu"], script) == 1
    error = capsys.readouterr().err
    command = JOINT.command(1, ["--results_dir", str(tmp_path), "--overwrite"])
    assert f"cannot be used; this gives it up and starts anew:\n    {command}\n" in error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_nothing_new_is_started(tmp_path, script, number):
    process = start_launcher(tmp_path, script, 9, 1)
    child = started(tmp_path)
    process.send_signal(number)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert (tmp_path / "stopped").read_text() == str(int(number))
    assert not alive(child)
    assert "stopped demo/Joint/default/seed9" in out and "0 done, 0 failed, 2 left" in out
    assert "the same command goes on from there" in error
    assert not JOINT.folder(tmp_path, 1).path.exists()


def test_children_end_when_the_launcher_is_killed(tmp_path, script):
    process = start_launcher(tmp_path, script, 9)
    child = started(tmp_path)
    process.kill()
    process.communicate(timeout=120)
    wait_for(lambda: not alive(child))
    assert (tmp_path / "stopped").read_text() == str(int(signal.SIGTERM))


def test_a_run_that_another_launcher_is_at_is_waited_for(tmp_path, script):
    with JOINT.folder(tmp_path, 1).lock():
        process = start_launcher(tmp_path, script, 1, 2)
        wait_for(lambda: state(tmp_path, 2) == "done")  # the rest is not held up
        assert process.poll() is None and state(tmp_path, 1) == "new"
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0
    assert error.count("demo/Joint/default/seed1 waits: another process is working on it") == 1
    assert "2 done, 0 failed" in out


def test_runs_that_do_not_fit_the_memory_take_turns(tmp_path, script, monkeypatch, capsys):
    free = [SPARE - 1]
    monkeypatch.setattr("experiments.launch.local.free_memory", lambda: free[0])
    hold(tmp_path, 20, 21)
    pool = LocalPool(tmp_path, ["cpu", "cpu"], script)
    pool.start(tasks_for(tmp_path, 20)[0])
    in_the_middle(tmp_path, 20)
    assert not list(pool.ended()) and not pool.put_off  # one alone is never stopped
    pool.start(tasks_for(tmp_path, 21)[0])
    in_the_middle(tmp_path, 21)
    found = []
    wait_for(lambda: found.extend(pool.ended()) or found)
    ((task, why),) = found
    assert (task.seed, why) == (21, "memory is short, so at most 1 at a time from now on")
    assert not pool.has_room() and state(tmp_path, 21) == "partial"
    free[0] = SPARE + 1
    let_go(tmp_path)
    wait_for(lambda: found.extend(pool.ended()) or len(found) == 2)
    assert found[1][1].done and pool.has_room()


def test_free_memory_is_no_more_than_the_machine_has():
    assert 0 < free_memory() <= psutil.virtual_memory().total


def test_slots():
    assert pick_slots("cpu", 3) == ["cpu"] * 3
    assert pick_slots("cpu", None) == ["cpu"] * cores()
    assert pick_slots("0,1", None) == ["0", "1"]
    assert pick_slots("0,1", 3) == ["0", "1", "0"]
    for bad in ("gpu", "0,", "1,1", "cpu,0"):
        with pytest.raises(UsageError, match="--devices .*: give CUDA devices by number"):
            pick_slots(bad, None)


# --- kills in the middle --------------------------------------------------------------------------

SEEDS = range(20, 26)


def test_a_launcher_killed_in_the_middle_loses_and_repeats_nothing(tmp_path, script):
    hold(tmp_path, 22)
    process = start_launcher(tmp_path, script, *SEEDS)
    in_the_middle(tmp_path, 22)
    process.kill()
    done = [seed for seed in SEEDS if state(tmp_path, seed) == "done"]
    assert done and 22 not in done
    let_go(tmp_path)
    again = start_launcher(tmp_path, script, *SEEDS)  # its predecessor's children may still live
    out, error = again.communicate(timeout=120)
    process.communicate(timeout=120)
    assert again.returncode == 0, error
    check_sweep(tmp_path, SEEDS, done)
    third, _ = start_launcher(tmp_path, script, *SEEDS).communicate(timeout=120)
    assert "0 runs to make, 6 done" in third


def test_a_child_killed_in_the_middle_costs_itself_alone(tmp_path, script):
    hold(tmp_path, 21)
    process = start_launcher(tmp_path, script, *SEEDS)
    child = started(tmp_path, 21)
    in_the_middle(tmp_path, 21)
    os.kill(child, signal.SIGKILL)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "5 done, 1 failed" in out
    assert "seed21: exit status -9: killed, most often by the system for want of memory" in error
    assert epochs(tmp_path, 21) == [1, 2]
    let_go(tmp_path)
    done = [seed for seed in SEEDS if seed != 21]
    out, error = start_launcher(tmp_path, script, *SEEDS).communicate(timeout=120)
    assert "1 runs to make, 5 done" in out and "1 done, 0 failed" in out, error
    check_sweep(tmp_path, SEEDS, done)
    assert starts(tmp_path)[21] == 2


# --- progress -------------------------------------------------------------------------------------


def test_progress_counts_epochs_of_all_runs(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("experiments.launch.sweep.time.monotonic", lambda: now[0])
    fake_run(tmp_path, JOINT, 1, done=False)  # 3 epochs
    first, second, third = tasks_for(tmp_path, 1, 2, 3)
    progress = Progress(Reader(tmp_path), [first, second, third])
    assert (progress.count, progress.total, progress.remaining()) == (3, 90, None)
    fake_run(tmp_path, JOINT, 2, epochs=8, done=False)  # 7 epochs
    progress.update(second)
    now[0] += 14.0
    assert (progress.count, progress.total) == (10, 90)
    assert progress.remaining() == 160.0  # 7 epochs in 14 s, 80 to go
    progress.end(first, done=True)
    progress.end(third, done=False)
    assert (progress.count, progress.total) == (37, 60)


def test_more_epochs_than_foreseen_make_the_whole_longer(tmp_path):
    (task,) = tasks_for(tmp_path, 1)
    progress = Progress(Reader(tmp_path), [task])
    fake_run(tmp_path, JOINT, 1, epochs=33)
    progress.end(task, done=True)
    assert (progress.count, progress.total) == (33, 33)


def test_a_terminal_sees_a_bar_over_all_runs(tmp_path, script):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    process = start_launcher(tmp_path, script, 20, 21, stderr=theirs)
    os.close(theirs)
    text = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # how Linux tells that the other side is closed
            break
        if not part:
            break
        text += part
    out, _ = process.communicate(timeout=120)
    os.close(ours)
    assert process.returncode == 0
    assert b"0 of 2 runs:" in text and b"2 of 2 runs: 100%" in text and b"60/60" in text
    assert "1 of 2, about" in out and "left\n" in out


def test_the_launcher_does_without_torch_and_ray():
    code = "import sys, experiments.__main__; assert not {'torch', 'ray'} & set(sys.modules)"
    assert program("-c", code).returncode == 0
