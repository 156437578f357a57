import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.errors import UserError
from model.labels import Modality, Organelle
from model.routing import Route, Routing, resources_folder


def document() -> dict[str, Any]:
    routes = {modality: {o: f"pix2pix/{o}" for o in Organelle} for modality in ("BF", "PC", "DIC")}
    routes["DIC"][Organelle.ACTIN] = "unified/actin"
    routes["unknown"] = {o: f"unified/{o}" for o in Organelle}
    files = {name: {"file": f"{name}.safetensors", "sha256": "ab" * 32} for name in ("pix2pix", "unified")}
    return {"format": 1, "checkpoints": files, "routes": routes}


def write(folder: Path, content: Any) -> Path:
    for name in ("pix2pix", "unified"):
        (folder / f"{name}.safetensors").touch()
    (folder / "routing.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_reads_what_the_paper_does(tmp_path: Path) -> None:
    routing = Routing.read(write(tmp_path, document()))
    assert routing.routes[Modality.DIC][Organelle.ACTIN] == (Route("unified", Organelle.ACTIN),)
    assert routing.routes[Modality.BF][Organelle.ACTIN] == (Route("pix2pix", Organelle.ACTIN),)
    assert routing.routes[None][Organelle.NUCLEUS] == (Route("unified", Organelle.NUCLEUS),)
    assert routing.checkpoints["pix2pix"].path == tmp_path / "pix2pix.safetensors"
    assert all(set(ways) == set(Organelle) for ways in routing.routes.values())


def low(content: dict[str, Any]) -> dict[str, Any]:
    content["low_magnification"] = {"from_um": 0.2, "routes": document()["routes"]}
    inner: dict[str, Any] = content["low_magnification"]
    return inner


def test_low_magnification_has_its_own_routes(tmp_path: Path) -> None:
    content = document()
    low(content)["routes"]["PC"]["nucleus"] = "unified/actin"
    routing = Routing.read(write(tmp_path, content))
    for size, head in (((0.1, 0.1), "nucleus"), ((0.1, 0.5), "nucleus"), ((0.2, 0.2), "actin"), (None, "actin")):
        assert [route.head for route in routing.choose(Modality.PC, size)[Organelle.NUCLEUS]] == [head]
    (route,) = Routing.read(write(tmp_path, document())).choose(Modality.PC, None)[Organelle.NUCLEUS]
    assert route.head == "nucleus"


def test_a_list_is_an_ensemble_and_is_written_as_it_was_read(tmp_path: Path) -> None:
    content = document()
    content["routes"]["BF"]["nucleus"] = ["pix2pix/nucleus", "unified/actin"]
    low(content)
    routing = Routing.read(write(tmp_path, content))
    expected = (Route("pix2pix", Organelle.NUCLEUS), Route("unified", Organelle.ACTIN))
    assert routing.routes[Modality.BF][Organelle.NUCLEUS] == expected
    routing.write(tmp_path)
    assert json.loads((tmp_path / "routing.json").read_text()) == content
    assert Routing.read(tmp_path) == routing


def test_images_of_unknown_modality_may_have_no_routes(tmp_path: Path) -> None:
    content = document()
    del low(content)["routes"]["unknown"], content["routes"]["unknown"]
    routing = Routing.read(write(tmp_path, content))
    assert set(routing.routes) == set(Modality) and routing.low_magnification is not None
    assert set(routing.low_magnification.routes) == set(Modality)


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "format": (lambda d: d.update(format=2), "format 2, expected 1"),
    "root key": (lambda d: d.update(extra=1), "extra"),
    "no routes": (lambda d: d.pop("routes"), "expected checkpoints, format, routes"),
    "list": (lambda d: d.update(routes=[]), "a list as routes, expected a JSON object"),
    "no modality": (lambda d: d["routes"].pop("PC"), "BF, DIC, unknown in routes"),
    "no organelle": (lambda d: d["routes"]["PC"].pop("actin"), "routes.PC, expected actin"),
    "misspelt": (lambda d: d["routes"]["PC"].update(actine="x"), "actine"),
    "no head": (lambda d: d["routes"]["PC"].update(actin="pix2pix"), "expected 'checkpoint/organelle'"),
    "bad head": (
        lambda d: d["routes"]["PC"].update(actin="pix2pix/golgi"),
        "expected 'checkpoint/organelle'",
    ),
    "number": (lambda d: d["routes"]["PC"].update(actin=3), "expected 'checkpoint/organelle'"),
    "empty ensemble": (lambda d: d["routes"]["PC"].update(actin=[]), "each checkpoint of an ensemble once"),
    "twice": (lambda d: d["routes"]["PC"].update(actin=["unified/actin", "unified/nucleus"]), "of an ensemble once"),
    "ensemble of ensembles": (
        lambda d: d["routes"]["PC"].update(actin=[["unified/actin"]]),
        "expected 'checkpoint/organelle'",
    ),
    "unknown name": (
        lambda d: d["routes"]["PC"].update(actin="foo/actin"),
        "expected one of pix2pix, unified",
    ),
    "outside": (lambda d: d["checkpoints"]["pix2pix"].update(file="../a"), "plain name of a file beside it"),
    "dots": (lambda d: d["checkpoints"]["pix2pix"].update(file=".."), "plain name of a file beside it"),
    "hash": (lambda d: d["checkpoints"]["pix2pix"].update(sha256="ab"), "64 lower-case hexadecimal"),
    "missing": (lambda d: d["checkpoints"]["pix2pix"].update(file="gone"), "gone is missing"),
    "slash": (lambda d: d["checkpoints"].update({"a/b": d["checkpoints"]["pix2pix"]}), "without '/'"),
    "low routes": (lambda d: low(d).pop("routes"), "from_um in low_magnification, expected from_um, routes"),
    "low from": (lambda d: low(d).update(from_um="0.2"), "low_magnification.from_um = '0.2', expected a pixel size"),
    "low unknown": (
        lambda d: low(d)["routes"].pop("unknown"),
        "BF, DIC, PC in low_magnification.routes, expected BF, DIC, PC, unknown",
    ),
    "low zero": (lambda d: low(d).update(from_um=0), "low_magnification.from_um = 0, expected a pixel size"),
    "low head": (lambda d: low(d)["routes"]["PC"].update(actin=3), "low_magnification.routes.PC.actin = 3"),
    "unused": (lambda d: d["checkpoints"].update(spare=d["checkpoints"]["pix2pix"]), "no route uses: spare"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(tmp_path: Path, fault: str) -> None:
    content = document()
    spoil, words = FAULTS[fault]
    spoil(content)
    with pytest.raises(UserError) as caught:
        Routing.read(write(tmp_path, content))
    message = str(caught.value)
    assert words in message
    assert str(tmp_path) in message and "\n" not in message


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", "\xff"])
def test_no_json_object(tmp_path: Path, content: str) -> None:
    with pytest.raises(UserError, match=r"routing\.json"):
        Routing.read(write(tmp_path, content))


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "routing.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not valid JSON"):
        Routing.read(tmp_path)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing"):
        Routing.read(tmp_path / "nowhere")


def test_the_model_volume_wins_where_it_holds_a_routing(tmp_path: Path) -> None:
    volume, default = tmp_path / "volume", tmp_path / "default"
    assert resources_folder(default, volume) == default
    volume.mkdir()
    for clutter in ("lost+found", "__MACOSX"):
        (volume / clutter).mkdir()
    (volume / ".DS_Store").touch()
    assert resources_folder(default, volume) == default
    write(volume, document())
    assert resources_folder(default, volume) == volume


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["pix2pix.safetensors"], "found pix2pix.safetensors, expected"),
        (["my_resources/routing.json", "my_resources/a.safetensors"], "found my_resources/routing.json, expected"),
        (["home/me/my_resources/routing.json"], "found home/me/my_resources/routing.json, expected"),
        (["Routing.json", "a", "b", "c"], "found Routing.json, a, b …, expected"),
    ],
)
def test_a_model_volume_without_routing_is_refused(tmp_path: Path, files: list[str], found: str) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(UserError) as caught:
        resources_folder(Path("default"), tmp_path)
    expected = "expected an empty folder, or routing.json beside its checkpoints."
    assert str(caught.value).startswith(f"{tmp_path}: {found}") and str(caught.value).endswith(expected)


def test_a_model_volume_that_cannot_be_listed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: it cannot be listed \(Not a directory\)"):
        resources_folder(Path("default"), tmp_path / "file")
