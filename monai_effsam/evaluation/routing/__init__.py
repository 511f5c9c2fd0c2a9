# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""How well a modality router names pictures: of validation, of other archives, foreign ones."""
