"""The engine in a folder: one SQLite database, and append-only files of vectors that are mapped into memory.

| file | contents |
|---|---|
| `store.db` | settings, entries with their payloads, words for BM25, and the place of every vector; the only truth |
| `<layer>-<number>.block` | rows of vectors; written once and flushed to disk before the transaction that names them |
| `store.lock` | locked by the process that writes |

A transaction either names a batch whose vectors are on disk, or it does not exist. So a killed process, a full disk and
a power cut lose at most the batch in work, and a reader never sees a part of one. Readers take no lock of ours.

| to understand | read |
|---|---|
| how points are stored and removed | `writing`, then `rows` (the database) and `layers` (the files) |
| how a search is answered | `answers`, then `catalogue` and `scan`; with a first stage "centroids" also `segments` |
| transactions, processes and forks | `database`, `connections`, `lock`, `forks` |
| which folder is a store | `manifest`, `schema` |
| checks and repairs | `care`, then `check`, `survey` and `repair` |
"""
