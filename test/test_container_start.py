"""What ends a container at its start, in both modes: wrong folders at /opt/ml/model, and signals."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from containers import EXEC, INVOKE, ROOT, Dish
from test_inference import write_image
from test_signals import handles

pytestmark = pytest.mark.container


@pytest.fixture(params=[EXEC, INVOKE], ids=["exec", "invoke"])
def either(dish: Dish, request: pytest.FixtureRequest) -> Dish:
    write_image(dish.input / "a.tiff")
    dish.image = request.param
    return dish


def put_weights(folder: Path) -> Path:
    shutil.copytree(ROOT / "resources", folder, dirs_exist_ok=True)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    return folder


def in_a_sub_folder(model: Path) -> str:
    put_weights(model / "weights")
    return "found weights/routing.json, expected an empty folder, or routing.json beside its checkpoints."


def in_a_sub_folder_of_a_sub_folder(model: Path) -> str:
    put_weights(model / "model" / "weights")
    return "found model/weights/routing.json, expected an empty folder, or routing.json beside its checkpoints."


def only_weights(model: Path) -> str:
    (put_weights(model) / "routing.json").unlink()
    first = ", ".join(sorted(path.name for path in model.iterdir())[:3])
    return f"found {first} …, expected an empty folder, or "


def a_folder_without_permission_to_list(model: Path) -> str:
    put_weights(model).chmod(0o700)
    return "/opt/ml/model: it cannot be listed (Permission denied), expected an empty folder, or routing.json "


def a_folder_without_permission_to_enter(model: Path) -> str:
    put_weights(model).chmod(0o744)
    return "/opt/ml/model/routing.json cannot be read: Permission denied."


def a_routing_without_permission(model: Path) -> str:
    (put_weights(model) / "routing.json").chmod(0o600)
    return "/opt/ml/model/routing.json cannot be read: Permission denied."


def weights_without_permission(model: Path) -> str:
    (put_weights(model) / "pix2pix_pc.safetensors").chmod(0o600)
    return "/opt/ml/model/pix2pix_pc.safetensors"


def weights_that_are_missing(model: Path) -> str:
    (put_weights(model) / "pix2pix_pc.safetensors").unlink()
    return "/opt/ml/model/pix2pix_pc.safetensors is missing"


def another_program_s_weights(model: Path) -> str:
    (model / "best.ckpt").write_bytes(b"weights")
    return "/opt/ml/model: found best.ckpt, expected an empty folder, or routing.json beside its checkpoints."


@pytest.mark.parametrize(
    "wrong",
    [
        in_a_sub_folder,
        in_a_sub_folder_of_a_sub_folder,
        only_weights,
        a_folder_without_permission_to_list,
        a_folder_without_permission_to_enter,
        a_routing_without_permission,
        weights_without_permission,
        weights_that_are_missing,
        another_program_s_weights,
    ],
)
def test_a_wrong_model_folder_is_refused_by_name(either: Dish, wrong: Callable[[Path], str]) -> None:
    sentence = wrong(either.model)
    done = either.run()
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("/opt/ml/model") and sentence in line
    assert either.written() == []


@pytest.mark.parametrize("name", ["TERM", "INT"])
@pytest.mark.parametrize("delay_s", [0, 0.2])
def test_a_signal_before_imports_are_done_ends_it(either: Dish, name: str, delay_s: float) -> None:
    with either.start() as container:
        while not handles(container.process(), 15):  # before that, Python itself has not begun
            assert container.is_running()
        time.sleep(delay_s)
        container.signal(name)
        assert container.exit_code() == 130
        assert container.logs().stderr == "Interrupted; nothing was begun.\n"
    assert either.written() == []
