"""The platform's invoke mode: what is answered to whom, and that no case takes the server down."""

import http.client
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_inference import FAST, ROOT, expected, write_image

import inference
import serve
from model import predictor as predictor_module
from model.predictor import Predictor
from model.settings import InferenceSettings

SOCKET = "images/organelles-transmitted-light-ome-tiff"


@pytest.fixture
def service(tmp_path: Path, resources: Path) -> Iterator[serve.Service]:
    given = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--resources", str(resources)]
    inference.log_to_standard_streams()
    with Predictor.open(resources, device="cpu", settings=InferenceSettings(overlap=0, rotations=1)) as predictor:
        yield serve.Service(predictor, inference.parse([*given, *FAST]))


def ask(service: serve.Service, method: str, path: str) -> tuple[int, str]:
    answers: list[str] = []
    body = service({"REQUEST_METHOD": method, "PATH_INFO": path}, lambda status, headers: answers.append(status))
    return int(answers[0].split()[0]), b"".join(body).decode().rstrip("\n")


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*") if path.is_file())


def test_health_and_unknown_paths(service: serve.Service) -> None:
    assert ask(service, "GET", "/health")[0] == 200
    assert ask(service, "GET", "/invoke")[0] == 404
    assert ask(service, "POST", "/health")[0] == 404


def test_case_after_case(tmp_path: Path, service: serve.Service) -> None:
    for name, channel in (("0b5c", "BF"), ("77aa", "DIC")):
        image = write_image(tmp_path / "in" / SOCKET / f"{name}.tiff", channel=channel)
        assert ask(service, "POST", "/invoke")[0] == 201
        image.unlink()
    assert written(tmp_path) == expected("0b5c.tiff", "77aa.tiff")


def test_a_failing_case_is_500_and_its_sentence_and_the_next_is_predicted(
    tmp_path: Path, service: serve.Service, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(service, "POST", "/invoke") == (500, f"{tmp_path}/in: found nothing, expected the input folder.")
    image = tmp_path / "in" / SOCKET / "a.tiff"
    image.parent.mkdir(parents=True)
    image.touch()
    status, sentence = ask(service, "POST", "/invoke")
    assert status == 500 and "a.tiff: found an empty file" in sentence and "\n" not in sentence
    assert "Traceback" not in capsys.readouterr().err
    write_image(image)
    assert ask(service, "POST", "/invoke")[0] == 201


def test_a_fault_of_ours_does_not_end_the_server(
    tmp_path: Path, service: serve.Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "in" / SOCKET / "a.tiff")

    def fails(*arguments: object, **options: object) -> None:
        raise RuntimeError("a fault\nof ours")

    monkeypatch.setattr(Predictor, "forward", fails)
    status, sentence = ask(service, "POST", "/invoke")
    assert status == 500 and sentence.endswith("unexpected RuntimeError: a fault of ours")
    monkeypatch.undo()
    assert ask(service, "POST", "/invoke")[0] == 201


def test_networks_are_loaded_once_and_before_the_first_case(
    tmp_path: Path, service: serve.Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    load = predictor_module.load
    monkeypatch.setattr(
        predictor_module, "load", lambda path, **options: (loaded.append(path), load(path, **options))[1]
    )
    service.predictor.load_networks()
    assert len(loaded) == 4
    for channel in ("BF", "PC", "DIC"):
        write_image(tmp_path / "in" / SOCKET / "a.tiff", channel=channel)
        assert ask(service, "POST", "/invoke")[0] == 201
    assert len(loaded) == 4


def test_the_server_itself(tmp_path: Path, resources: Path) -> None:
    write_image(tmp_path / "in" / SOCKET / "a.tiff")
    command = [sys.executable, str(ROOT / "serve.py"), "--input", str(tmp_path / "in"), "--output"]
    command += [str(tmp_path / "out"), "--resources", str(resources), *FAST]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:

        def request(method: str, path: str) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", serve.PORT, timeout=60)
            connection.request(method, path)
            return connection.getresponse().status

        deadline = time.monotonic() + 60
        while True:
            try:
                assert request("GET", "/health") == 200
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, server.communicate()
                time.sleep(0.1)
        assert request("POST", "/invoke") == 201
        assert written(tmp_path) == expected("a.tiff")
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=20)
        assert (server.returncode, errors) == (0, "")
    finally:
        server.kill()


def test_resources_that_cannot_be_used_end_it_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.run(["--resources", str(tmp_path)]) == 2
    assert "routing.json is missing" in capsys.readouterr().err
