"""The Qdrant engines: in a folder, and on a server."""
