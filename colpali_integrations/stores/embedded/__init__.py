"""The engine in a folder: one SQLite database, and append-only files of vectors that are mapped into memory.

| file | contents |
|---|---|
| `store.db` | settings, entries with their payloads, words for BM25, and the place of every vector; the only truth |
| `<layer>-<number>.block` | rows of vectors; written once and flushed to disk before the transaction that names them |
| `store.lock` | locked by the process that writes |

A transaction either names a batch whose vectors are on disk, or it does not exist. So a killed process, a full disk and
a power cut lose at most the batch in work, and a reader never sees a part of one. Readers take no lock of ours.
"""
