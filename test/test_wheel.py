"""The wheel: installed beside an unrelated package `model`, it predicts what the checkout predicts."""

import importlib
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import model

ROOT = Path(__file__).resolve().parents[1]
CODE = """
import sys
from in_silico_labelling import Modality, Organelle, Predictor, read_image, write_plane
import model
assert model.OTHER == "unrelated"
image = read_image(sys.argv[1])
assert image.info.modality is Modality.BF
with Predictor.open() as predictor:
    predictions = predictor.predict(image.pixels, image.info.modality, pixel_size_um=image.info.pixel_size_um)
for organelle, pixels in predictions.items():
    write_plane(sys.argv[2] + f"/{organelle}.tiff", pixels, channel=organelle.label, pixel_size_um=None)
"""


def test_every_public_name_can_be_imported_and_is_documented() -> None:
    assert {"Modality", "Organelle", "Predictor", "read_image", "inspect", "UserError"} <= set(model.__all__)
    for name in model.__all__:
        value = getattr(model, name)
        assert name in dir(model)
        assert isinstance(value, str | dict) or value.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        importlib.import_module("model").Nonsense  # noqa: B018


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what the package needs, so that nothing is left in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("model", "resources"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path_factory.mktemp("wheel")
    # Without isolation: the build needs setuptools alone, which is in the lock.
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_the_checkpoints(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "in_silico_labelling",
        f"in_silico_labelling-{model.__version__}.dist-info",
    }
    shipped = {path.name for path in (ROOT / "resources").iterdir()}
    assert {name.split("/")[-1] for name in names if "/resources/" in name} == shipped
    modules = {path.relative_to(ROOT / "model").as_posix() for path in (ROOT / "model").rglob("*.py")}
    assert {name.removeprefix("in_silico_labelling/") for name in names if name.endswith(".py")} == modules
    assert "in_silico_labelling/py.typed" in names
    assert {"in_silico_labelling/preview/page.html", "in_silico_labelling/preview/page.js"} <= set(names)


@pytest.mark.slow
def test_the_installed_package_predicts_as_the_checkout_does(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    libraries = next(environment.glob("lib/python*/site-packages"))
    # torch and the like come from the environment of this test: they are 200 MB, and not what is tested here.
    (libraries / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "model").mkdir(parents=True)
    (elsewhere / "model" / "__init__.py").write_text('OTHER = "unrelated"\n')
    (elsewhere / "out").mkdir()
    images = ROOT / "test" / "input"
    image = next(images.rglob("image_*_BF_*.ome.tiff"))

    def run(*command: object) -> None:
        subprocess.run([str(part) for part in command], cwd=elsewhere, check=True, capture_output=True)

    run(python, "-c", CODE, image, elsewhere / "out")
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    shutil.copy(image, inputs)
    run(environment / "bin" / "in-silico-labelling", "--input", inputs, "--output", elsewhere / "command")
    run(sys.executable, ROOT / "inference.py", "--input", inputs, "--output", elsewhere / "checkout")
    for organelle in model.Organelle:
        below = Path("images") / f"{organelle}-fluorescence-ome-tiff"
        (path,) = (elsewhere / "command" / below).iterdir()
        assert path.read_bytes() == (elsewhere / "checkout" / below / path.name).read_bytes()
        from_python = model.read_image(elsewhere / "out" / f"{organelle}.tiff").pixels
        assert (from_python == model.read_image(path).pixels).all()
