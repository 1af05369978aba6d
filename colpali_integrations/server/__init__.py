"""The HTTP server: search, embeddings, reranking and documents for other processes, on Starlette and uvicorn.

`serving.serve` runs it, and `app.create_app` is its ASGI application. A handler checks a request against the schema of
`schemas`, calls the store or the model in a queue of `queues`, and translates the answer; nothing else is done here.
`routes` is the one table of addresses, and `access` the one place that decides who may call. `search_page` sends the
files of `page/`, which use the same addresses as every program; `agents` answers `/mcp`.
"""
