"""A self-contained page: sections of blocks, rendered by the templates beside this file.

`render` is for anyone who has something to report: a run (see `report.write_report`) or a study.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kernelgan.files import write_atomically
from kernelgan.report import drawing
from kernelgan.report.tables import Table

if TYPE_CHECKING:
    import jinja2
    from matplotlib.figure import Figure

PAGE_BYTES = 3_900_000
"""Most bytes of the page, under the 4 MB that mail puts up with.

Figures beyond it are only written as files, which the page links to; the last figures of the page first.
"""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Text:
    """A paragraph; a note is smaller."""

    text: str
    note: bool = False


@dataclass(frozen=True)
class Items:
    """A list of lines."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Text as it is, such as a command."""

    text: str


@dataclass(frozen=True)
class Links:
    """A text and links, each words and where they lead."""

    text: str
    links: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Box:
    """A verdict: its badge, tone ("yes", "no" or "cannot") and lines, the answer first."""

    badge: str
    tone: str
    lines: Sequence[str]
    compact: bool = False


@dataclass(frozen=True)
class Html:
    """Markup that is trusted: whoever makes it escapes it."""

    markup: str


@dataclass
class Picture:
    """A figure that is written as a file; `render` embeds it while the page stays small enough."""

    caption: str
    href: str
    data: str
    embedded: bool = False


@dataclass(frozen=True)
class Fold:
    """Blocks folded away under a title, with a badge of a tone; a link to `ident` unfolds it."""

    title: str
    blocks: Sequence[Block]
    open: bool = False
    ident: str = ""
    badge: str = ""
    tone: str = ""


Block = Table | Text | Items | Code | Links | Box | Html | Picture | Fold


@dataclass(frozen=True)
class Section:
    """A heading ("": none) and what is under it."""

    title: str
    blocks: Sequence[Block]


class Gallery:
    """Draws figures and writes each to a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def draw(self, name: str, draw: Callable[[], Figure], caption: str) -> Picture | Text:
        """A figure; a line of text where the run did not leave what it takes.

        Args:
          name: of the file, without a suffix.
          draw: makes the figure.
          caption: plain text.
        """
        try:
            image = drawing.png(draw)
        except drawing.MissingError as missing:
            return Text(f"Figure left out: {missing.args[0]}.", note=True)
        except (ValueError, TypeError, IndexError, KeyError) as error:
            # Arrays of an unexpected shape must not cost the reader the rest of the report.
            _log.warning("Figure %s could not be drawn: %s", name, error)
            return Text(f"Figure left out, it could not be drawn: {error}.", note=True)
        path = self.folder / f"{re.sub(r'[^A-Za-z0-9_-]+', '_', name)}.png"
        write_atomically(path, image)
        return Picture(caption, f"{self.folder.name}/{path.name}", base64.b64encode(image).decode())


def render(title: str, sections: Sequence[Section], *, facts: Sequence[str] = (), footer: str = "") -> str:
    """The page, with as many of its figures embedded, in order, as `PAGE_BYTES` allow.

    Args:
      title: of the page.
      sections: what is in it; all but `Html` is escaped.
      facts: short ones for the line under the title; empty ones are left out.
      footer: the last paragraph.
    """
    template = _environment().get_template("report.html.j2")
    meta = " · ".join(fact for fact in facts if fact)

    def rendered() -> str:
        return template.render(title=title, meta=meta, sections=sections, footer=footer)

    pictures = [one for section in sections for one in _pictures(section.blocks)]
    for picture in pictures:
        picture.embedded = False
    size = len(rendered().encode())
    for picture in pictures:
        more = len(picture.data) + 2 * len(picture.caption.encode()) + 200
        picture.embedded = size + more <= PAGE_BYTES
        size += more if picture.embedded else 0
    return rendered()


def _pictures(blocks: Sequence[Block]) -> Iterator[Picture]:
    for one in blocks:
        if isinstance(one, Picture):
            yield one
        elif isinstance(one, Fold):
            yield from _pictures(one.blocks)


def _environment() -> jinja2.Environment:
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.PackageLoader("kernelgan.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters["unbroken"] = _unbroken
    made.filters["place"] = lambda share: round(3 + 84 * min(max(share, 0.0), 1.0), 1)
    return made


def _unbroken(line: str) -> str:
    """A p-value is not to be torn apart at the end of a line."""
    return re.sub(r"\bp ([=<]) ", "p\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", line)
