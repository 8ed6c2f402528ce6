"""Stops a run on a signal: between two steps, or within a minute during a long step."""

import ctypes
import functools
import os
import signal
import socket
import threading
import time
from typing import Any

from common.options import UsageError

GRACE_S = 45.0  # for the current step: longer than any GPU step, less than the documented minute
PARENT = "LAUNCHED_BY"  # the environment variable that holds the launcher's process id


class Stop:
    """Turns SIGINT and SIGTERM into a `UsageError` between two steps, with status 130 or 143.

    If the step takes longer than `GRACE_S`, the process exits. Nothing more is lost: in either case
    the run resumes from its last finished epoch.
    """

    def __init__(self) -> None:
        self.number = 0
        _watch_signals()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, _: Any) -> None:
        self.number = number

    def check(self) -> None:
        """Raises the error if a signal has arrived."""
        if self.number:
            stopped = UsageError("stopped; run the same command to resume after the last epoch")
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
        text = b"stopped during a step; run the same command to resume after the last epoch\n"
        os.write(2, text)
        os._exit(128 + number)

    threading.Thread(target=end_late, daemon=True).start()
    return reader, writer


def follow_launcher() -> None:
    """Has the kernel send SIGTERM to this process when its launcher ends."""
    launcher = os.environ.get(PARENT, "")
    if launcher.isdecimal():
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG of linux/prctl.h
        if os.getppid() != int(launcher):  # it had already ended
            signal.raise_signal(signal.SIGTERM)
