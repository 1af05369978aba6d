"""ONNX Runtime sessions, graphs, and the ordered, parallel pipeline."""

import os

# From version 1.29 on, onnxruntime reports every process that imports it to its maker, unless this is set before the
# import (https://github.com/microsoft/onnxruntime/pull/27379). The threads that report do not survive a fork: a forked
# process would wait for them at its end, for ever.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
