"""
HTML that is escaped by construction: a text becomes markup only through ``element``, which escapes it.
"""

from collections.abc import Iterable
from html import escape


class Markup(str):
    """HTML that is ready to be written. Made by ``element`` and ``join``; any other string is a text."""

    __slots__ = ()


Content = str | Iterable["Content"]

VOID = ("img", "meta")
"""Elements without content or an end."""


def element(name: str, /, *content: Content, **attributes: str) -> Markup:
    """
    One element. ``class_`` gives the attribute ``class``; other underscores become hyphens.

    >>> element("td", "a < b", element("b", "&"), class_="n")
    '<td class="n">a &lt; b<b>&amp;</b></td>'
    """
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{join(content)}</{name}>")


def join(content: Iterable[Content]) -> Markup:
    """Texts, markup and lists of both, one after the other."""
    parts = []
    for part in content:
        if isinstance(part, Markup):
            parts.append(str(part))
        elif isinstance(part, str):
            parts.append(escape(part))
        else:
            parts.append(str(join(part)))
    return Markup("".join(parts))


def table(head: Iterable[str], rows: Iterable[Iterable[Content]], class_: str = "") -> Markup:
    """
    A table in a box that scrolls by itself on a narrow screen. The first cell of a row names the row; a row of one cell
    is the heading of those below it.
    """
    head = tuple(head)
    header = element("thead", element("tr", [element("th", name, scope="col") for name in head]))
    body = []
    for row in rows:
        first, *others = row
        if not others:
            heading = element("th", first, scope="rowgroup", colspan=str(len(head)))
            body.append(element("tr", heading, class_="group"))
            continue
        body.append(element("tr", element("th", first, scope="row"), [element("td", cell) for cell in others]))
    return element("div", element("table", header, element("tbody", body), class_=class_), class_="scroll")
