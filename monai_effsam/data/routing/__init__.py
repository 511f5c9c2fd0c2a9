# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Pictures for the question what kind of image this is: those of known modalities, and foreign ones."""
