"""What is installed: the pins, the lock, the package's metadata and the imports of prediction agree."""

import ast
import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def pins(file: str) -> dict[str, set[str]]:
    """The versions that a requirements file pins, by package; the lock may have one for each version of Python."""
    found: dict[str, set[str]] = {}
    for line in re.findall(r"^[A-Za-z0-9][^\\\n]*", (ROOT / file).read_text(), flags=re.MULTILINE):
        requirement = Requirement(line)
        (pin,) = requirement.specifier
        assert pin.operator == "==", line
        found.setdefault(canonicalize_name(requirement.name), set()).add(pin.version)
    return found


def package_ranges() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {canonicalize_name(parsed.name): parsed for parsed in map(Requirement, project["dependencies"])}


def test_the_package_asks_for_what_requirements_txt_pins_and_torch() -> None:
    ranges, pinned = package_ranges(), pins("requirements.txt")
    assert set(ranges) == {*pinned, "torch"}
    for name, versions in pinned.items():
        assert all(ranges[name].specifier.contains(version) for version in versions), name


def test_torch_is_the_same_release_everywhere_and_in_no_lock() -> None:
    makefile, dockerfile = (ROOT / "Makefile").read_text(), (ROOT / "Dockerfile").read_text()
    (installed,) = re.findall(r"torch==(\S+)", makefile)
    (base,) = re.findall(r"pytorch/pytorch:([\d.]+)-", dockerfile)
    (checked,) = re.findall(r"startswith\('([\d.]+)'\)", dockerfile)
    assert installed == base == checked
    assert package_ranges()["torch"].specifier.contains(installed)
    assert not {"torch", "torchvision"} & pins("requirements.lock").keys()


def test_the_lock_holds_every_requirement_and_each_with_hashes() -> None:
    locked = pins("requirements.lock")
    for file in ("requirements.txt", "requirements-dev.txt"):
        for name, versions in pins(file).items():
            assert versions <= locked[name], f"{name}: run make lock"
    text = (ROOT / "requirements.lock").read_text()
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(entries) == sum(map(len, locked.values()))
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry) for entry in entries)


def test_the_lock_of_napari_replaces_nothing_of_the_other() -> None:
    locked, napari = pins("requirements.lock"), pins("requirements-napari.lock")
    for file in ("requirements.txt", "requirements-napari.txt"):
        for name, versions in pins(file).items():
            assert versions <= napari[name], f"{name}: run make lock"
    assert {name: napari[name] for name in napari.keys() & locked} == {
        name: locked[name] for name in napari.keys() & locked
    }
    assert "torch" not in napari
    text = (ROOT / "requirements-napari.lock").read_text()
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry) for entry in entries)


def imported_packages(*paths: Path) -> set[str]:
    """Packages, other than Python's own, that modules import at any place."""
    imported: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module or "")
    packages = {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names)
    return {canonicalize_name(name) for name in packages}


def test_prediction_imports_what_it_requires_and_nothing_else() -> None:
    widget = ROOT / "model" / "napari_widget.py"
    used_by_tifffile = {"imagecodecs"}
    modules = set((ROOT / "model").rglob("*.py")) - {widget}
    assert imported_packages(*modules) | used_by_tifffile == set(package_ranges())
    assert imported_packages(widget) == {"napari", "magicgui"}  # magicgui comes with napari
    assert not any("napari_widget" in path.read_text() for path in modules), "only napari imports it, by the manifest"
