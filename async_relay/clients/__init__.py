"""One WebSocket client at a time: the routes of the API that a single client calls.

    connect   $connect writes the client's row, $disconnect deletes it

``sandbox`` calls these functions with the table opened and a deadline set. Delivering messages to many
clients is the business of ``delivery``.
"""
