# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""How many labels a strategy saves: sets whose labels are known, given out one round after the other."""
