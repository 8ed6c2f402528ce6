"""How a run ends when it is told to: between two steps, and within a minute even in a long one."""

import functools
import os
import signal
import socket
import threading
import time
from typing import Any

import psutil

from common.options import UsageError

GRACE_S = (
    45.0  # for the step at work; longer than any on a GPU, and less than the minute we promise
)
LOOK_S = 2.0
PARENT = "LAUNCHED_BY"  # the environment variable by which a launcher tells its process id


class Stopped(UsageError):
    """Ctrl-C or SIGTERM: the run goes on from its last checkpoint when it is started again."""

    prefix = ""

    def __init__(self, number: int):
        super().__init__("stopped; the same command goes on from the last finished epoch")
        self.exit_status = 128 + number


class Stop:
    """Turns SIGINT and SIGTERM into a `Stopped` between two steps.

    A step that takes minutes is not waited for: after `GRACE_S` the process ends at once, which
    costs nothing more, since a run goes on from its last finished epoch in either case. The clock
    is a thread's own, woken by the signal itself: Python's handler waits for the main thread.
    """

    def __init__(self) -> None:
        self.number = 0
        _watch_signals()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, _: Any) -> None:
        self.number = number

    def check(self) -> None:
        """Raises `Stopped` once a signal has come."""
        if self.number:
            raise Stopped(self.number)


@functools.cache
def _watch_signals() -> tuple[socket.socket, socket.socket]:
    """Starts the thread that is woken by signals, once; the sockets live as long as the process."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_end_late, args=(reader,), daemon=True).start()
    return reader, writer


def _end_late(reader: socket.socket) -> None:
    number = 0
    while number not in (signal.SIGINT, signal.SIGTERM):
        number = reader.recv(1)[0]
    time.sleep(GRACE_S)
    os.write(2, b"stopped within a step; the same command goes on from the last finished epoch\n")
    os._exit(128 + number)


def follow_launcher() -> None:
    """Ends this process as SIGTERM does once the launcher that started it is gone.

    A launcher that is killed cannot tell its children, and a run that nobody sees would hold the
    memory and the devices that the next launch counts on.
    """
    launcher = os.environ.get(PARENT, "")
    if launcher.isdecimal():
        threading.Thread(target=_follow, args=(int(launcher),), daemon=True).start()


def _follow(launcher: int) -> None:
    while psutil.pid_exists(launcher) and os.getppid() == launcher:
        time.sleep(LOOK_S)
    signal.raise_signal(signal.SIGTERM)
