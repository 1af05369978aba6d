"""The targets, by the kind of their input."""

from tests.fuzz.targets import arrays, files, models, stores, texts
from tests.fuzz.targets.names import NAMES

TARGETS = {target.name: target for module in (files, texts, models, stores, arrays) for target in module.TARGETS}
assert list(TARGETS) == NAMES
