"""Draw which package imports which, from the code's imports.

    python -m benchmarks.architecture --output docs/images/architecture.png

Boxes list a package's modules; an arrow leads from a package to one that it imports.
"""

import argparse
import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = "commands"
BOXES = {  # left, bottom, width, height
    COMMANDS: (0.3, 7.25, 15.4, 0.75),
    "simulation": (0.3, 4.5, 4.2, 2.25),
    "training": (5.2, 4.5, 4.7, 2.25),
    "evaluation": (10.6, 4.5, 2.2, 2.25),
    "experiments": (13.5, 4.5, 2.2, 2.25),
    "model": (0.3, -0.25, 15.4, 4.35),
    "model.networks": (0.6, -0.05, 3.2, 2.0),
    "model.images": (4.3, -0.05, 5.4, 2.0),
    "model.preview": (10.1, -0.05, 2.2, 2.0),
    "model.distribution": (12.7, -0.05, 2.8, 2.0),
}
BETWEEN = 4.85  # x of the gap between simulation and training


def package_of(path: Path) -> str:
    """Name of the box that a source file belongs to."""
    parent = path.relative_to(ROOT).parent.as_posix().replace("/", ".")
    return COMMANDS if parent == "." else parent


def imported_modules(path: Path) -> Iterator[str]:
    """Absolute names of the project's modules that a source file imports."""
    package = path.relative_to(ROOT).parent.as_posix().split("/")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and _is_module(node.value):  # commands import late, by name
            yield node.value


def _is_module(value: object) -> TypeGuard[str]:
    is_name = isinstance(value, str) and re.fullmatch(r"\w+\.\w+", value) is not None
    return is_name and (ROOT / f"{str(value).replace('.', '/')}.py").is_file()


def import_graph() -> tuple[dict[str, list[str]], set[tuple[str, str]]]:
    """Modules of each box, and the pairs (importing, imported) of boxes."""
    files = [*ROOT.glob("*.py"), *(f for name in BOXES for f in (ROOT / name.replace(".", "/")).glob("*.py"))]
    modules: dict[str, list[str]] = defaultdict(list)
    arrows: set[tuple[str, str]] = set()
    for path in sorted(files):
        box = package_of(path)
        if path.stem != "__init__":
            modules[box].append(f"{path.stem}.py" if box == COMMANDS else path.stem)
        for name in imported_modules(path):
            found = [other for other in BOXES if name == other or name.startswith(f"{other}.")]
            if found and (imported := max(found, key=len)) != box:
                arrows.add((box, imported if box.startswith("model") else imported.split(".")[0]))
    return dict(modules), arrows


def draw(output: Path) -> None:
    """Draw the boxes and arrows of `import_graph`."""
    modules, arrows = import_graph()
    figure, axes = plt.subplots(figsize=(12, 6.35))
    axes.set(xlim=(0, 16), ylim=(-0.45, 8.1))
    axes.axis("off")
    for name, (left, bottom, width, height) in BOXES.items():
        colour = "#f6f9fd" if "." in name else "#e3edf9" if name == "model" else "#f4f4f4"
        axes.add_patch(FancyBboxPatch((left, bottom), width, height, "round,pad=0.08", fc=colour, ec="#456"))
        title = name.replace(".", "/") + ("" if name == COMMANDS else "/")
        axes.text(left + 0.1, bottom + height - 0.05, title, weight="bold", va="top", fontsize=10)
        axes.text(left + 0.1, bottom + height - 0.42, _wrapped(modules[name], width), va="top", fontsize=7.5)
    for importing, imported in sorted(arrows):
        if "." in importing and "." in imported:  # they lie in the box of their package
            continue
        start, end = _ends(importing, imported)
        bend = f"arc3,rad={-0.1 if _is_past_others(importing, imported) else 0}"
        arrow = FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color="#345", connectionstyle=bend)
        axes.add_patch(arrow)
    figure.savefig(output, dpi=110, bbox_inches="tight")


def _wrapped(names: list[str], width: float) -> str:
    lines, room = [""], int(width * 9.2)
    for name in names:
        if len(lines[-1]) + len(name) + 2 > room:
            lines.append("")
        lines[-1] += ("  " if lines[-1] else "") + name
    return "\n".join(lines)


def _is_past_others(importing: str, imported: str) -> bool:
    """Whether an arrow to the left, along a row, would cross the boxes between the two."""
    if "." in importing + imported:
        return False
    (left, bottom, *_), (other_left, other_bottom, *_) = BOXES[importing], BOXES[imported]
    return any(b == bottom == other_bottom and other_left < x < left for x, b, *_ in BOXES.values())


def _ends(importing: str, imported: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where an arrow leaves one box and reaches the other."""
    (left, bottom, width, height), (other_left, other_bottom, other_width, other_height) = (
        BOXES[importing], BOXES[imported],
    )  # fmt: skip
    gap = 0.08
    if _is_past_others(importing, imported):  # below them
        return (left + 0.3, bottom - gap), (other_left + other_width - 0.3, bottom - gap)
    if bottom == other_bottom and "." not in importing + imported:  # side by side
        y = bottom + height / 2
        return ((left - gap, y), (other_left + other_width + gap, y)) if left > other_left else (
            (left + width + gap, y), (other_left - gap, y),
        )  # fmt: skip
    if imported == f"{importing.split('.')[0]}" or importing == imported.split(".")[0]:  # within the box of model
        inner = BOXES[max(importing, imported, key=len)]
        x, top = inner[0] + 0.6 * inner[2], inner[1] + inner[3] + gap
        downwards = len(importing) < len(imported)
        return ((x, top + 0.5), (x, top)) if downwards else ((x + 0.5, top), (x + 0.5, top + 0.5))
    x = (max(left, other_left) + min(left + width, other_left + other_width)) / 2
    if importing == COMMANDS and imported == "model":
        x = BETWEEN
    return (x, bottom - gap), (x, other_bottom + other_height + gap)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "architecture.png")
    draw(parser.parse_args().output)


if __name__ == "__main__":
    main()
