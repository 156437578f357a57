"""`focus.csv`: which plane of a field is the sharpest (columns `name,modality,image_z,best_z`)."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from model import naming
from model.errors import UserError
from model.labels import Modality

COLUMNS = ("name", "modality", "image_z", "best_z")


@dataclass(frozen=True)
class Focus:
    """One row: how the image was lit, and how many planes it is away from the best focus."""

    modality: Modality
    z_deviation: int


class FocusTable:
    """Rows of `focus.csv` by image.

    Parameters
    ----------
    rows : dict of str to Focus
        By name without suffix, which may carry its folder (``Study_1/image_1_BF_z0``).
    """

    def __init__(self, rows: dict[str, Focus]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @classmethod
    def read(cls, path: Path) -> "FocusTable":
        """Read a table in UTF-8, with or without a byte-order mark; blank lines and further columns do not matter.

        Raises
        ------
        UserError
            One sentence, for another encoding, a missing column, a wrong name, number or modality, or a name that is
            listed twice with different planes.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise UserError(f"{path}: found text that is not UTF-8, expected UTF-8.") from None
        except OSError as error:
            raise UserError(f"{path}: it cannot be read ({error.strerror}).") from None
        (_, header), *lines = _filled_lines(path, text) or [(1, [])]
        if not set(COLUMNS) <= set(header):
            found = f"the columns {','.join(header)}" if header else "no text"
            raise UserError(f"{path}: found {found}, expected the columns {','.join(COLUMNS)}.")
        rows: dict[str, Focus] = {}
        for number, cells in lines:
            row = dict(zip(header, cells, strict=False))
            try:
                key = _key(row["name"])
                focus = Focus(Modality(row["modality"]), abs(int(row["image_z"]) - int(row["best_z"])))
            except (KeyError, ValueError):
                raise UserError(
                    f"{path}: line {number} holds {','.join(cells)}, expected a name, "
                    "a modality (BF, PC or DIC) and two whole numbers."
                ) from None
            if rows.setdefault(key, focus) != focus:
                raise UserError(f"{path}: '{row['name']}' is listed twice with different planes, expected once.")
        return cls(rows)

    def get(self, key: str) -> Focus | None:
        """Return the row of an image, or None.

        Parameters
        ----------
        key : str
            Path below the root, without suffix; a row of the base name alone counts where there is none of the path.
        """
        key = _key(f"{key}.tiff")
        return self._rows.get(key) or self._rows.get(PurePosixPath(key).name)


def _filled_lines(path: Path, text: str) -> list[tuple[int, list[str]]]:
    """Line numbers and cells; spreadsheet programs write lines of nothing, or of nothing but commas."""
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num} cannot be read as CSV ({error}).") from None
    return [(number, cells) for number, cells in lines if any(cells)]


def _key(name: str) -> str:
    """One key for all names that mean the same plane (`naming.parse`); ValueError for an empty name."""
    if not name:
        raise ValueError
    path = PurePosixPath(name.replace("\\", "/"))
    plane = naming.parse(path.name)
    filename = plane.filename if isinstance(plane, naming.InputName) else path.name
    return (path.parent / naming.stem(filename)).as_posix()
