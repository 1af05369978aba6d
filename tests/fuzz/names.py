"""The names of the targets, without their imports."""

NAMES = [
    *("pdf", "image", "exif", "replies"),
    *("uri", "options", "filters", "llama_filters", "identity", "payload", "grid", "words", "report"),
    *("model_folder", "weights", "onnx", "store", "arrays", "parquet", "rows"),
    *("answers", "foreign", "strict", "place", "collection", "layout"),
]
