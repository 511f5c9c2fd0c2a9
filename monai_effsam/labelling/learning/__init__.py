# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Submitted labels to a better model, published only when it is no worse."""
