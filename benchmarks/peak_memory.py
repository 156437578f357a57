"""Peak memory of a process, without that of its parent: Linux counts what a parent held before `exec` to its child."""

import subprocess
import sys
from pathlib import Path

_LAUNCHER = """
import resource, subprocess, sys, time
began = time.monotonic()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(code, time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6)
"""


def peak_gb() -> float:
    """The largest memory that this process has had so far, in GB (Linux only)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e6


def run(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak memory (GB) of a command, started by a small process; SystemExit where it fails."""
    launched = subprocess.run([sys.executable, "-I", "-c", _LAUNCHER, *command], stdout=subprocess.PIPE, check=True)
    code, seconds, gigabytes = map(float, launched.stdout.split())
    if code:
        raise SystemExit(f"error: {' '.join(command)} failed")
    return seconds, gigabytes
