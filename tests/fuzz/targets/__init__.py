"""The targets, by the kind of their input."""

from tests.fuzz.names import NAMES
from tests.fuzz.targets import arrays, files, models, places, qdrant, stores, tables, texts

TARGETS = {
    target.name: target
    for module in (files, texts, models, stores, arrays, tables, qdrant, places)
    for target in module.TARGETS
}
assert list(TARGETS) == NAMES
