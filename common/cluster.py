"""A Ray cluster, for whatever hands its units of work to one: `--ray ADDRESS`.

The project, the files it works on and the environment of Python must stand under the same paths on
all machines (a shared file system). Ray is imported here alone, and only on use.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.options import UsageError


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray's module while this process is a driver of the cluster at `address`.

    Raises `UsageError` without Ray, and where no cluster answers.
    """
    try:
        import ray
    except ImportError:
        raise UsageError("--ray needs: pip install -r requirements-cluster.txt") from None
    _reach(address)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    project = str(Path(__file__).resolve().parent.parent)
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"env_vars": {"PYTHONPATH": project}},
        )
    except (ConnectionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--ray {address}: no cluster answers ({reason})") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Ray itself tries for minutes to reach an address at which nobody listens."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        if address in ("auto", "local"):
            return
        raise UsageError(f"--ray takes HOST:PORT, auto or local, not {address!r}")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise UsageError(f"--ray {address}: no cluster answers ({error})") from None
