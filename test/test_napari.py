"""The napari plugin, installed from the wheel and used by its buttons in a real window: `make test-napari`.

Nothing of napari is imported before a test runs, so that the other tests need no napari.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.napari

ROOT = Path(__file__).resolve().parents[1]
BF_IMAGE = ROOT / "test" / "input" / "Study_1" / "image_1_BF_z0.ome.tiff"
ORGANELLES = ["mitochondria", "nucleus", "tubulin", "actin"]


@pytest.fixture
def viewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("NAPARI_CONFIG", str(tmp_path / "napari.yaml"))  # not the user's; read at import
    import napari

    viewer = napari.Viewer()
    yield viewer
    viewer.close()


@pytest.fixture
def widget(viewer: Any) -> Any:
    """The plugin's widget, docked as from napari's menu."""
    return viewer.window.add_plugin_dock_widget("in-silico-labelling", "Predict organelles")[1]


@pytest.fixture
def tiny(resources: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small untrained networks in the place of the shipped ones."""
    from in_silico_labelling import predictor

    monkeypatch.setattr(predictor, "shipped_resources", lambda: resources)
    return resources


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """What is raised in a slot, which Qt would only print."""
    raised: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: raised.append(error))
    return raised


@pytest.fixture
def notified() -> Iterator[list[Any]]:
    """What napari notifies its user of."""
    from napari.utils.notifications import notification_manager

    notifications: list[Any] = []
    notification_manager.notification_ready.connect(notifications.append)
    yield notifications
    notification_manager.notification_ready.disconnect(notifications.append)


class Gate:
    """Stands before the networks, and lets one plane pass at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from in_silico_labelling import Predictor

        self.passes, self.entered, forward = threading.Semaphore(0), 0, Predictor.forward

        def guarded(predictor: Any, inputs: Any) -> Any:
            self.entered += 1
            assert self.passes.acquire(timeout=60)
            return forward(predictor, inputs)

        monkeypatch.setattr(Predictor, "forward", guarded)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.passes.release(100)  # no thread outlives its test


def wait(until: Callable[[], bool], seconds: float = 60) -> None:
    """Let Qt work until a condition holds."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "what was waited for did not happen"
        QApplication.processEvents()
        time.sleep(0.01)


def predict(widget: Any) -> None:
    """Click on Predict and wait for the end."""
    widget.predict_button.native.click()
    wait(lambda: widget.predict_button.enabled)


