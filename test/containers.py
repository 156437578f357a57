"""Containers under the platform's restrictions, for the tests marked `container`; the images are made by ./build.sh."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXEC, INVOKE = "in-silico-labelling:latest", "in-silico-labelling:invoke"
FAST = ("--overlap", "0", "--rotations", "1")
SOMEBODY, IMAGES_OWN_USER = "12345:12345", "user"


def docker(*arguments: str, timeout_s: float = 300) -> str:
    """Standard output of a docker command that succeeds."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def restrictions() -> list[str]:
    script = 'source container/common.sh; printf "%s\\n" "${RESTRICTIONS[@]}"'
    return subprocess.run(["bash", "-c", script], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()


def base_image() -> str:
    """The name of the image that the project's layers were put on."""
    (default,) = (
        line.partition("=")[2]
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("ARG BASE_IMAGE=")
    )
    return os.environ.get("BASE_IMAGE", default)


class Dish:
    """The folders of a container, and how it is run: the image, the options of inference.py, and the user."""

    def __init__(self, folder: Path) -> None:
        self.image, self.options, self.user = EXEC, FAST, SOMEBODY
        self.input, self.output, self.model = folder / "in", folder / "out", folder / "model"
        for made in (self.input, self.output, self.model):
            made.mkdir()
        self.output.chmod(0o777)

    def command(self, *flags: str) -> list[str]:
        """The command after ``docker``; `flags` are those of ``docker run``."""
        volumes = {"/input": f"{self.input}:/input:ro", "/opt/ml/model": f"{self.model}:/opt/ml/model:ro"}
        volumes["/output"] = f"{self.output}:/output"
        given = [f"--volume={volume}" for place, volume in volumes.items() if not any(place in flag for flag in flags)]
        return ["run", *restrictions(), *given, f"--user={self.user}", *flags, self.image, *self.options]

    def run(self, *flags: str) -> subprocess.CompletedProcess[str]:
        command = ["docker", *self.command("--rm", *flags)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    @contextmanager
    def start(self, *flags: str) -> Iterator["Container"]:
        container = Container(docker(*self.command("--detach", *flags)))
        try:
            yield container
        finally:
            container.remove()

    def written(self) -> list[Path]:
        return sorted(path for path in self.output.rglob("*") if path.is_file())


class Container:
    """A container that was started; `ask` is for one in invoke mode."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._client = ""

    def ask(self, method: str, path: str, body_bytes: int = 0, timeout_s: float = 300) -> tuple[int, str]:
        """Status and sentence of a request from another container on the same, otherwise closed, network."""
        if not self._client:
            flags = ("--detach", "--rm", "--network", f"container:{self.name}", "--entrypoint", "sleep")
            self._client = docker("run", *flags, EXEC, "infinity")
        code = (
            "import http.client, sys\n"
            "method, path, body, timeout = sys.argv[1:]\n"
            "connection = http.client.HTTPConnection('127.0.0.1', 4743, timeout=float(timeout))\n"
            "connection.request(method, path, body=b'x' * int(body) or None)\n"
            "answer = connection.getresponse()\n"
            "print(answer.status, answer.read().decode())"
        )
        answer = docker("exec", self._client, "python3", "-c", code, method, path, str(body_bytes), str(timeout_s))
        status, _, sentence = answer.partition(" ")
        return int(status), sentence

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 120
        while "Ready for cases" not in self.logs().stdout:
            assert self.is_running() and time.monotonic() < deadline, self.logs()
            time.sleep(0.1)

    def is_running(self) -> bool:
        return docker("inspect", "--format", "{{.State.Running}}", self.name) == "true"

    def process(self) -> int:
        """The container's first process, as this machine numbers it."""
        return int(docker("inspect", "--format", "{{.State.Pid}}", self.name))

    def signal(self, name: str) -> None:
        docker("kill", "--signal", name, self.name)

    def exit_code(self) -> int:
        """Wait for the end; Docker says 137 for what it had to kill."""
        return int(docker("wait", self.name))

    def logs(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["docker", "logs", self.name], capture_output=True, text=True, check=True)

    def remove(self) -> None:
        for name in filter(None, (self._client, self.name)):
            subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True)
