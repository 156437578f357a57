"""The preview: what its page says and links to, and how it behaves in a real browser, from the disk."""

import base64
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from test_inference import Run, write_image

from model.errors import UserError
from model.labels import Organelle
from model.preview import LAYER_BYTES, THUMBNAIL_BYTES, PreviewImage, PreviewWriter

HOSTILE = '</script><img src=x onerror="document.title=1"> & \'100%\' #1 "µ"'


def preview_image(title: str, disagreement: float, side: int = 300, **changes: Any) -> PreviewImage:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 65535, (side, side)).astype(np.uint16)
    squares = {}
    for number, organelle in enumerate(Organelle):  # each organelle lights up a quarter of its own
        plane = np.zeros((side, side), np.uint16)
        half = side // 2
        plane[half * (number // 2) :, half * (number % 2) :][:half, :half] = 60000
        squares[organelle] = plane
    values: dict[str, Any] = {
        "title": title,
        "input": noise,
        "organelles": squares,
        "pixel_size_um": (0.2, 0.2),
        "metadata": {"modality": "BF", "trained on": "simulated cells"},
        "warnings": ["its contrast is low"] if disagreement > 0.5 else [],
        "outputs": {},
        "disagreement": dict.fromkeys(Organelle, disagreement),
    }
    return PreviewImage(**(values | changes))


def entries(page: Path) -> list[dict[str, Any]]:
    text = page.read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])  # type: ignore[no-any-return]


def test_pictures_weigh_little_even_of_noise(tmp_path: Path) -> None:
    writer = PreviewWriter(tmp_path)
    noise = np.random.default_rng(0).integers(0, 65535, (2000, 1500)).astype(np.uint16)
    writer.add(preview_image("noise", 0, input=noise, organelles=dict.fromkeys(Organelle, noise)))
    writer.close()
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "pictures").iterdir()}
    assert len(sizes) == 6 and sum(sizes.values()) <= 300_000
    assert all(size <= (THUMBNAIL_BYTES if "thumbnail" in name else LAYER_BYTES) for name, size in sizes.items())


def test_a_layer_shows_its_organelle(tmp_path: Path) -> None:
    writer = PreviewWriter(tmp_path)
    image = preview_image("a", 0)
    writer.add(image)
    (entry,) = entries(writer.close())
    for layer, organelle in zip(entry["layers"][1:], Organelle, strict=True):
        assert layer["name"] == organelle.label
        shown = imagecodecs.jpeg8_decode((tmp_path / layer["picture"]).read_bytes()).astype(float)
        assert np.abs(shown - (image.organelles[organelle] > 0) * 255).mean() < 4
    composite = np.asarray(Image.open(tmp_path / entry["thumbnail"]), float)
    quarters = [composite[y : y + 60, x : x + 60].mean((0, 1)) for y in (30, 160) for x in (30, 160)]
    assert len({tuple((quarter / 64).round()) for quarter in quarters}) == 4  # four colours


def test_nothing_in_a_name_acts(tmp_path: Path) -> None:
    output = tmp_path / "images/a #1 100% <b>.tiff"
    output.parent.mkdir()
    output.write_bytes(b"")
    writer = PreviewWriter(tmp_path / "preview")
    writer.add(preview_image(HOSTILE, 0, outputs={HOSTILE: output}, metadata={HOSTILE: HOSTILE}, warnings=[HOSTILE]))
    page = writer.close()
    assert page.read_text().count("<script") == 2 and "<img src=x" not in page.read_text()
    (entry,) = entries(page)
    assert entry["title"] == HOSTILE and entry["warnings"] == [HOSTILE]
    ((label, link),) = entry["files"]
    assert label == HOSTILE and (page.parent / unquote(link)).resolve() == output


def test_the_page_allows_only_its_own_script(tmp_path: Path) -> None:
    text = PreviewWriter(tmp_path).close().read_text()
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text


