# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Search of encoders for the user's own hardware: what may be chosen (`space`), and what it costs (`cost`)."""
