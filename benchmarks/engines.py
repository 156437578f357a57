"""One batch by each way to divide it: does it end, with the same bytes, where a worker is killed or an image kills?

The bytes of a prediction depend on the number of threads on a CPU, so each way is compared with a single process of as
many. Slurm's rows need a cluster; ``python test/slurm_cluster.py python -m benchmarks.engines`` brings one of one node.
"""

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from model.images import write_plane

ROOT = Path(__file__).resolve().parents[1]
SIDE = 512
POISON, KILLED = "killer", "once"
"""Images that kill the process that reads them, always or one time; see test/deadly."""

Engine = Callable[[Path, dict[str, str]], None]


def inference(folder: Path, *options: str) -> list[str]:
    script = ROOT / ("distribute.py" if "--workers" in options else "inference.py")
    return [sys.executable, str(script), "--input", str(folder / "in"), "--output", str(folder / "out"), *options]


def processes(count: int, threads: int) -> Engine:
    """So many processes with a shard each; one that is killed is started again."""

    def run(folder: Path, environment: dict[str, str]) -> None:
        environment = environment | {"OMP_NUM_THREADS": str(threads)}
        shards = [inference(folder, "--shard", f"{number}/{count}") for number in range(1, count + 1)]
        running = [(command, start(command, environment, folder)) for command in shards]
        while running:
            command, process = running.pop(0)
            if process.wait() == -signal.SIGKILL:
                running.append((command, start(command, environment, folder)))

    return run


def dask(*options: str) -> Engine:
    def run(folder: Path, environment: dict[str, str]) -> None:
        start(inference(folder, *options), environment, folder).wait()

    return run


def slurm_array(folder: Path, environment: dict[str, str]) -> None:
    """The script of docs/cluster.md, with Python in place of Apptainer."""
    (script,) = re.findall(r"```bash\n(#!.*?)```", (ROOT / "docs/cluster.md").read_text(), flags=re.DOTALL)
    names = [path.name for path in (folder / "in").iterdir()]
    (folder / "images.txt").write_text("\n".join(names))
    (folder / "images").symlink_to("in")
    (folder / "predictions").symlink_to("out")
    python = shlex.join([sys.executable, str(ROOT / "inference.py")])
    (folder / "job.sh").write_text(re.sub(r"apptainer .*?inference\.py", python, script))

    def call(*command: str) -> str:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    call("sbatch", "--array=1-2", "--cpus-per-task=1", "--mem=2G", "job.sh")
    while tasks := call("squeue", "--me", "--noheader", "--array", "--format=%A %i %r").splitlines():
        for task in tasks:
            if task.endswith("BeginTime"):  # Slurm waits two minutes; a start in the second of the end would fail
                time.sleep(2)
                call("scontrol", "update", f"JobId={task.split()[1]}", "StartTime=now")
        time.sleep(0.2)


def start(command: Sequence[str], environment: dict[str, str], folder: Path) -> "subprocess.Popen[bytes]":
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)


JOBS = ("--slurm", "--workers", "2", "--cpus", "1", "--memory", "2GB")
ENGINES: dict[str, tuple[int, Engine]] = {
    "single process, 2 threads": (2, processes(1, 2)),
    "single process, 1 thread": (1, processes(1, 1)),
    "`--shard`, 2 processes": (1, processes(2, 1)),
    "Dask, 1 worker": (2, dask("--workers", "1", "--cpus", "2")),
    "Dask, 2 workers": (1, dask("--workers", "2", "--cpus", "1")),
    "Slurm array, 2 tasks": (1, slurm_array),
    "Dask on Slurm, 2 jobs": (1, dask(*JOBS)),
}
"""Threads of each process, and how to run it."""


def predicted(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in (folder / "out").rglob("*.tiff")}


def run(engine: Engine, count: int, special: str | None, scratch: Path) -> tuple[dict[str, bytes], float, str]:
    """Predict a batch; what came out, seconds, and all logs."""
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        (folder / "in").mkdir()
        (folder / "out").mkdir()
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 65536, (SIDE, SIDE), dtype=np.uint16)
            title = special if special and number == count // 2 else f"{number:03d}"
            write_plane(folder / f"in/{title}.tiff", pixels, channel="BF", pixel_size_um=(0.1, 0.1))
        begun = time.perf_counter()
        engine(folder, os.environ | {"PYTHONPATH": str(ROOT / "test/deadly")})
        seconds = time.perf_counter() - begun
        logs = "".join(path.read_text() for path in [*folder.glob("*.log"), folder / "log"] if path.exists())
        return predicted(folder), seconds, logs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=48)
    options = parser.parse_args()
    print("| engine | done | identical | a worker killed | an image that kills | seconds | images a second |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        expected: dict[int, dict[str, bytes]] = {}
        for title, (threads, engine) in ENGINES.items():
            if "Slurm" in title and "SLURM_CONF" not in os.environ:
                continue
            plain, seconds, _ = run(engine, options.images, None, Path(scratch))
            expected.setdefault(threads, plain)  # the first of each number is the single process
            killed, _, _ = run(engine, options.images, KILLED, Path(scratch))
            poisoned, _, logs = run(engine, options.images, POISON, Path(scratch))
            named = f"{POISON}.tiff: 2 runs ended while they predicted it" in logs
            others = len(poisoned) == 4 * (options.images - 1)
            print(
                f"| {title} | {len(plain) // 4} of {options.images} | {yes(plain == expected[threads])} "
                f"| {yes(len(killed) == 4 * options.images)} | {yes(named and others)} "
                f"| {seconds:.1f} | {options.images / seconds:.1f} |",
                flush=True,
            )


def yes(value: bool) -> str:
    return "yes" if value else "**no**"


if __name__ == "__main__":
    main()
