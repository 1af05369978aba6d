"""ONNX graphs of original Hub checkpoints, built from config.json over the checkpoint's own safetensors.

No PyTorch, no export and no second copy of the weights: the initializers of a graph are places in the checkpoint's
files, which ONNX Runtime maps. In reading order:

| module | holds |
|---|---|
| `weights` | where the tensors of a checkpoint are: headers, shards, names, data types |
| `adapters` | a PEFT LoRA adapter, merged into the weights that it adapts |
| `positions` | rotary angles and window plans, in numpy: inputs of a graph |
| `graph` | `GraphBuilder`: nodes, weights, inputs and outputs |
| `layers` | the parts of a transformer: linear, norms, rotary embedding, attention |
| `precision`, `quantized` | int8 weights, made once and cached |
| `neomme` | one file per architecture: its configuration, its graph and its inputs |
| `checkpoint_graph` | from a folder to a graph that a session can run |
"""