def test_pictures_of_an_earlier_run_are_removed_and_nothing_else(tmp_path: Path) -> None:
    def pictures() -> set[str]:
        return {path.name for path in (tmp_path / "pictures").iterdir()}

    def shown() -> set[str]:
        return {Path(e["thumbnail"]).name for e in entries(tmp_path / "index.html")}

    (first := PreviewWriter(tmp_path)).add(preview_image("a", 0))
    first.close()
    before = {path.name: path.read_bytes() for path in (tmp_path / "pictures").iterdir()}
    (tmp_path / "pictures/notes.txt").write_text("mine")
    (left := PreviewWriter(tmp_path)).add(preview_image("b", 0, side=200))  # and interrupted
    assert all((tmp_path / "pictures" / name).read_bytes() == content for name, content in before.items())
    (second := PreviewWriter(tmp_path)).add(preview_image("c", 0))
    second.close()
    assert not pictures() & before.keys() and shown() < pictures() and "notes.txt" in pictures()
    for path in (tmp_path / "pictures").iterdir():
        os.utime(path, (0, 0))
    (third := PreviewWriter(tmp_path)).add(preview_image("d", 0))
    third.close()
    assert left._run not in " ".join(pictures()) and len(pictures()) == 7 and "notes.txt" in pictures()


