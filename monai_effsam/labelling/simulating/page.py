# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""A simulation as a page of the documentation: command, rules, pictures, tables."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from monai_effsam.labelling.durable import write_durably
from monai_effsam.labelling.simulating.report import learning_curves, simulation_table
from monai_effsam.labelling.simulating.rounds import RoundRow

__all__ = ["write_page"]

_RULES = (
    "In the first round all strategies label the same random images. Labels saved: on the way to the Dice that random "
    "choice has in its last round, where the mean curve first reaches it, and from where it stays above. Dice above "
    "random: of the same seed, over the rounds in which strategies differ, with Student's interval over the seeds."
)


def write_page(
    page: Path, rows: Sequence[RoundRow], arguments: Sequence[str], notes: Path | None = None
) -> None:
    """Write a Markdown page, and its pictures beside it.

    Args:
        page: file to write.
        rows: of a simulation.
        arguments: of the command that made them; those about the page itself are not told.
        notes: Markdown that the page says besides.
    """
    own = list(arguments)
    for option in ("--write-docs", "--notes"):
        if option in own:
            del own[own.index(option) : own.index(option) + 2]
    links = []
    for ending, clicks in (("", False), ("_clicks", True)):
        picture = page.with_name(f"{page.stem}{ending}.svg")
        write_durably(picture, learning_curves(rows, clicks=clicks).encode())
        links.append(f"![Dice against {'clicks' if clicks else 'labels'}]({picture.name})")
    command = shlex.join(["python", "-m", "monai_effsam.labelling.simulating", *own])
    parts = [
        "# What choosing saves",
        f"Made by `{command}`; not edited. {_RULES}",
        *([notes.read_text(encoding="utf-8").strip()] if notes else []),
        *links,
        simulation_table(rows),
    ]
    write_durably(page, "\n\n".join(parts).encode())
