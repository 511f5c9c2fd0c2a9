# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What TiC's parts are worth: `python -m monai_effsam.studies.tic`."""