def test_a_preview_that_fails_costs_no_prediction(
    tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise UserError("a.jpg: it cannot be written (no space left on the disk).")

    monkeypatch.setattr(PreviewWriter, "add", full)
    for name in "ab":
        write_image(tmp_path / f"in/{name}.tiff")
    run = Run(tmp_path, resources, capsys, "--preview")
    assert run.code == 1
    assert run.stderr == ["a.jpg: it cannot be written (no space left on the disk). The preview is left out."]
    assert run.stdout[-1].startswith("2 images predicted, in ")
    assert not (tmp_path / "out/preview/index.html").exists()


@pytest.mark.parametrize("options", [(), ("--layout", "merged"), ("--format", "zarr")])
def test_of_a_folder(
    tmp_path: Path, resources: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    write_image(tmp_path / "in/sub/a.ome.tiff")
    write_image(tmp_path / "in/b.tiff", channel="who knows", pixel_size_um=None)
    (tmp_path / "in/c.tiff").write_bytes(b"no image")
    for _ in range(2):  # predicted, and already predicted
        run = Run(tmp_path, resources, capsys, "--preview", "--rotations", "2", *options)
        assert run.code == 1
        page = tmp_path / "out/preview/index.html"
        assert any(str(page) in line for line in run.stdout)
        b, a = entries(page)
        assert (a["title"], b["title"]) == ("sub/a", "b")
        assert dict(a["metadata"])["trained on"] == "nothing at all" and dict(a["metadata"])["modality"] == "BF"
        assert a["pixel_size_um"] == 0.1 and b["pixel_size_um"] is None
        assert len(a["disagreement"]) == 4 and all(value > 0 for _, value in a["disagreement"])
        assert "nothing tells whether this is BF, PC or DIC" in b["warnings"][0]
        for _, link in a["files"]:
            assert (page.parent / unquote(link)).exists()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    writer = PreviewWriter(folder / "preview")
    for title, disagreement in (("first", 0.1), (HOSTILE, 0.9), ("third", 0.3)):
        writer.add(preview_image(title, disagreement))
    return writer.close()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", f"user-data-dir={tmp_path / 'profile'}", "window-size=1280,900",
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    try:
        yield driver
        assert driver.get_log("browser") == []  # no error, no refused source
        for entry in driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                assert re.match(r"file:///.*/preview/|data:|about:|chrome(-untrusted)?:", url)
    finally:
        driver.quit()


def opened(browser: webdriver.Chrome, page: Path, number: int | None = None) -> None:
    browser.get(page.as_uri() + ("" if number is None else f"#{number}"))
    pictures = ".card img" if number is None else "#picture img"
    loaded = "return [...document.querySelectorAll(arguments[0])].every(image => image.complete && image.naturalWidth)"
    WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(loaded, pictures))


def colours(browser: webdriver.Chrome) -> list[np.ndarray]:
    """Mean colour of the four quarters of the picture as it is on the screen."""
    shown = np.asarray(Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB"), float)
    place = "const r = document.getElementById('picture').getBoundingClientRect(); return [r.y, r.x, r.height, r.width]"
    y, x, height, width = (round(value) for value in browser.execute_script(place))
    shown = shown[y : y + height, x : x + width]
    height, width = shown.shape[:2]
    starts = [(height * y // 8, width * x // 8) for y in (1, 5) for x in (1, 5)]
    return [shown[y : y + height // 4, x : x + width // 4].mean((0, 1)) for y, x in starts]


def slide(browser: webdriver.Chrome, label: str, value: int) -> None:
    slider = browser.find_element(By.CSS_SELECTOR, f'input[aria-label="{label}"]')
    change = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))"
    browser.execute_script(change, slider, value)


@pytest.mark.slow
def test_layers_switch_and_sliders_act(browser: webdriver.Chrome, page: Path) -> None:
    opened(browser, page, 1)
    browser.find_element(By.ID, "layer-0").click()  # the input off
    before = colours(browser)
    assert len({tuple((quarter / 48).round()) for quarter in before}) == 4
    browser.find_element(By.ID, "layer-1").click()
    after = colours(browser)
    assert after[0].max() < 12 and all(np.abs(b - a).max() < 12 for b, a in zip(before[1:], after[1:], strict=True))
    slide(browser, "Nucleus Opacity", 25)
    assert np.allclose(colours(browser)[1], before[1] / 3, atol=14)
    slide(browser, "Tubulin Black at", 254)
    slide(browser, "Tubulin White at", 255)
    assert np.abs(colours(browser)[2] - before[2]).max() < 12  # white stays white
    slide(browser, "Actin White at", 255)
    slide(browser, "Actin Black at", 255)
    assert browser.find_element(By.ID, "length").text.endswith("µm")


@pytest.mark.slow
def test_order_viewer_and_keys(browser: webdriver.Chrome, page: Path) -> None:
    opened(browser, page)
    titles = [card.find_element(By.TAG_NAME, "span").text for card in browser.find_elements(By.CSS_SELECTOR, ".card")]
    assert titles == [HOSTILE, "third", "first"]  # the largest disagreement first
    body = browser.find_element(By.TAG_NAME, "body")
    for _ in range(2):  # the order, then the first image
        browser.switch_to.active_element.send_keys(Keys.TAB)
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    WebDriverWait(browser, 5).until(lambda driver: driver.find_element(By.ID, "title").is_displayed())
    assert browser.find_element(By.ID, "title").text == HOSTILE
    assert browser.find_element(By.ID, "warnings").is_displayed()
    assert browser.find_element(By.ID, "status").get_attribute("textContent") == f"Image 1 of 3: {HOSTILE}"
    names = []
    for _ in range(60):  # by keyboard alone, to everything there is
        browser.switch_to.active_element.send_keys(Keys.TAB)
        if browser.switch_to.active_element.tag_name != "body":
            names.append(browser.switch_to.active_element.accessible_name)
    for expected in ("All images", "Next image", "Zoom in", "Fit", "Input", "Nucleus Opacity", "Actin White at"):
        assert expected in names
    assert all(names)
    stage = browser.find_element(By.ID, "stage")
    scale = "return new DOMMatrix(getComputedStyle(document.getElementById('picture')).transform)"
    fitted = browser.execute_script(scale)
    stage.send_keys("+")
    assert browser.execute_script(scale)["a"] == pytest.approx(fitted["a"] * 1.25, rel=1e-4)
    stage.send_keys(Keys.ARROW_RIGHT)
    stage.send_keys("0")
    assert browser.execute_script(scale)["e"] == pytest.approx(fitted["e"], rel=1e-4)
    stage.send_keys("3")
    assert not browser.find_element(By.ID, "layer-2").is_selected()
    browser.find_element(By.ID, "next").click()
    WebDriverWait(browser, 5).until(lambda driver: driver.find_element(By.ID, "title").text == "third")
    assert not browser.find_element(By.ID, "layer-2").is_selected()  # kept from image to image
    body.send_keys(Keys.ESCAPE)
    WebDriverWait(browser, 5).until(lambda driver: driver.find_element(By.ID, "sheet").is_displayed())
    assert browser.title == "Predicted organelles"  # what the hostile name would have changed


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("number", [None, 2])
def test_it_fits_phones_and_desktops(browser: webdriver.Chrome, page: Path, width: int, number: int | None) -> None:
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    opened(browser, page, number)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
