"""Late interaction: MaxSim, packed and quantized pages, pooling, MUVERA, BM25."""
