"""The Grand Challenge platform's folders, slugs and ``inputs.json``.

A case's image is ``images/<INPUT_SLUG>/<uuid>.tiff`` below the input folder; ``inputs.json`` beside ``images`` may say
what the file was called when it was uploaded. Outputs go to ``images/<output_slug(organelle)>/<uuid>.tiff``.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import UserError
from .labels import Organelle

INPUT_SLUG = "organelles-transmitted-light-ome-tiff"


DISAGREEMENT = "disagreement"


def output_slug(organelle: Organelle, shows: str = "fluorescence") -> str:
    """Name of an organelle's output socket, which is also its folder's name."""
    return f"{organelle}-{shows}-ome-tiff"


MERGED_FOLDER = "organelles-merged"
"""Not of the platform: input and organelles as channels of one file."""
OUTPUT_FOLDERS = frozenset(
    {output_slug(organelle, shows) for organelle in Organelle for shows in ("fluorescence", DISAGREEMENT)}
    | {MERGED_FOLDER}
)
"""Names of all folders that predictions are written to."""


def input_folder(input: Path) -> Path:
    """Folder of the input socket; it exists only on the platform."""
    return input / "images" / INPUT_SLUG


def output_folder(output: Path, organelle: Organelle, shows: str = "fluorescence") -> Path:
    """Folder of an organelle's output socket, or the one beside it for what else is written of it."""
    return output / "images" / output_slug(organelle, shows)


def original_names(inputs_json: Path, sources: Sequence[Path]) -> dict[Path, str]:
    """Read what images were called when they were uploaded.

    Parameters
    ----------
    inputs_json : Path
        Need not exist.
    sources : sequence of Path
        The images of the input socket.

    Returns
    -------
    dict of Path to str
        Names of those images that are listed in ``inputs.json``.

    Raises
    ------
    UserError
        Where the file is malformed or cannot be read.
    """
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
    """Find the entries of the input socket, in the present ("socket") or the former ("interface") form."""

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
