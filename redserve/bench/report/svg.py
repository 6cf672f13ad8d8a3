"""Elements of SVG and HTML as text."""

from __future__ import annotations

from html import escape


def tag(element: str, /, *children: str, **attributes: str | float) -> str:
    """An element; `children` are markup already, attributes are escaped.

    `class_` is `class`, other underscores are hyphens; floats have two digits after the point, so
    that the same picture is the same text on every machine.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_written(value))}"'
        for name, value in attributes.items()
    )
    return f"<{element}{written}>{''.join(children)}</{element}>"


def text(content: str) -> str:
    """Text as markup."""
    return escape(content)


def _written(value: str | float) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)
