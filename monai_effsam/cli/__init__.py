# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The command line: one file a command, each a few lines over a call that a library user can make as well.

A command module holds `add_arguments(parser)` and `run(args) -> int`, imports nothing heavy at its top, and has a
row in `monai_effsam.cli.main.COMMANDS`; its docstring is the description in its help.
"""