def noise(*shape: int, dtype: type = np.uint16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def predicted(viewer: Any) -> list[Any]:
    return [layer for layer in viewer.layers if ": " in layer.name]


def test_the_installed_manifest_is_valid() -> None:
    command = [sys.executable, "-m", "npe2", "validate", "--imports", "in-silico-labelling"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "valid!" in done.stdout, done.stdout + done.stderr


def test_four_coloured_layers_are_what_the_predictor_predicts(viewer: Any, widget: Any) -> None:
    from in_silico_labelling import PRESETS, Modality, Predictor, read_image
    from in_silico_labelling.labels import ORGANELLE_COLOURS

    image = read_image(BF_IMAGE)
    pixels, size = image.pixels[:200, :160], image.info.pixel_size_um
    layer = viewer.add_image(pixels, name="cells_BF_01", scale=size, translate=(5, -7), units="um")
    widget.preset.value = "fast"
    assert widget.layer.value.name == "cells_BF_01"
    assert widget.modality.value == "BF"
    assert widget.pixel_size.value == "0.0729532847"
    predict(widget)

    with Predictor.open(settings=PRESETS["fast"]) as predictor:
        expected = predictor.predict(pixels, Modality.BF, pixel_size_um=size)
    assert [made.name for made in predicted(viewer)] == [f"cells_BF_01: {organelle}" for organelle in ORGANELLES]
    for made, organelle in zip(predicted(viewer), ORGANELLES, strict=True):
        assert made.data.dtype == np.uint16
        assert np.array_equal(made.data, expected[organelle])
        assert made.blending == "additive" and made.visible
        colour = bytes(np.round(made.colormap.colors[-1, :3] * 255).astype(np.uint8)).hex()
        assert colour.upper() == ORGANELLE_COLOURS[organelle]
        assert np.array_equal(made.scale, size) and made.translate.tolist() == [5, -7]
        assert made.units == layer.units and str(made.units[0]) == "micrometer"
        provenance = made.metadata["in-silico-labelling"]
        assert (provenance["head"], provenance["trained_on"]) == (organelle, "simulated cells")
    assert not layer.visible
    assert "trained on simulated cells" in widget.message.value
    assert "relative, not quantitative" in widget.message.value
    assert [choice.name for choice in widget.layer.choices] == ["cells_BF_01"], "a prediction is no input"


def test_a_layer_of_floats_is_scaled_with_a_warning(viewer: Any, widget: Any, tiny: Path) -> None:
    from in_silico_labelling import PRESETS, Predictor

    pixels = noise(40, 33).astype(np.float32)
    viewer.add_image(pixels / 65535 - 0.5, name="cells")
    predict(widget)
    scaled = np.rint((pixels - pixels.min()) / (pixels.max() - pixels.min()) * 65535).astype(np.uint16)
    with Predictor.open(tiny, settings=PRESETS["paper"]) as predictor:
        expected = predictor.predict(scaled, None)
    for made, organelle in zip(predicted(viewer), ORGANELLES, strict=True):
        assert np.corrcoef(made.data.ravel(), expected[organelle].ravel())[0, 1] > 0.999
    assert "its float32 pixels are taken as 16 bits" in widget.message.value


def test_each_plane_of_a_stack_is_predicted_as_if_alone(viewer: Any, widget: Any, tiny: Path) -> None:
    from in_silico_labelling import PRESETS, Predictor

    stack = noise(2, 3, 40, 33, dtype=np.uint8)
    stack[1, 1] = 7
    viewer.add_image(stack, name="stack", scale=(2, 3, 0.4, 0.1), units=("s", "um", "um", "um"), rotate=30)
    assert (widget.modality.value, widget.pixel_size.value) == ("unknown", "0.4 x 0.1")
    predict(widget)
    with Predictor.open(tiny, settings=PRESETS["paper"]) as predictor:
        for t, z in np.ndindex(2, 3):
            plane = stack[t, z].astype(np.uint16) * 257
            expected = predictor.predict(plane, None, pixel_size_um=(0.4, 0.1))
            for made, organelle in zip(predicted(viewer), ORGANELLES, strict=True):
                assert made.data.shape == stack.shape
                assert np.array_equal(made.data[t, z], expected[organelle])
    for made in predicted(viewer):
        assert made.scale.tolist() == [2, 3, 0.4, 0.1]
        assert np.array_equal(made.extent.world, viewer.layers["stack"].extent.world)
        assert [str(unit) for unit in made.units] == ["second", *["micrometer"] * 3]
    assert "no contrast (grey value 1799 throughout), so its predictions are left blank (1 of 6 planes)" in (
        widget.message.value
    )


def test_planes_that_are_read_late_and_pyramids_are_predicted(viewer: Any, widget: Any, tiny: Path) -> None:
    import dask.array

    stack = noise(2, 64, 48)
    lazy = dask.array.from_array(stack.astype(">u2"), chunks=(1, 64, 48))
    viewer.add_image(stack, name="plain", visible=False)
    predict(widget)
    viewer.add_image([lazy, lazy[:, ::2, ::2]], multiscale=True, name="pyramid", visible=False)
    widget.layer.value = viewer.layers["pyramid"]
    predict(widget)
    made = predicted(viewer)
    assert len(made) == 8
    for plain, pyramid in zip(made[:4], made[4:], strict=True):
        assert np.array_equal(plain.data, pyramid.data)
    assert "no pixel size, taken as it is" in widget.message.value


@pytest.mark.parametrize(
    ("scale", "units", "text"),
    [
        ((0.108, 0.108), "um", "0.108"),
        ((108, 108), "nm", "0.108"),
        ((-0.2, 0.1), "um", "0.2 x 0.1"),
        ((0.108, 0.108), None, ""),
        ((0.1, 0.1), "s", ""),
        ((5000, 5000), "um", ""),
    ],
)
def test_the_pixel_size_is_filled_in_from_lengths_alone(
    viewer: Any, widget: Any, scale: tuple[float, float], units: str | None, text: str
) -> None:
    viewer.add_image(noise(8, 8), name="other", scale=(0.3, 0.3), units="um")
    viewer.add_image(noise(8, 8), name="cells", scale=scale, units=units)
    widget.layer.value = viewer.layers["cells"]
    assert widget.pixel_size.value == text


def test_progress_is_by_plane_and_cancel_works_between_planes(
    viewer: Any, widget: Any, gate: Gate, errors: list[BaseException]
) -> None:
    viewer.add_image(noise(5, 16, 16), name="cells")
    widget.predict_button.native.click()
    assert widget.cancel_button.enabled and not widget.predict_button.enabled
    gate.passes.release(2)
    wait(lambda: gate.entered == 3 and widget.message.value == "cells: 2 of 5 planes predicted.")
    bar = widget._worker.pbar
    assert (bar.n, bar.total) == (2, 5)
    widget.cancel_button.native.click()
    gate.passes.release(5)
    wait(lambda: widget.predict_button.enabled)
    assert widget.message.value == "Cancelled; no layers were added."
    assert not widget.cancel_button.enabled
    assert gate.entered == 3, "the plane that was begun is finished, and no other"
    assert [layer.name for layer in viewer.layers] == ["cells"] and viewer.layers[0].visible
    gate.passes.release(5)
    predict(widget)
    assert len(predicted(viewer)) == 4, "it can be begun again"
    assert errors == []


def test_cancel_also_counts_after_the_last_plane(viewer: Any, widget: Any, gate: Gate) -> None:
    viewer.add_image(noise(16, 16), name="cells")
    widget.predict_button.native.click()
    wait(lambda: gate.entered == 1)
    gate.passes.release()
    while widget._worker.is_running:  # its signals wait, since Qt does not work here
        time.sleep(0.01)
    widget.cancel_button.native.click()
    wait(lambda: widget.predict_button.enabled)
    assert widget.message.value == "Cancelled; no layers were added."
    assert [layer.name for layer in viewer.layers] == ["cells"]


def test_a_widget_that_is_closed_stops_after_the_plane(
    viewer: Any, widget: Any, gate: Gate, errors: list[BaseException]
) -> None:
    from qtpy.QtCore import QEvent
    from qtpy.QtWidgets import QApplication

    viewer.add_image(noise(5, 16, 16), name="cells")
    widget.predict_button.native.click()
    wait(lambda: gate.entered == 1)
    worker = widget._worker
    ended: list[bool] = []
    worker.finished.connect(lambda: ended.append(True))
    viewer.window.remove_dock_widget(widget.native)
    widget.native.deleteLater()
    QApplication.sendPostedEvents(widget.native, QEvent.Type.DeferredDelete)
    assert worker.abort_requested
    gate.passes.release(5)
    wait(lambda: bool(ended))
    assert gate.entered == 1
    assert len(viewer.layers) == 1
    assert errors == []


@pytest.mark.parametrize(
    ("pixels", "size", "sentence"),
    [
        (None, "", "No image layer is chosen, expected one of transmitted light."),
        (np.zeros((8, 8), bool), "", "cells: its pixels are bool, expected whole or floating-point numbers."),
        (np.zeros((8, 8, 3), np.uint8), "", "cells: it has colours, expected one channel of grey values."),
        *(
            (
                noise(8, 8),
                size,
                f"The pixel size is {size!r}, expected a number of µm from 0.01 to 10, two (height x width), or none.",
            )
            for size in ("0,108", "1 x 2 x 3", "big", "0", "50", "nan", "0.1 x -0.1")
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_what_cannot_be_predicted_is_said_in_one_sentence(
    viewer: Any, widget: Any, notified: list[Any], pixels: np.ndarray | None, size: str, sentence: str
) -> None:
    if pixels is not None:
        viewer.add_image(pixels, name="cells", rgb=pixels.ndim == 3)
    widget.pixel_size.value = size
    widget.predict_button.native.click()
    assert widget.message.value == sentence
    assert [notification.message for notification in notified] == [sentence]
    assert widget._worker is None and predicted(viewer) == []


@pytest.mark.parametrize("unexpected", [False, True])
def test_errors_of_the_thread_are_said_in_one_sentence_without_a_traceback(
    viewer: Any,
    widget: Any,
    notified: list[Any],
    errors: list[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    unexpected: bool,
) -> None:
    from in_silico_labelling import Predictor, UserError
    from napari.utils.notifications import ErrorNotification

    def refuse(**options: Any) -> None:
        raise RuntimeError("out of\nmemory") if unexpected else UserError("a.safetensors is damaged.")

    monkeypatch.setattr(Predictor, "open", refuse)
    viewer.add_image(noise(8, 8), name="cells")
    predict(widget)
    sentence = "unexpected RuntimeError: out of memory" if unexpected else "a.safetensors is damaged."
    assert widget.message.value == sentence
    assert [notification.message for notification in notified] == [sentence]
    assert not isinstance(notified[0], ErrorNotification), "which has a button that shows the traceback"
    assert predicted(viewer) == [] and viewer.layers[0].visible and errors == []
