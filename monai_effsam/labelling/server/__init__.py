# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Our own server for a labelling app: what Slicer, `monailabel.client` and OHIF call, and nothing they do not.

    request -> Guard (host, origin, user, size) -> route (role, names, parameters) -> app, in a thread

The handlers of the stock server block its event loop and trust what they are sent; see docs/labelling/security.md.
"""

from monai_effsam.labelling.server.application import create_server
from monai_effsam.labelling.server.auth import Role, User
from monai_effsam.labelling.server.settings import Limits, OidcSettings, ServerSettings

__all__ = ["Limits", "OidcSettings", "Role", "ServerSettings", "User", "create_server"]
