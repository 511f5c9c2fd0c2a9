# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""`effsam COMMAND ...`: finds the command, parses, runs it, and turns every error into one line and a status.

Only the module of the command at hand is imported, and torch only by its `run`: help, version, the target table and
usage errors answer at once. Statuses: 0 all well, 1 something failed, 2 the request is wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, NoReturn

from monai_effsam import __version__
from monai_effsam.cli.common import add_verbosity
from monai_effsam.errors import EffsamError, UnknownNameError, UsageError

__all__ = ["COMMANDS", "Command", "main"]


class Command(NamedTuple):
    """A row of the command table.

    Args:
        module: where `add_arguments` and `run` are.
        summary: one line for `effsam --help`.
    """

    module: str
    summary: str


COMMANDS: Mapping[str, Command] = {
    "segment": Command("monai_effsam.cli.segment", "outline structures in pictures and volumes"),
    "train": Command("monai_effsam.cli.train", "train on your own labelled images, or on many sets"),
    "search": Command(
        "monai_effsam.cli.search", "find a small encoder that your machine runs within a budget"
    ),
    "distill": Command("monai_effsam.cli.distill", "make a small promptable model from a large one"),
    "evaluate": Command(
        "monai_effsam.cli.evaluate", "compare masks with labels of whole sets, and make a table"
    ),
    "compare": Command("monai_effsam.cli.compare", "prompt several models alike, and make a table of them"),
    "export": Command("monai_effsam.cli.export", "write a model as ONNX and OpenVINO graphs"),
    "profile": Command("monai_effsam.cli.profile", "print where the time of a picture goes"),
    "models": Command("monai_effsam.cli.models", "write a model card, or check a file of weights"),
    "label": Command("monai_effsam.cli.label", "serve the models to 3D Slicer and OHIF, and learn from them"),
    "demo": Command("monai_effsam.cli.demo", "segment the pictures of the demo and show them on a page"),
    "targets": Command(
        "monai_effsam.cli.targets", "print what can be outlined, with mask values and colours"
    ),
    "doctor": Command("monai_effsam.cli.doctor", "print versions, devices, and which extras are missing"),
}
"""Every command, in the order of the help text; a new command adds its row here."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ours, so that there is one door for all of them."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of exit; an unknown option is answered with the nearest one."""
        unknown = (
            message.rpartition("unrecognized arguments: ")[2].split()[0] if "unrecognized" in message else ""
        )
        near = difflib.get_close_matches(unknown, self._option_string_actions, n=1) if unknown else []
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise UsageError(f"{message}.{hint}\n{self.format_usage().strip()}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: what follows `effsam`; None for the arguments of this process.

    Returns:
        The exit status.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    where, verbose = "effsam", False
    try:
        if not words or words[0].startswith("-"):
            _root(words)
        where = f"effsam {words[0]}" if words[0] in COMMANDS else where
        module, args = _parse(words[0], words[1:])
        verbose = args.verbose > 0
        logging.basicConfig(level=_level(args), format="%(levelname)s %(name)s: %(message)s")
        _keep_out_of_home()
        return int(module.run(args))
    except SystemExit as end:  # help or version has been printed
        return int(end.code or 0)
    except KeyboardInterrupt:
        return _fail(f"{where}: interrupted", 130, verbose)
    except UsageError as error:
        return _fail(f"{where}: error: {error}", 2, verbose)
    except EffsamError as error:
        return _fail(f"{where}: error: {error}", 1, verbose)
    except BrokenPipeError:  # the reader of our output, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(f"{where}: error: {error}", 1, verbose)
    except Exception as error:  # noqa: BLE001  the last resort: a user sees one line, -v shows the rest
        hint = "" if verbose else " Run again with -v to see where."
        return _fail(f"{where}: unexpected {type(error).__name__}: {_one_line(error)}.{hint}", 1, verbose)


def _keep_out_of_home() -> None:
    """Where matplotlib is installed, MONAI imports it, which would make folders in the home; it is never used."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"effsam-matplotlib-{user}"
    os.environ.setdefault("MPLCONFIGDIR", str(folder))


def _root(words: list[str]) -> NoReturn:
    """Help, version (both leave by SystemExit), or an error, when no command is named."""
    width = max(map(len, COMMANDS)) + 2
    table = "\n".join(f"  {name:<{width}}{command.summary}" for name, command in COMMANDS.items())
    parser = _Parser(
        prog="effsam",
        usage="effsam [-h] [--version] COMMAND ...",
        description="Outlines structures in medical images, without a prompt and without a GPU.",
        epilog=f"commands:\n{table}\n\n`effsam COMMAND --help` tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"effsam {__version__}")
    parser.parse_args(words)
    parser.error(f"no command given, expected one of {', '.join(COMMANDS)}")


def _parse(name: str, words: list[str]) -> tuple[ModuleType, argparse.Namespace]:
    """The module of a command and its parsed arguments; `--help` prints and leaves."""
    if name not in COMMANDS:
        raise UnknownNameError("command", name, COMMANDS)
    module = importlib.import_module(COMMANDS[name].module)
    parser = _Parser(prog=f"effsam {name}", description=module.__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    module.add_arguments(parser)
    add_verbosity(parser)
    return module, parser.parse_intermixed_args(words)  # inputs may stand before and after options


def _level(args: argparse.Namespace) -> int:
    """The log level that -v and -q ask for."""
    if args.quiet:
        return logging.ERROR
    return (logging.WARNING, logging.INFO, logging.DEBUG)[min(args.verbose, 2)]


def _one_line(error: BaseException) -> str:
    """The first line of an error, or the name of an error that says nothing."""
    return next(iter(str(error).strip().splitlines()), "no message").rstrip(".")


def _fail(message: str, status: int, verbose: bool) -> int:
    """Tell the user, with the trace if they asked for it; returns the status."""
    if verbose:
        traceback.print_exc()
    print(message, file=sys.stderr)
    return status
