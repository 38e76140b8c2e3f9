"""HTML elements whose text is always escaped, and figures as inline SVG."""

from __future__ import annotations

import html
import io
import re

import matplotlib
from matplotlib.figure import Figure

from jgd.report.figures import DARK, theme

__all__ = ["Markup", "el", "inline_svg", "palette"]


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def el(name: str, *children: str | None, **attributes: object) -> Markup:
    """Return an element; children that are not `Markup` are escaped, None is left out.

    Args:
      name: Name of the element.
      *children: Text and elements.
      **attributes: Attributes. A trailing underscore is dropped, others become hyphens; None and False are
        left out, True is an attribute without value.
    """
    parts = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        parts.append(f" {key}" if value is True else f' {key}="{html.escape(str(value))}"')
    return Markup(f"<{name}{''.join(parts)}>{join(*children)}</{name}>")


def join(*children: str | None) -> Markup:
    """Return several children as one."""
    return Markup("".join(c if isinstance(c, Markup) else html.escape(c) for c in children if c is not None))


def _variable(color: str) -> str:
    return f"var(--c{list(DARK).index(color)})"


def palette(*, dark: bool) -> str:
    """Return the declarations of the custom properties that `inline_svg` refers to."""
    return " ".join(f"--c{i}: {DARK[c] if dark else c};" for i, c in enumerate(DARK))


def inline_svg(figure: Figure, name: str, *, title: str, description: str) -> Markup:
    """Return a figure as an SVG element in the colours and the font of the page.

    Args:
      figure: Figure in the colours of `jgd.report.figures.DARK`.
      name: Prefix of the ids inside, unique on the page.
      title: Title of the picture.
      description: Text for readers who cannot see the picture.
    """
    buffer = io.StringIO()
    with theme(), matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    source = buffer.getvalue()
    body = source[source.index("</metadata>") + len("</metadata>") : source.rindex("</svg>")]
    width, height = figure.get_size_inches() * 72
    root = {
        "class": "plot",
        "viewBox": f"0 0 {width:g} {height:g}",
        "role": "img",
        "aria_labelledby": f"{name}-title",
        "aria_describedby": f"{name}-desc",
        "style": f"--natural: {width / 72:.3g}in",
    }
    parts = el("title", title, id=f"{name}-title"), el("desc", description, id=f"{name}-desc")
    return el("svg", *parts, Markup(_tidy(body, name)), **root)


def _tidy(body: str, name: str) -> str:
    """Matplotlib's elements without what the page says once, with unique ids and the page's colours."""
    body = re.sub(r"<!--.*?-->|<style.*?</style>", "", body, flags=re.DOTALL)
    used = {a or b for a, b in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', body)}

    def tag(match: re.Match[str]) -> str:
        text = " ".join(match[0].split()).replace("xlink:href=", "href=")
        text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
        text = re.sub(r' transform="rotate\(-?0 [^)]*\)"', "", text)
        text = re.sub(r"(\d\.\d\d)\d+", r"\1", text)  # hundredths of a point
        text = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
        text = re.sub(r'(href="|url\()#', rf"\g<1>#{name}-", text)
        return re.sub("|".join(DARK), lambda m: _variable(m[0]), text)

    return re.sub(r">\s+<", ">\n<", re.sub(r"<[^>]*>", tag, body)).strip()
