"""How a run stops: between two steps, or within a minute in the middle of a long one."""

import ctypes
import functools
import os
import signal
import socket
import threading
import time
from typing import Any

from common.options import UsageError

GRACE_S = 45.0  # for the current step; longer than any on a GPU, less than the promised minute
PARENT = "LAUNCHED_BY"  # the environment variable that holds the launcher's process id


class Stop:
    """Turns SIGINT and SIGTERM into a `UsageError` between two steps, with status 130 or 143.

    If the step takes longer than `GRACE_S`, the process ends at once, which loses nothing more: in
    either case the run goes on from its last finished epoch.
    """

    def __init__(self) -> None:
        self.number = 0
        _watch_signals()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, _: Any) -> None:
        self.number = number

    def check(self) -> None:
        """Raises the error once a signal has come."""
        if self.number:
            stopped = UsageError("stopped; the same command goes on from the last finished epoch")
            stopped.prefix, stopped.exit_status = "", 128 + self.number
            raise stopped


@functools.cache
def _watch_signals() -> tuple[socket.socket, socket.socket]:
    """Starts the thread that ends the process `GRACE_S` after a signal; returns its sockets."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

    def end_late() -> None:
        number = 0
        while number not in (signal.SIGINT, signal.SIGTERM):
            number = reader.recv(1)[0]
        time.sleep(GRACE_S)
        text = b"stopped within a step; the same command goes on from the last finished epoch\n"
        os.write(2, text)
        os._exit(128 + number)

    threading.Thread(target=end_late, daemon=True).start()
    return reader, writer


def follow_launcher() -> None:
    """Has SIGTERM sent to this process when its launcher ends: nobody else would stop it."""
    launcher = os.environ.get(PARENT, "")
    if launcher.isdecimal():
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG of linux/prctl.h
        if os.getppid() != int(launcher):  # it ended before that
            signal.raise_signal(signal.SIGTERM)
