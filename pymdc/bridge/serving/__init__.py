"""HTTP: the server, the application, one request, and the threads for what blocks.

`uvicorn` and `app` stand above the routes, and know nothing of users, buckets or files.
`request` and `threads` stand below the routes, and know nothing of them either.
"""
