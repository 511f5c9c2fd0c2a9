# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""What every bundle has to pass."""

import pydoc

from monai.bundle import ComponentLocator, verify_metadata


def values_of(config, key):
    """Every value of a key, at any depth."""
    if isinstance(config, dict):
        yield from (value for name, value in config.items() if name == key)
    for part in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        yield from values_of(part, key)


def assert_components_exist(config):
    """Every component is found by its path, or by MONAI under its name."""
    locator = ComponentLocator()
    for target in values_of(config, "_target_"):
        if "." in target:
            assert pydoc.locate(target) is not None, target
        else:
            assert isinstance(locator.get_component_module_name(target), str), target


def verify_schema(root, bundle):
    """The metadata follow MONAI's schema, which raises where they do not."""
    verify_metadata(
        meta_file=str(root / "bundles" / bundle / "configs" / "metadata.json"),
        filepath=str(root / "tests" / "bundles" / "meta_schema_20240725.json"),
        hash_val="06954cad2cc5d3784e72077ac76f0fc8",
    )
