"""The devices of a run: one, or one for each of several processes that train it together.

`--devices 0,1` starts a process for each device. Under `torchrun` the processes exist already, on
one machine or on several that share the data and results folders. The process of rank 0 writes the
run's folder; the others only compute.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import IO, TYPE_CHECKING

from common.options import UsageError
from common.stop import GRACE_S, PARENT

if TYPE_CHECKING:
    import torch

    from models.ranks import Ranks

LOST = os.EX_SOFTWARE  # the exit status of a process that only lost its connection to another
LOOK_S = 0.2
# How long the others may take to end by themselves once one process has failed.
PATIENCE_S = 10.0


def device_names(devices: str) -> list[str]:
    """The devices in a `--devices` value: ["cpu"], ["0", "1"], or ["cpu", "cpu"] for a trial."""
    names = devices.split(",")
    distinct_numbers = all(map(str.isdecimal, names)) and len(set(names)) == len(names)
    if set(names) != {"cpu"} and not distinct_numbers:
        raise UsageError(
            f"--devices {devices!r}: give CUDA devices by number, such as 0 or 0,1, or cpu"
        )
    return names


def in_group() -> bool:
    """Whether this process is one of several that train together."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def reported(error: Exception) -> bool:
    """Whether `error` only says that another process ended, which `train_together` reports."""
    lost = any(words in str(error) for words in ("by peer", "Connection closed", "NCCL"))
    return lost and os.environ.get(PARENT) == str(os.getppid())


def train_together(names: list[str], command: list[str]) -> int:
    """Runs `command` (a script and its arguments) once per device; returns its exit status.

    Raises `UsageError` if a process other than the first fails alone.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    place |= {"WORLD_SIZE": str(len(names)), PARENT: str(os.getpid())}
    outputs: list[IO | None] = [None, *(tempfile.TemporaryFile() for _ in names[1:])]
    processes = []
    for rank, output in enumerate(outputs):
        env = os.environ | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        words = [sys.executable, *command]
        processes.append(subprocess.Popen(words, env=env, stdout=output, stderr=output))
    received: list[int] = []

    def forward(number: int, _: object) -> None:
        received.append(number)
        for process in processes:
            process.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, forward)
    failed, since = -1, 0.0  # the rank that failed first, and when that was seen
    while any(process.poll() is None for process in processes):
        time.sleep(LOOK_S)
        if failed < 0:
            ended = (rank for rank, process in enumerate(processes) if process.poll())
            failed, since = next(ended, -1), time.monotonic()
        elif time.monotonic() - since > (GRACE_S if received else PATIENCE_S):
            for process in processes:
                process.kill()
    if processes[0].returncode in (LOST, -signal.SIGKILL) and failed > 0 and not received:
        output = outputs[failed]
        output.seek(0)
        lines = output.read().decode(errors="replace").strip().splitlines() or ["no message"]
        status = processes[failed].returncode
        how = f"exit status {status}" if status > 0 else f"signal {-status}"
        fault = UsageError(
            f"the process on device {names[failed]} (rank {failed}) ended with {how}:"
            f" {lines[-1][:200]}. Run the same command to resume after the last epoch"
        )
        fault.exit_status = os.EX_IOERR
        raise fault
    return next((p.returncode for p in processes if p.returncode), 0)


def pick_device(name: str) -> torch.device:
    """The device of that name; notes on stderr if there is no CUDA device and the CPU is used."""
    import torch

    if name != "cpu" and not torch.cuda.is_available():
        print("note: no CUDA device found, using the CPU", file=sys.stderr)
        name = "cpu"
    if name == "cpu":
        return torch.device("cpu")
    last = torch.cuda.device_count() - 1
    if int(name) > last:
        raise UsageError(f"--devices {name}: no such device; use a number from 0 to {last}")
    return torch.device("cuda", int(name))


def single_device(devices: str) -> torch.device:
    """The device of a program that uses only one."""
    names = device_names(devices)
    if len(names) > 1:
        raise UsageError(f"--devices {devices}: only train.py uses several devices, give one")
    return pick_device(names[0])


def join(devices: str) -> tuple[torch.device, Ranks | None]:
    """This process's device and its place in the group, None if it trains alone.

    Under torchrun each process takes the CUDA device of its number on the machine (LOCAL_RANK),
    unless `devices` has one for each of them.
    """
    names = device_names(devices)
    if not in_group():
        return single_device(devices), None
    import torch

    from models.ranks import Ranks

    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    if len(names) == 1 and names != ["cpu"]:
        device = pick_device(str(local))
    elif local < len(names) or names == ["cpu"]:
        device = pick_device(names[local % len(names)])
    else:
        raise UsageError(f"--devices {devices} has no device for process {local} of this machine")
    if rank > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, the process writes nothing else there
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device, Ranks(device)
