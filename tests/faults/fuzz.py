"""Fuzzes every file reader: each input must end in a result or in a named error.

    python tests/faults/fuzz.py --executions 2000000 --media 50000 --jobs 2

Named errors are `UsageError`, `Reject` and the pickle reader's `Refused`, with a message of one
short printable line. Anything else is a finding: another exception, a crash, more than
`MOST_MEMORY` beyond what is loaded, or more than `MOST_SECONDS`. Its input is kept in the folder
--keep, and the exit status is 1. Input n of a target depends only on its seeds, n and --seed.
"""

import argparse
import functools
import hashlib
import os
import random
import re
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "faults")]

import fuzz_media  # noqa: E402
import fuzz_stored  # noqa: E402
import fuzz_targets  # noqa: E402

from common.options import UsageError  # noqa: E402
from data_prep.modalities.unpickle_child import Refused  # noqa: E402
from data_prep.pool import DONE, Pool  # noqa: E402
from data_prep.reasons import Reject  # noqa: E402
from data_prep.sample import single_threaded  # noqa: E402

TARGETS = fuzz_targets.TARGETS | fuzz_stored.TARGETS | fuzz_media.TARGETS
FRAGILE = {"fragile": fuzz_targets.FRAGILE}  # tests the fuzzer itself
NAMED = (UsageError, Reject, Refused)
MOST_MEMORY = 1 << 30  # bytes
MOST_SECONDS = 10.0  # of CPU time, for one input
PATIENCE = 120.0  # s of wall time after which the process of a batch is killed
BATCH = 50  # inputs that a process gets at a time

# Inputs -------------------------------------------------------------------------------------------

MOST = 1 << 16  # largest input in bytes, unless its seed is larger
WORD = re.compile(rb'[\w."+-]+')
TOKENS = (
    b'"', b"'", b",", b";", b"\t", b"&", b":", b"\\", b"/", b"../", b"[", b"]", b"{", b"}", b"(",
    b"\0", b"\0\0\0\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0",
    b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
    b"\r", b"\n", b"\r\n", b"\r\r\n", b"\n\n", "\u2028".encode(), "\x85".encode(), b"\x1b[31m",
    "\u202e".encode(), "\u0130".encode(), "\u0660".encode(), "\u00b2".encode(), b"\\ud800",
    b"\\u0000", b"\\n", b"1e999", b"-1e999", b"-1", b"0", b"1", b"2.5", b"1e3", b"9" * 400,
    b"9" * 5000, b"4294967296", b"18446744073709551616", b"1" + b"0" * 101, b"null", b"true",
    b"false", b"NaN", b"Infinity", b"-Infinity", b"{}", b"[]", b'""', b'" "', b'"a"', b'{"a":1}',
    b"[" * 3000, b'{"a":' * 3000, b"(" * 300, b'["a",' * 500, b"x" * 300, b"=cmd|", b"%00", b" ",
    b"file://", b"version https://git-lfs", b"moov", b"mdat", b"RIFF", b"PK\x03\x04", b"\x89PNG",
    b"\x93NUMPY", b"\x80\x04", b"cnumpy\nndarray\n", b"cos\nsystem\n", b"R", b"b", b".",
)  # fmt: skip
Draw = random.Random


def number_like(draw: Draw, size: int) -> bytes:
    """An integer of this many bytes, from values that often break programs."""
    value = draw.choice((0, 1, -1, 1 << 31, 1 << 63, draw.getrandbits(64))) % (1 << 8 * size)
    return value.to_bytes(size, draw.choice(("little", "big")))


# Replacements for some bytes.
CHANGES: tuple[Callable[[Draw, bytes, list[bytes]], bytes], ...] = (
    lambda draw, old, seeds: bytes(b ^ 1 << draw.randrange(8) for b in old[:1]) + old[1:],
    lambda draw, old, seeds: number_like(draw, len(old)),
    lambda draw, old, seeds: draw.choice(TOKENS),
    lambda draw, old, seeds: draw.choice(TOKENS),
    lambda draw, old, seeds: draw.choice(TOKENS) + old,
    lambda draw, old, seeds: b"",
    lambda draw, old, seeds: bytes(len(old)),
    lambda draw, old, seeds: old * draw.choice((2, 2, 3, 30)),
    lambda draw, old, seeds: draw.randbytes(len(old)),
    lambda draw, old, seeds: old.replace(b"\n", draw.choice((b"\r\n", b"\r", b"\n\n", b"\0\n"))),
    lambda draw, old, seeds: draw.choice(seeds)[draw.randrange(1 << 10) :],
)  # fmt: skip


