"""Where Grand Challenge and batch folders put files: which images there are, and where their outputs go.

The platform puts the image of a case into ``images/<slug>/<uuid>.tiff`` and may say in ``inputs.json`` what the file
was called when it was uploaded. Anything else is a batch: every image in the folder and below.
Outputs go to ``images/<organelle>-fluorescence-ome-tiff/<stem>.tiff`` either way.
"""

import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UserError
from .labels import Organelle
from .naming import IMAGE_SUFFIXES, TargetName, is_image, parse, prediction_filename

log = logging.getLogger(__name__)

INPUT_SLUG = "organelles-transmitted-light-ome-tiff"


@dataclass(frozen=True)
class Case:
    """One image to predict, its name before the upload where the platform tells it, one output an organelle."""

    source: Path
    original_name: str | None
    outputs: dict[Organelle, Path]

    @property
    def title(self) -> str:
        """What to call it before its user: the file's name, and the one it had when uploaded."""
        return f"{self.source.name} ({self.original_name})" if self.original_name else self.source.name


def discover(input: Path, output: Path) -> list[Case]:
    """List the cases of an input folder in the order of their paths; nothing is opened but ``inputs.json``.

    input: a folder of the platform's layout (it has ``images/<INPUT_SLUG>``), else a batch folder. Hidden files,
    files that are no images, and former outputs below the input folder are passed over. In a batch, fluorescent
    targets by the challenge's names are too, with a logged line: a simulated study holds both.
    output: the folder to predict into; a batch's sub-folders are kept below its organelle folders.
    Raises UserError where a folder or every image is missing, ``inputs.json`` is malformed, a link leads out of the
    folder, or two images would be predicted into one file.
    """
    if not input.is_dir():
        raise UserError(f"{input}: found {'a file' if input.exists() else 'nothing'}, expected the input folder.")
    socket = input / "images" / INPUT_SLUG
    if socket.is_dir():
        sources = _images_below(socket, input, output)
        names = _original_names(input / "inputs.json", sources)
    else:
        socket = input
        found = _images_below(input, input, output)
        sources = [path for path in found if not isinstance(parse(path.name), TargetName)]
        names = {}
        if len(sources) < len(found):
            log.info("%d fluorescent targets (by name) in %s are left out.", len(found) - len(sources), input)
    if not sources:
        raise UserError(f"{socket}: found no image to predict, expected {', '.join(IMAGE_SUFFIXES)} files.")
    cases = [Case(source, names.get(source), _outputs(source.relative_to(socket), output)) for source in sources]
    _refuse_collisions(cases)
    return cases


def output_folder(output: Path, organelle: Organelle) -> Path:
    """Folder of an organelle's output socket."""
    return output / "images" / f"{organelle}-fluorescence-ome-tiff"


def _outputs(relative: Path, output: Path) -> dict[Organelle, Path]:
    name = relative.with_name(prediction_filename(relative.name))
    return {organelle: output_folder(output, organelle) / name for organelle in Organelle}


def _images_below(folder: Path, input: Path, output: Path) -> list[Path]:
    """All images in a folder and below, sorted; links to folders are not followed."""
    inside = input.resolve()
    former_outputs = {output_folder(output, organelle).resolve() for organelle in Organelle}
    found: list[Path] = []

    def unreadable(error: OSError) -> None:
        raise UserError(f"{error.filename}: the folder cannot be read ({error.strerror}).") from error

    for parent, folders, files in os.walk(folder, onerror=unreadable):
        here = Path(parent)
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and Path(os.path.realpath(here / name)) not in former_outputs
        ]
        found += [here / name for name in files if is_image(name)]
        for path in [*(here / name for name in folders), *(here / name for name in files if is_image(name))]:
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(inside):
                raise UserError(f"{path}: found a link that leads out of {input}, expected a file within it.")
    return sorted(found)


def _refuse_collisions(cases: Iterable[Case]) -> None:
    sources = {Path(os.path.realpath(case.source)) for case in cases}
    taken: dict[Path, Path] = {}
    for case in cases:
        for path in case.outputs.values():
            if path in taken:
                raise UserError(
                    f"{case.source}: found {taken[path].name} beside it, which is predicted into the same file "
                    f"{path.name}, expected names that differ in more than the suffix."
                )
            if Path(os.path.realpath(path)) in sources:
                raise UserError(f"{path}: found an input where an output goes, expected another output folder.")
            taken[path] = case.source


def _original_names(inputs_json: Path, sources: list[Path]) -> dict[Path, str]:
    """What the images were called when uploaded, as far as ``inputs.json`` tells; it need not be there."""
    if not inputs_json.is_file():
        return {}
    try:
        content = json.loads(inputs_json.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{inputs_json}: it cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{inputs_json}: found text that is not JSON, expected a list of sockets.") from error
    images = _our_images(inputs_json, content)
    if len(images) == len(sources) == 1:
        return {sources[0]: images[0]["name"]}
    # With several, only the upload's key, which is the file's stem, says which is which.
    name_of_key = {str(image["pk"]): str(image["name"]) for image in images if "pk" in image}
    return {source: name_of_key[source.stem] for source in sources if source.stem in name_of_key}


def _our_images(inputs_json: Path, content: Any) -> list[dict[str, Any]]:
    """The image entries of our socket, in the present ("socket") or the former ("interface") shape."""

    def malformed(found: str) -> UserError:
        return UserError(
            f'{inputs_json}: found {found}, expected a list of {{"socket": {{"slug": …}}, "image": {{"name": …}}}}.'
        )

    if not isinstance(content, list):
        raise malformed(f"a {type(content).__name__}")
    images = []
    for entry in content:
        socket = entry.get("socket", entry.get("interface")) if isinstance(entry, dict) else None
        if not isinstance(socket, dict) or not isinstance(socket.get("slug"), str):
            raise malformed("an entry without a socket's slug")
        if socket["slug"] != INPUT_SLUG:
            continue
        image = entry.get("image")
        if not isinstance(image, dict) or not isinstance(image.get("name"), str):
            raise malformed("an entry without an image's name")
        images.append(image)
    return images
