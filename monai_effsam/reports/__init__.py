# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Pages, tables and plots for people to look at."""

from monai_effsam.reports.page import Finding, Picture, is_our_page, make_page

__all__ = ["Finding", "Picture", "is_our_page", "make_page"]