def place(draw: Draw, data: bytes) -> tuple[int, int]:
    """The range to change in an input: bytes, a word, lines, or everything from a point on."""
    start, kind = draw.randrange(len(data) + 1), draw.randrange(10)
    if kind < 5:
        return start, start + draw.choice((1, 1, 2, 4, 8, 16, 64, 512))
    if kind < 8:
        word = WORD.search(data, start)
        return word.span() if word else (start, start + 1)
    end = data.find(b"\n", start) + 1 or len(data)
    return data.rfind(b"\n", 0, start) + 1, end if kind == 8 else len(data)


def input_of(target: str, seeds: list[bytes], number: int, seed: int) -> bytes:
    """Input `number` of a target: its seeds themselves come first, then damaged ones."""
    if number < len(seeds):
        return seeds[number]
    draw = Draw(f"{seed}/{target}/{number}")
    data = draw.choice(seeds)
    most = max(MOST, len(data))
    for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 4, 6))):
        start, end = place(draw, data)
        change = draw.choice(CHANGES)(draw, data[start:end], seeds)
        data = (data[:start] + change + data[end:])[:most]
    if draw.random() < 0.01:
        data = data.decode("utf-8", "replace").encode(draw.choice(("utf-16", "utf-16-be")))
    return data


# One process --------------------------------------------------------------------------------------


def outcome(read: fuzz_targets.Read, data: bytes) -> tuple[str, str]:
    """("result", ""), ("error", its text), or the name of any other exception and its traceback."""
    try:
        read(data)
        return "result", ""
    except NAMED as error:
        text = error.detail if isinstance(error, Reject) else str(error)
        try:
            fuzz_targets.check_message(text)
        except fuzz_targets.BadMessage as bad:
            last = traceback.extract_tb(error.__traceback__)[-1]
            return f"BadMessage {last.filename}:{last.lineno}", f"{bad}\n{traceback.format_exc()}"
        return "error", text
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if str(ROOT) in f.filename and ".venv" not in f.filename]
        where = f"{ours[-1].filename}:{ours[-1].lineno}" if ours else ""
        return f"{type(error).__name__} {where}", traceback.format_exc()


