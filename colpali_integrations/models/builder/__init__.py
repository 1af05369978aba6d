"""ONNX graphs of original Hub checkpoints, built from config.json over the checkpoint's own safetensors.

No PyTorch, no export and no second copy of the weights: the initializers of a graph are places in the checkpoint's
files, which ONNX Runtime maps. In reading order:

| module | holds |
|---|---|
| `files` | the names of a checkpoint's files; what is missing or pickled |
| `weights` | where the tensors of a checkpoint are: headers, shards, names, data types |
| `adapters` | a PEFT LoRA adapter, merged into the weights that it adapts |
| `positions` | rotary angles, window plans and learned places, in numpy: inputs of a graph |
| `graph` | `GraphBuilder`: nodes, weights, inputs and outputs |
| `layers` | the parts of a transformer: linear, norms, rotary embedding, attention |
| `quantization`, `writing`, `quantized` | weights of 8 bits, made once and cached |
| `half` | a graph in float16 |
| `config` | a part of config.json as a dataclass |
| `linear_attention` | a gated delta rule, the linear attention of Qwen3.5 |
| `vision`, `decoder`, `qwen_tower`, `qwen_vl` | models that several architectures share |
| `layer_kinds`, `modernbert`, `ultrabert` | text models of Idefics3 whose layers attend to windows or to all tokens |
| `neomme`, `paligemma`, `idefics3`, `qwen2_vl`, `qwen3_vl`, `qwen3_5` | an architecture's configuration and graphs |
| `checkpoint_graph` | from a folder to graphs that sessions can run |
| `speeds` | how fast each precision is on this machine |
"""
