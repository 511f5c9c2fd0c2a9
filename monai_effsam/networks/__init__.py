# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""Networks, from single layers to whole models: tensors in, tensors out."""
