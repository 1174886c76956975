"""Pages of the site that come from elsewhere: the README, the source's docstrings, its tables."""

from __future__ import annotations

import ast
import html
import math
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from topology.transitions import LEGAL, Stage  # noqa: E402 - the checkout's, whatever is installed

#: Page of the API reference -> what it says first, and the modules that it shows.
API = {
    "layer": ("What a site uses.", ("cluster_layer.layer", "cluster_layer.config")),
    "sync": ("Without asyncio.", ("cluster_layer.sync",)),
    "errors": (
        "What can go wrong, and what is known then.",
        ("cluster_layer.errors", "cluster_layer.gaps", "topology.errors"),
    ),
    "metrics": (
        "Hooks for metrics.",
        ("cluster_layer.metrics.hook", "cluster_layer.metrics.prometheus"),
    ),
    "topology": (
        "The value, its planning and its transitions, for tools around the cluster.",
        (
            "topology.model",
            "topology.hashing",
            "topology.planning",
            "topology.transitions",
            "topology.ports",
            "topology.stores",
        ),
    ),
    "embedded": ("Redis servers for development and tests.", ("cluster_layer.embedded",)),
}
PACKAGES = ("topology", "cluster_layer", "chaos")
#: Where the drawing puts the stages of a change; a stage without a place is an error.
PLACES = {
    Stage.IDLE: (90, 160),
    Stage.BETWEEN: (340, 50),
    Stage.PREPARED: (660, 50),
    Stage.COMMITTED: (660, 280),
    Stage.UNDOING: (340, 280),
}
_BOX = (130, 40)


def on_files(files: Files, config: Any) -> Files:
    """Add what is generated."""
    pages = {
        "index.md": _moved_to_docs("README.md"),
        "changelog.md": _moved_to_docs("CHANGELOG.md"),
        "contributing.md": _moved_to_docs("CONTRIBUTING.md"),
        "modules.md": _modules(),
        "transitions.md": _transitions(),
        **{f"api/{name}.md": _api(name, *page) for name, page in API.items()},
    }
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    for picture in sorted((ROOT / "benchmarks" / "results").glob("*.svg")):
        files.append(File.generated(config, f"results/{picture.name}", abs_src_path=str(picture)))
    results = (ROOT / "benchmarks" / "results" / "results.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "results/results.md", content=results))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links that leave docs/ lead to what was generated, or are plain text."""
    return re.sub(r"\]\(\.\./benchmarks/results/results\.md\)", "](results/results.md)", markdown)


def _moved_to_docs(name: str) -> str:
    """A page of the checkout's root, with its links as seen from docs/."""
    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"\]\(docs/decisions/?\)", "](decisions/0001-slot-table.md)", text)
    text = re.sub(r"\]\(docs/", "](", text)
    for page in ("CONTRIBUTING", "CHANGELOG", "README"):
        target = "index.md" if page == "README" else f"{page.lower()}.md"
        text = text.replace(f"]({page}.md)", f"]({target})")
    # What is no page of the site is named, not linked.
    return re.sub(
        r"\[([^\]]+)\]\((?:LICENSE|examples/[^)]*|deploy/[^)]*|benchmarks/[^)]*)\)", r"\1", text
    )


def _api(name: str, says: str, modules: tuple[str, ...]) -> str:
    present = [one for one in modules if _exists(one)]
    blocks = "\n".join(f"::: {module}\n" for module in present)
    return f"# {name}\n\n{says}\n\n{blocks}"


def _exists(module: str) -> bool:
    path = ROOT / module.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def _modules() -> str:
    """Every module with the first line of its docstring."""
    lines = ["# Modules", "", "Each module says in its first line what it is for."]
    for package in PACKAGES:
        lines += ["", f"## {package}", "", "| module | |", "|---|---|"]
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            first = html.escape(said.partition("\n\n")[0].replace("\n", " ")).replace("|", "\\|")
            lines.append(f"| `{module.removesuffix('.__init__')}` | {first} |")
    return "\n".join(lines) + "\n"


