"""napari's widget: predicts the organelles of an image layer as four coloured layers. Imported by napari alone."""

from collections.abc import Callable, Sequence
from typing import Any

from magicgui.widgets import ComboBox, Container, Label, LineEdit, PushButton
from napari.layers import Image
from napari.qt.threading import create_worker
from napari.utils.notifications import show_error

from .display import display_range
from .errors import UserError
from .images.units import PLAUSIBLE_PIXEL_SIZE_UM, plausible_pixel_size, um_per_unit
from .labels import ORGANELLE_COLOURS, Modality, Organelle
from .naming import modality_token
from .preprocessing import PixelSize
from .settings import PRESETS
from .stack_prediction import StackPrediction, StackRequest, check_pixels, predict_stack

METADATA_KEY = "in-silico-labelling"
"""Key of a predicted layer's metadata that holds its provenance."""
UNKNOWN = "unknown"
_GEOMETRY = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")


def layer_pixel_size_um(layer: Any) -> PixelSize | None:
    """Return a layer's pixel size (y, x) in µm; None where its units are no length, or no microscope has it."""
    um_y, um_x = (um_per_unit(str(unit)) for unit in layer.units[-2:])
    if um_y is None or um_x is None:
        return None
    height, width = (abs(float(scale)) for scale in layer.scale[-2:])  # below 0 where the layer is mirrored
    return plausible_pixel_size((height * um_y, width * um_x))


def parse_pixel_size_um(text: str) -> PixelSize | None:
    """Read a pixel size (y, x) in µm: one number, or ``height x width``; None where nothing is written.

    Raises
    ------
    UserError
        One sentence, for other text, and for a size that no microscope has.
    """
    if not text.strip():
        return None
    try:
        numbers = [float(number) for number in text.split("x")]
    except ValueError:
        numbers = []
    size = plausible_pixel_size((numbers[0], numbers[-1])) if len(numbers) in (1, 2) else None
    if size is None:
        low, high = PLAUSIBLE_PIXEL_SIZE_UM
        raise UserError(
            f"The pixel size is {text!r}, expected a number of µm from {low:g} to {high:g}, "
            "two (height x width), or none."
        )
    return size


