# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Comparisons of networks that are trained for nothing else: what a paper claims, on data at hand."""
