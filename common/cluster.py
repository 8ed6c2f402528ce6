"""A connection to a Ray cluster, for `--ray ADDRESS`.

The project, its data and the Python environment must have the same paths on all machines (a shared
file system). Ray is imported only here, and only when used.
"""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.options import UsageError


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray, connected to the cluster at `address`; raises `UsageError` if none answers."""
    try:
        import ray
    except ImportError:
        raise UsageError("--ray needs: pip install -r requirements-cluster.txt") from None
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    project = {"env_vars": {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}}
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdigit():  # fail fast: ray.init would retry for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        elif address not in ("auto", "local"):
            raise UsageError(f"--ray takes HOST:PORT, auto or local, not {address!r}")
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=project)
    except UsageError:
        raise
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--ray {address}: no cluster answers ({reason})") from None
    try:
        yield ray
    finally:
        ray.shutdown()
