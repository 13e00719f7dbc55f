"""A page as one HTML file, with plotly and everything it shows inside, and its figures as files beside it.

What a page shows may come from anybody: texts are escaped by jinja2, figures stand in the page as JSON, and the policy
in its head lets no script run but the two that belong to it, and nothing reach a network.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from likeness.files.writing import replacing
from likeness.pages.interactive import plot, themes
from likeness.pages.parts import Drawn, Figure, Page, shown, slug
from likeness.pages.static import write_figure

HERE = Path(__file__).parent
INDEX, FIGURES = "index.html", "figures"


def write_page(page: Page, folder: Path) -> list[Path]:
    """``index.html`` and ``figures/``, in a folder that is made; answers what was written, the page first.

    Raises ValueError where two figures of the page would be one file.
    """
    figures = [part for part in page.parts() if isinstance(part, Figure)]
    _require_distinct(figure.name for figure in figures)
    written = [path for figure in figures for path in write_figure(figure, folder / FIGURES)]
    with replacing(folder / INDEX) as temporary:
        temporary.write_bytes(rendered(page).encode("utf-8", "replace"))
    return [folder / INDEX, *written]


def rendered(page: Page) -> str:
    """The page as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"shown": shown, "base64": _base64, "kind": lambda part: type(part).__name__}
    environment.globals["files"] = _links
    plotly, script = get_plotlyjs(), (HERE / "page.js").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        page=page,
        policy=policy(plotly, script),
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        figures=Markup(as_json(_figures(page))),
        plotly=Markup(plotly),
        script=Markup(script),
    )


def policy(*scripts: str) -> str:
    """The page's content security policy: these scripts, pictures within the page, and nothing else."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def as_json(content: Any) -> str:
    """JSON that may stand within a script element: nothing in it ends that, or begins another."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _figures(page: Page) -> dict[str, Any]:
    drawn = {part.name: plot(part) for part in page.parts() if isinstance(part, Drawn)}
    return {"themes": themes(), "figures": drawn}


def _links(name: str, kinds: Iterable[str]) -> Any:
    from markupsafe import Markup

    links = (
        Markup('<a href="{}/{}.{}" download>{}</a>').format(FIGURES, slug(name), kind, kind.upper()) for kind in kinds
    )
    return Markup(" ").join(links)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _require_distinct(names: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if (file := slug(name)) in seen:
            raise ValueError(f"figures {seen[file]!r} and {name!r} of a page would both be {file}.png")
        seen[file] = name