def _transitions() -> str:
    """The legality table of topology/transitions.py, as a table and as a drawing."""
    rows = [
        f"| {start.name} | {step.name.lower()} | {', '.join(one.name for one in ends)} |"
        for (start, step), ends in LEGAL.items()
    ]
    stages = [f"| {stage.name} | {stage.value} |" for stage in Stage]
    table = "\n".join(["| from | step | to |", "|---|---|---|", *rows])
    return (
        "# Stages of a change\n\n"
        "Drawn from the table that the code obeys, `topology.transitions.LEGAL`.\n\n"
        f"{_drawing()}\n\n| stage | |\n|---|---|\n" + "\n".join(stages) + f"\n\n{table}\n"
    )


def _drawing() -> str:
    labels: dict[tuple[Stage, Stage], list[str]] = defaultdict(list)
    for (start, step), ends in LEGAL.items():
        for end in ends:
            labels[start, end].append(step.name.lower())
    parts = [_edge(start, end, names) for (start, end), names in labels.items()]
    parts += [_node(stage) for stage in Stage]
    head = (
        '<svg viewBox="0 -40 760 400" role="img" aria-label="stages of a change" '
        'style="max-width:760px;font:12px sans-serif" fill="none" stroke="currentColor">'
        '<defs><marker id="tip" markerWidth="9" markerHeight="9" refX="8" refY="4" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="currentColor"/></marker></defs>'
    )
    return head + "".join(parts) + "</svg>"


def _node(stage: Stage) -> str:
    x, y = PLACES[stage]
    width, height = _BOX
    return (
        f'<rect x="{x - width / 2}" y="{y - height / 2}" width="{width}" height="{height}" rx="6"/>'
        f'<text x="{x}" y="{y + 4}" text-anchor="middle" stroke="none" fill="currentColor" '
        f'font-weight="bold">{stage.name}</text>'
    )


def _edge(start: Stage, end: Stage, names: list[str]) -> str:
    text = html.escape(", ".join(names))
    (x, y), (to_x, to_y) = PLACES[start], PLACES[end]
    if start is end:
        below = 1 if y > 200 else -1
        begin, far = y + 20 * below, y + 60 * below
        path = f"M{x - 25},{begin} C{x - 40},{far} {x + 40},{far} {x + 25},{begin}"
        return _arrow(path, x, y + 58 * below + 4, text)
    # Bent to the left of its direction, so that there and back are two lines.
    length = math.hypot(to_x - x, to_y - y)
    along, across = ((to_x - x) / length, (to_y - y) / length), 26
    normal = (along[1], -along[0])
    start_at = _border(x, y, *along)
    end_at = _border(to_x, to_y, -along[0], -along[1])
    middle = (
        (x + to_x) / 2 + normal[0] * across * 1.6,
        (y + to_y) / 2 + normal[1] * across * 1.6,
    )
    points = [f"{x:.0f},{y:.0f}" for x, y in (start_at, middle, end_at)]
    path = f"M{points[0]} Q{points[1]} {points[2]}"
    return _arrow(path, middle[0], middle[1] + 4, text)


def _border(x: float, y: float, along_x: float, along_y: float) -> tuple[float, float]:
    """Where a line from the middle of a box leaves it."""
    width, height = _BOX[0] / 2, _BOX[1] / 2
    scale = min(
        width / abs(along_x) if along_x else math.inf,
        height / abs(along_y) if along_y else math.inf,
    )
    return x + along_x * scale, y + along_y * scale


def _arrow(path: str, x: float, y: float, text: str) -> str:
    return (
        f'<path d="{path}" marker-end="url(#tip)" opacity="0.7"/>'
        f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle" stroke="none" fill="currentColor">'
        f"{text}</text>"
    )
