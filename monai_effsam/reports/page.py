# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""One HTML page of pictures and what was found in them: everything inline, no request leaves the reader's machine."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import cv2
import numpy as np
from numpy.typing import NDArray

from monai_effsam.errors import DataError

__all__ = ["Finding", "Picture", "is_our_page", "make_article", "make_page", "render_page"]

_MARK = '<meta name="generator" content="monai_effsam">'
_QUALITY = 88
_LONGEST = 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """One target of a picture.

    Args:
        name: the target's name.
        colour: of its outline, 8-bit RGB.
        found: whether it was outlined.
        presence: probability that it is there, 0..1.
        quality: the model's own estimate of IoU, 0..1.
        size: its extent, with unit.
    """

    name: str
    colour: tuple[int, int, int]
    found: bool
    presence: float
    quality: float
    size: str


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture of the page; `image` and `overlay` are None if it failed.

    Args:
        title: its name.
        group: heading under which it stands.
        facts: a line beside the title: size, time.
        image: (H, W, 3) uint8, as read.
        overlay: (H, W, 3) uint8, the same with outlines.
        findings: one a target.
        credit: who made it.
        licence: name of the terms.
        source: address of the origin, or empty.
        remark: what a reader should know, or empty.
        error: why it failed, or empty.
        captions: what stands below image and overlay.
    """

    title: str
    group: str
    facts: str = ""
    image: NDArray[np.uint8] | None = None
    overlay: NDArray[np.uint8] | None = None
    findings: tuple[Finding, ...] = ()
    credit: str = ""
    licence: str = ""
    source: str = ""
    remark: str = ""
    error: str = ""
    captions: tuple[str, str] = ("input", "outlined without a prompt")


def make_page(
    title: str, intro: Sequence[str], pictures: Iterable[Picture], footer: Sequence[str] = ()
) -> str:
    """The page's HTML.

    Args:
        title: heading of the page.
        intro: paragraphs below it.
        pictures: shown in order, under their groups in order of appearance.
        footer: paragraphs below the credits.
    """
    groups: dict[str, list[Picture]] = {}
    for picture in pictures:
        groups.setdefault(picture.group, []).append(picture)
    body = [
        f"<section><h2>{escape(name)}</h2>{''.join(map(make_article, members))}</section>"
        for name, members in groups.items()
    ]
    origins = _credits([picture for members in groups.values() for picture in members])
    end = f"<h2>Credits and licences</h2>\n{origins}\n{_paragraphs(footer, 'soft small')}"
    return render_page(title, intro, "\n".join(body), end)


def render_page(title: str, intro: Sequence[str], body: str, footer: str = "") -> str:
    """A page in the house's form.

    Args:
        title: heading of the page.
        intro: paragraphs below it.
        body: HTML.
        footer: HTML.
    """
    template = Template(files("monai_effsam.reports").joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title), intro=_paragraphs(intro, "soft"), body=body, footer=footer
    )


def is_our_page(path: Path) -> bool:
    """Whether a file was made by `render_page`, and may be made again.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return _MARK in path.read_bytes()[:2000].decode("utf-8", "replace")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Choose another folder.") from error


def make_article(picture: Picture) -> str:
    """One picture as a part of a page."""
    facts = f'<span class="soft small">{escape(picture.facts)}</span>'
    parts = [f'<div class="head"><h3>{escape(picture.title)}</h3>{facts}</div>']
    if picture.image is not None and picture.overlay is not None:
        first, second = picture.captions
        parts.append(
            f'<div class="pair">{_figure(picture.image, f"{picture.title}, {first}", first)}'
            f"{_figure(picture.overlay, f'{picture.title}, {second}', second)}</div>"
        )
    if picture.findings:
        parts.append(_table(picture.findings))
    if picture.remark:
        parts.append(f'<p class="remark small">{escape(picture.remark)}</p>')
    if picture.error:
        parts.append(f'<p class="error">{escape(picture.error)}</p>')
    return f"<article>{''.join(parts)}</article>"


def _figure(pixels: NDArray[np.uint8], alternative: str, caption: str) -> str:
    height, width = pixels.shape[:2]
    factor = _LONGEST / max(height, width)
    if factor < 1:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
    data = base64.b64encode(encoded).decode("ascii")
    return (
        f'<figure><img alt="{escape(alternative)}" src="data:image/jpeg;base64,{data}" '
        f'width="{pixels.shape[1]}" height="{pixels.shape[0]}"><figcaption>{escape(caption)}</figcaption></figure>'
    )


def _table(findings: Sequence[Finding]) -> str:
    rows = []
    for finding in findings:
        colour = "#{:02x}{:02x}{:02x}".format(*finding.colour)
        swatch = f'<span class="swatch" style="background:{colour}"></span>'
        kind = "" if finding.found else ' class="absent"'
        cells = [finding.size, f"{finding.quality:.2f}"] if finding.found else ["nothing here", ""]
        rows.append(
            f"<tr{kind}><td>{swatch}{escape(finding.name.replace('_', ' '))}</td><td>{finding.presence:.2f}</td>"
            f"{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        )
    titles = "".join(f"<th>{title}</th>" for title in ("target", "presence", "size", "estimated IoU"))
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _credits(pictures: Sequence[Picture]) -> str:
    """Who made which pictures, and under what terms; one entry an origin."""
    origins: dict[tuple[str, str, str], list[str]] = {}
    for picture in pictures:
        if picture.credit or picture.licence:
            origins.setdefault((picture.credit, picture.licence, picture.source), []).append(picture.title)
    items = []
    for (credit, licence, source), titles in origins.items():
        link = f' <a href="{escape(source)}" rel="noreferrer">{escape(source)}</a>' if source else ""
        names = escape(", ".join(titles))
        items.append(
            f"<li>{escape(credit)}: <b>{escape(licence)}</b>.{link} <span class='soft'>{names}</span></li>"
        )
    return f'<ul class="small">{"".join(items)}</ul>'


def _paragraphs(texts: Sequence[str], kind: str) -> str:
    return "\n".join(f'<p class="{kind}">{escape(text)}</p>' for text in texts)
