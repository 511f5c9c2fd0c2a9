# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""`python -m monai_effsam.cli`, the same as `effsam`."""

import sys

from monai_effsam.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
