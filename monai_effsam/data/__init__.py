# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Pictures and labels: reading and writing files (`io`), placing images in a model's frame, data sets."""
