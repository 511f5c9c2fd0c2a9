# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Training: steps, runs and what a bundle names of them."""