class PredictionWidget(Container):  # type: ignore[misc]  # of type Any where napari is not installed
    """Choose a layer and how to predict it; the prediction runs in another thread and can be cancelled.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Whose image layers are offered, and to which the predicted layers are added.
    """

    def __init__(self, napari_viewer: Any) -> None:
        self._viewer = napari_viewer
        self._worker: Any = None
        self._closed = False
        self.layer = ComboBox(label="image", choices=self._input_layers, tooltip="each plane of a stack is predicted")
        self.modality = ComboBox(label="modality", choices=[*Modality, UNKNOWN], value=UNKNOWN)
        self.pixel_size = LineEdit(label="pixel size (µm)", tooltip="one number, or height x width; empty: unknown")
        self.preset = ComboBox(
            label="preset",
            choices=list(PRESETS),
            tooltip="paper: as published; fast: fewer tiles and rotations; multiscale: fast, at 3 scales",
        )
        self.predict_button = PushButton(text="Predict")
        self.cancel_button = PushButton(text="Cancel", enabled=False, tooltip="takes effect after the current plane")
        self.message = Label()
        super().__init__(
            widgets=[
                self.layer,
                self.modality,
                self.pixel_size,
                self.preset,
                Container(widgets=[self.predict_button, self.cancel_button], layout="horizontal", labels=False),
                self.message,
            ]
        )
        self.pixel_size.native.setPlaceholderText(UNKNOWN)
        self.message.native.setWordWrap(True)
        self.layer.changed.connect(self._fill_in)
        self.predict_button.changed.connect(self._start)
        self.cancel_button.changed.connect(self._cancel)
        self.native.destroyed.connect(self._close)
        self._fill_in()

    def _input_layers(self, _: Any) -> Sequence[Any]:
        """Image layers that are no predictions themselves."""
        return [
            layer for layer in self._viewer.layers if isinstance(layer, Image) and METADATA_KEY not in layer.metadata
        ]

    def _fill_in(self) -> None:
        """Fill in what the layer says of itself."""
        layer = self.layer.value
        size = None if layer is None else layer_pixel_size_um(layer)
        self.pixel_size.value = "" if size is None else " x ".join(f"{um:.9g}" for um in dict.fromkeys(size))
        self.modality.value = (layer and modality_token(layer.name)) or UNKNOWN

    def _request(self) -> StackRequest:
        """Read the fields; UserError, one sentence, where they cannot be followed."""
        layer = self.layer.value
        if layer is None:
            raise UserError("No image layer is chosen, expected one of transmitted light.")
        if layer.rgb:
            raise UserError(f"{layer.name}: it has colours, expected one channel of grey values.")
        pixels = layer.data[0] if layer.multiscale else layer.data
        check_pixels(layer.name, pixels)
        modality = None if self.modality.value == UNKNOWN else Modality(self.modality.value)
        size = parse_pixel_size_um(self.pixel_size.value)
        return StackRequest(layer.name, pixels, modality, size, PRESETS[self.preset.value])

    def _start(self) -> None:
        try:
            request = self._request()
        except UserError as error:
            self._fail(str(error))
            return
        layer = self.layer.value
        geometry = {name: getattr(layer, name) for name in _GEOMETRY}

        def show_progress(done: int) -> None:
            if not self._worker.abort_requested:
                self.message.value = f"{request.name}: {done} of {request.n_planes} planes predicted."

        def finish(prediction: StackPrediction | str) -> None:
            if self._worker.abort_requested:  # cancelled when the last plane was done already
                return
            if isinstance(prediction, str):
                self._fail(prediction)
            else:
                layer.visible = False  # added to a bright image, colours are white
                self._add_layers(request.name, geometry, prediction)

        self.message.value = f"{request.name}: the checkpoints are being read."
        self.predict_button.enabled, self.cancel_button.enabled = False, True
        # Without _start_thread, nothing would happen, and nothing would say so.
        self._worker = create_worker(
            predict_stack,
            request,
            _start_thread=True,
            _connect={
                "yielded": self._while_open(show_progress),
                "returned": self._while_open(finish),
                "finished": self._while_open(self._end),
            },
            _progress={"total": request.n_planes, "desc": f"Predicting {request.name}"},
        )

    def _close(self) -> None:
        """Stop after the current plane: the window is gone."""
        self._closed = True
        if self._worker is not None:
            self._worker.quit()

    def _while_open(self, show: Callable[..., None]) -> Callable[..., None]:
        """Make a slot that ignores what still comes from the worker once there are no widgets to show it."""
        return lambda *values: None if self._closed else show(*values)

    def _cancel(self) -> None:
        self._worker.quit()
        self.cancel_button.enabled = False
        self.message.value = "Cancelled; the current plane is being finished."

    def _end(self) -> None:
        if self._worker.abort_requested:
            self.message.value = "Cancelled; no layers were added."
        self.predict_button.enabled, self.cancel_button.enabled = True, False

    def _fail(self, sentence: str) -> None:
        self.message.value = sentence
        show_error(sentence)

    def _add_layers(self, name: str, geometry: dict[str, Any], prediction: StackPrediction) -> None:
        for organelle in Organelle:
            pixels = prediction.pixels[organelle]
            self._viewer.add_image(
                pixels,
                name=f"{name}: {organelle}",
                colormap=f"#{ORGANELLE_COLOURS[organelle]}",
                contrast_limits=display_range(pixels.reshape(-1, *pixels.shape[-2:])[0], organelle=True),
                blending="additive",
                metadata={METADATA_KEY: dict(prediction.provenance[organelle])},
                **geometry,
            )
        facts = {f"trained on {made['trained_on']}": None for made in prediction.provenance.values()}
        facts |= {f"intensity {made['intensity']}": None for made in prediction.provenance.values()}
        self.message.value = f"{name}: predicted; {'; '.join([*facts, *prediction.warnings])}."
