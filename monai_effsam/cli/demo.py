# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Segment the pictures of the demo without a prompt and make one HTML page to look at.

The pictures come with the source, with credit; those of a data folder are added to the page where there is one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from monai_effsam.cli.common import add_options
from monai_effsam.cli.model_options import add_model_options, check_model_options, open_segmenter
from monai_effsam.errors import DataError, UsageError

if TYPE_CHECKING:
    from monai_effsam.inference import Segmentation, Segmenter
    from monai_effsam.reports import Finding, Picture

__all__ = ["Entry", "add_arguments", "read_manifest", "run", "show"]

ROOT = Path(__file__).resolve().parents[2]
"""Root of a checkout; in an installed package, a folder without a demo."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture to show.

    Args:
        file: its path.
        modality: its modality.
        group: heading under which it stands.
        targets: names of the targets wanted; none means all of the modality.
        credit: who made it.
        licence: name of the terms.
        source: address of the origin.
        remark: what a reader should know.
    """

    file: Path
    modality: str
    group: str
    targets: tuple[str, ...] = ()
    credit: str = ""
    licence: str = ""
    source: str = ""
    remark: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `effsam demo`."""
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for index.html (default: out beside the pictures)",
    )
    parser.add_argument(
        "--images",
        type=Path,
        default=ROOT / "demo",
        metavar="DIR",
        help="folder with manifest.json and pictures",
    )
    parser.add_argument(
        "--extra-data",
        type=Path,
        metavar="DIR",
        help="data folder of which some val pictures are shown too (default: ../shared/data, where it is)",
    )
    add_options(parser, "overwrite")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Exit status: 0 all well, 1 some pictures failed."""
    check_model_options(args)
    entries = read_manifest(args.images)
    extra = args.extra_data or ROOT.parent / "shared" / "data"
    page = (args.out or args.images / "out") / "index.html"
    _check_page(page, args.overwrite)
    if args.extra_data or (extra / "targets.csv").is_file():
        entries += list(_extra_entries(extra, entries))
    segmenter = open_segmenter(args)
    if segmenter.promptable:
        raise UsageError(
            f"--model: {segmenter.model.path} outlines what it is prompted for, expected a self-prompting model: "
            "nobody prompts in a demo. Name another."
        )
    pictures = list(show(entries, segmenter, quiet=args.quiet))
    _write_page(page, pictures, segmenter)
    if not args.quiet:
        print(page)
    return 1 if any(picture.error for picture in pictures) else 0


def read_manifest(folder: Path) -> list[Entry]:
    """The pictures that `manifest.json` of a folder lists.

    Raises:
        UsageError: there is no manifest.
        DataError: it cannot be understood.
    """
    path = folder / "manifest.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [_entry(folder, row) for row in rows]
    except FileNotFoundError as error:
        raise UsageError(
            f"{path}: is missing; the pictures of the demo come with the source, not with the package. "
            "Clone the project, or give --images."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: is no list of pictures ({error}), expected file, modality, licence ..."
        ) from error


def show(entries: Sequence[Entry], segmenter: Segmenter, *, quiet: bool = False) -> Iterator[Picture]:
    """Segment the pictures one after the other; a bad one is reported, and stands on the page with its error."""
    from tqdm import tqdm

    disable = True if quiet else None
    if entries:
        _try_picture(entries[0], segmenter)  # so that the first time shown is not that of warming up
    for entry in tqdm(entries, unit="image", delay=2, disable=disable, leave=False):
        picture = _try_picture(entry, segmenter)
        if picture.error:
            print(f"error: {picture.error}", file=sys.stderr)
        yield picture


def _entry(folder: Path, row: dict[str, str | list[str]]) -> Entry:
    remark = ""
    if row.get("split") == "train":
        remark = (
            "The model saw this one in training: it shows the way of a volume, not how well the model does."
        )
    modality = str(row["modality"])
    return Entry(
        file=folder / str(row["file"]),
        modality=modality,
        group=_heading(modality),
        targets=tuple(row.get("targets") or ()),
        credit=str(row["credit"]),
        licence=str(row["licence"]),
        source=str(row["source"]),
        remark=remark,
    )


def _extra_entries(root: Path, shown: Sequence[Entry], each: int = 2) -> Iterator[Entry]:
    """A few val pictures of each set of a data folder, but for those sets that the demo's own pictures are from."""
    from monai_effsam.data.sets import read_set, set_names

    names = {entry.file.name for entry in shown}
    for name in set_names(root):
        cases = read_set(root / name)
        if any(case.image.name in names for case in cases):
            continue
        held_out = [case for case in cases if case.split == "val"]
        for case in held_out[:: max(1, len(held_out) // each)][:each]:
            yield Entry(
                file=case.image,
                modality=case.modality,
                group=_heading(case.modality),
                targets=tuple(case.values.values()),
                credit=f"set {name} of the data folder, see its README",
                licence="not to be passed on",
            )


def _heading(modality: str) -> str:
    return {"xray": "X-ray", "ct": "CT", "mr": "MR"}.get(modality, modality.capitalize())


def _try_picture(entry: Entry, segmenter: Segmenter) -> Picture:
    from monai_effsam.reports import Picture

    try:
        return _picture(entry, segmenter)
    except (DataError, UsageError) as error:
        return Picture(entry.file.name, entry.group, error=str(error))


def _picture(entry: Entry, segmenter: Segmenter) -> Picture:
    from monai_effsam.data.io import read_image
    from monai_effsam.data.io.overlay import draw_sheet
    from monai_effsam.reports import Picture

    start = time.perf_counter()
    image = read_image(entry.file, modality=entry.modality)
    found = segmenter.segment(image, entry.modality, targets=entry.targets or None)
    colours = {target.value: target.colour for target in segmenter.model.targets}
    overlay = draw_sheet(image, found.mask, colours)
    ms = (time.perf_counter() - start) * 1000
    height, width = image.size
    slices = f"{len(image)} slices of " if len(image) > 1 else ""
    return Picture(
        title=entry.file.name,
        group=entry.group,
        facts=f"{slices}{width} x {height} px, {ms:.0f} ms from file to overlay",
        image=draw_sheet(image, found.mask, None),
        overlay=overlay,
        findings=_findings(found, colours),
        credit=entry.credit,
        licence=entry.licence,
        source=entry.source,
        remark=entry.remark,
    )


def _findings(found: Segmentation, colours: dict[int, tuple[int, int, int]]) -> tuple[Finding, ...]:
    from monai_effsam.inference.results import size_text
    from monai_effsam.reports import Finding

    return tuple(
        Finding(one.name, colours[one.value], one.found, one.presence, one.quality, size_text(one.to_json()))
        for one in found.found
    )


def _check_page(page: Path, overwrite: bool) -> None:
    """Our own page is made again at will; a file that somebody else made is not touched."""
    from monai_effsam.reports import is_our_page

    if page.exists() and not overwrite and not is_our_page(page):
        raise UsageError(
            f"{page}: exists and is not a page of this command. Add --overwrite or choose another -o."
        )


def _write_page(page: Path, pictures: Sequence[Picture], segmenter: Segmenter) -> None:
    from monai_effsam.data.io import write_bytes
    from monai_effsam.reports import make_page

    intro = (
        "Left: a picture as it was read. Right: what the model outlined, with no prompt and no click.",
        "Presence is the probability that the target is there at all; below 0.5 the answer is “nothing here”.",
        "For research only; not a medical device.",
    )
    footer = (f"Made by effsam demo, model {segmenter.model.path.name}, device {segmenter.device}.",)
    write_bytes(page, make_page("Outlined without a prompt", intro, pictures, footer).encode())
