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
    """Rows of `focus.csv` by image; a name may carry its folder (`Study_1/image_1_BF_z0.ome.tiff`)."""

    def __init__(self, rows: dict[str, Focus]) -> None:
        self._rows = rows

    @classmethod
    def read(cls, path: Path) -> "FocusTable":
        """Raises `UserError` for a wrong column, number or modality, or a name listed twice."""
        rows: dict[str, Focus] = {}
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise UserError(f"{path}: found text that is not UTF-8, expected UTF-8.") from None
        except OSError as error:
            raise UserError(f"{path}: it cannot be read ({error.strerror}).") from None
        with io.StringIO(text, newline="") as file:
            reader = csv.DictReader(file)
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                raise UserError(f"{path}: found the columns {reader.fieldnames}, expected {','.join(COLUMNS)}.")
            for row in reader:
                if not any(str(value or "").strip() for value in row.values()):
                    continue  # spreadsheet programs write lines of nothing but commas
                key = _key(row["name"] or "")
                try:
                    focus = Focus(Modality(row["modality"]), abs(int(row["image_z"]) - int(row["best_z"])))
                except (TypeError, ValueError):
                    raise UserError(
                        f"{path}: line {reader.line_num} holds {list(row.values())}, expected a name, "
                        "a modality (BF, PC or DIC) and two whole numbers."
                    ) from None
                if rows.setdefault(key, focus) != focus:
                    raise UserError(f"{path}: '{row['name']}' is listed twice with different planes, expected once.")
        return cls(rows)

    def get(self, key: str) -> Focus | None:
        """The row of the image with this key (path below the root without suffix), else of its name."""
        return self._rows.get(key) or self._rows.get(PurePosixPath(key).name)


def _key(name: str) -> str:
    path = PurePosixPath(name.strip().replace("\\", "/"))
    return (path.parent / naming.stem(path.name)).as_posix()