def peak() -> int:
    """The largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@functools.cache
def begin(name: str, folder: Path) -> tuple[list[bytes], fuzz_targets.Read, int]:
    """Seeds and reader of this process's target, and its memory before the first input.

    Limits the address space to `MOST_MEMORY` above what is mapped, or to twice that for decoders,
    which reserve more than they fill; what they fill is measured.
    """
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    target = (TARGETS | FRAGILE)[name]
    seeds = [path.read_bytes() for path in sorted((folder / "seeds").iterdir())]
    read = target.reader(Path(tempfile.mkdtemp(dir=folder)))
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = mapped + MOST_MEMORY * (2 if target.media else 1)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return seeds, read, peak()


def work(name: str, folder: Path, seed: int, batch: range) -> tuple[Counter, float, int, list]:
    """(counts, slowest in seconds, memory in bytes, findings) of some inputs."""
    seeds, read, first = begin(name, folder)
    counts, slowest, findings, before = Counter(), 0.0, [], peak()
    for number in batch:
        data, begun = input_of(name, seeds, number, seed), time.process_time()
        what, text = outcome(read, data)
        taken, now = time.process_time() - begun, peak()
        if taken > MOST_SECONDS:
            what, text = "Slow", f"{taken:.1f} s"
        if now - before > MOST_MEMORY:
            what, text = "Memory", f"{(now - before) >> 20} MiB"
        before, slowest = now, max(slowest, taken)
        if what in ("result", "error"):
            counts[what] += 1
        else:
            findings.append((number, what, text))
    return counts, slowest, before - first, findings


# All of them --------------------------------------------------------------------------------------


def shares(names: Sequence[str], executions: int, media: int) -> dict[str, int]:
    """The executions of each target, by its weight among targets of its kind."""
    found, targets = {}, TARGETS | FRAGILE
    for name in names:
        kind = targets[name].media
        whole = sum(targets[n].weight for n in names if targets[n].media == kind)
        found[name] = round((media if kind else executions) * targets[name].weight / whole)
    return found


def make_seeds(name: str, folder: Path) -> list[bytes]:
    """Writes the valid inputs of a target, in a separate process."""
    (folder / "making").mkdir()
    (folder / "seeds").mkdir()
    seeds = (TARGETS | FRAGILE)[name].seeds(folder / "making")
    for k, data in enumerate(seeds):
        (folder / "seeds" / f"{k:03d}").write_bytes(data)
    return seeds


def fuzz(name: str, count: int, seed: int, jobs: int, folder: Path, kept: Path) -> int:
    """Runs a target, prints a line of figures and keeps findings; returns their number.

    If the process of a batch crashes or hangs, the batch is repeated one input at a time.
    """
    preload = ["fuzz", "data_prep.modalities.sound", "data_prep.modalities.flow"]
    options: dict[str, Any] = {"limit_s": PATIENCE, "prepare": single_threaded, "preload": preload}
    with Pool(functools.partial(make_seeds, name), 1, **options) as pool:
        ((state, seeds),) = pool.map([folder])
    assert state == DONE, seeds
    counts, slowest, memory, findings = Counter(), 0.0, 0, []
    with Pool(functools.partial(work, name, folder, seed), jobs, **options) as pool:
        batches = [range(k, min(k + BATCH, count)) for k in range(0, count, BATCH)]
        while batches:
            again = []
            for batch, (state, result) in zip(batches, pool.map(batches)):
                if state == DONE:
                    counts += result[0]
                    slowest, memory = max(slowest, result[1]), max(memory, result[2])
                    findings += result[3]
                elif len(batch) > 1:
                    again += [range(k, k + 1) for k in batch]
                else:
                    findings.append((batch[0], f"Crash or hang: {result}", ""))
            batches = again
    for number, what, text in findings:
        kind = hashlib.sha256(f"{name} {what}".encode()).hexdigest()[:8]
        path = kept / f"{name}-{kind}"
        if not Path(f"{path}.bin").exists():  # one of each kind
            about = f"{what}\ninput {number}, seed {seed}\n{text}"
            Path(f"{path}.txt").write_text(about, encoding="utf-8", errors="replace")
            Path(f"{path}.bin").write_bytes(input_of(name, seeds, number, seed))
    print(
        f"{name:18}{count:10}{counts['result']:10}{counts['error']:10}{len(findings):9}"
        f"{slowest:11.2f}{memory / 1e6:9.0f}",
        flush=True,
    )
    return len(findings)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the fuzzer; the exit status is 1 if there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--executions", type=int, default=200_000, help="of all except media")
    parser.add_argument("--media", type=int, default=5_000, help="executions of decoders")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--only", action="append", choices=sorted(TARGETS | FRAGILE))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir(), "fuzz-kept"))
    args = parser.parse_args(argv)
    args.keep.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:3])  # of the fork server
    memory, begun, unnamed = Path("/dev/shm"), time.monotonic(), 0
    counts = shares(args.only or list(TARGETS), args.executions, args.media)
    print(f"{'target':18}executions   results    errors  unnamed  slowest s  peak MB")
    for name, count in counts.items():
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
            if count:
                unnamed += fuzz(name, count, args.seed, args.jobs, Path(folder), args.keep)
    where = f", see {args.keep}" if unnamed else ""
    print(f"{time.monotonic() - begun:.0f} s; {unnamed} unnamed{where}")
    return 1 if unnamed else 0


if __name__ == "__main__":
    # By its module name, since worker processes import it by that.
    import fuzz as program

    sys.exit(program.main())
