# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Where images and labels lie: a folder, or a DICOMweb archive."""
