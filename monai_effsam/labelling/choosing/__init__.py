# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What to label next: strategies that read scores, made in the background."""
