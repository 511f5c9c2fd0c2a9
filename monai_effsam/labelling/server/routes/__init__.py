# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""One file a subject; each has `..._router(state)`, and names the role that its routes need."""
