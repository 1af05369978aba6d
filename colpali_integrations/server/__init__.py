"""The HTTP server: search, embeddings, reranking and documents for other processes, on Starlette and uvicorn.

`serving.serve` runs it, and `app.create_app` is its ASGI application. A handler checks a request against the schema of
`schemas`, calls the store or the model in a queue of `queues`, and translates the answer; nothing else is done here.
Places for what comes later: `routes` is the one table of addresses (a page at `/`, `/mcp`), and `access` the one place
that decides who may call.
"""
