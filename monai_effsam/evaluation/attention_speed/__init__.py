# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""How fast local attention is, and what it takes: `python -m monai_effsam.evaluation.attention_speed`."""
