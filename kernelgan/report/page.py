"""A self-contained page: sections of blocks, rendered by the templates beside this file."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kernelgan.files import write_atomically
from kernelgan.report import drawing
from kernelgan.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_BYTES = 2_600_000
"""Most bytes of figures in a page, which is to stay under 4 MB for mail; others are links to files."""


@dataclass(frozen=True)
class Text:
    """A paragraph; a note is smaller, code is shown as it is."""

    text: str
    style: str = ""  # or "note" or "code"


@dataclass(frozen=True)
class Box:
    """A verdict: its badge, tone ("yes", "no" or "cannot") and lines, the answer first."""

    badge: str
    tone: str
    lines: Sequence[str]
    compact: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure: its file and, where it is part of the page, its bytes as base64."""

    caption: str
    href: str
    data: str = ""


@dataclass(frozen=True)
class Fold:
    """Blocks folded away under a title, with a badge of a tone; a link to `ident` unfolds it."""

    title: str
    blocks: Sequence[Block]
    open: bool = False
    ident: str = ""
    badge: str = ""
    tone: str = ""


Block = Table | Text | Box | Picture | Fold


@dataclass(frozen=True)
class Section:
    """A heading ("": none) and what is under it."""

    title: str
    blocks: Sequence[Block]

    @property
    def ident(self) -> str:
        """Of its heading, for links: ``answers-on-test-images``."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


class Gallery:
    """Draws figures, writes each to a folder, and embeds them in the page while there is room."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.room = FIGURE_BYTES
        folder.mkdir(parents=True, exist_ok=True)

    def draw(self, name: str, draw: Callable[[], Figure], caption: str, embed: bool = True) -> Picture | Text:
        """A figure; a line of text where the run did not leave what it takes.

        Args:
          name: of the file, without a suffix.
          draw: makes the figure.
          caption: plain text.
          embed: whether it is part of the page, if there is room.
        """
        try:
            image = drawing.png(draw)
        except (LookupError, ValueError, TypeError) as error:  # nothing else is lost
            return Text(f"Figure left out: {error.args[0]}.", "note")
        path = self.folder / f"{re.sub(r'[^A-Za-z0-9_-]+', '_', name)}.png"
        write_atomically(path, image)
        data = base64.b64encode(image).decode()
        data = data if embed and len(data) <= self.room else ""
        self.room -= len(data)
        return Picture(caption, f"{self.folder.name}/{path.name}", data)


def render(title: str, sections: Sequence[Section], *, facts: Sequence[str] = (), footer: str = "") -> str:
    """The page; all text is escaped. Empty facts are left out of the line under the title."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kernelgan.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["unbroken"] = lambda line: re.sub(r"\bp ([=<]) ", "p\u00a0\\1\u00a0", line)
    meta = " · ".join(fact for fact in facts if fact)
    template = environment.get_template("report.html.j2")
    return template.render(title=title, meta=meta, sections=sections, footer=footer)
