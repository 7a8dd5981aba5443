"""One WebSocket client at a time: the routes of the API that a single client calls.

    authorize   $connect's authorizer: who may come in, until when and for which tenants
    connect     $connect writes the client's row, $disconnect deletes it
    requests    $default: what a client asks for, and the answer (``answers``)
    history     the incidents as they are, from the incident table (``incident_list``) or from the feed
    catch_up    what a client missed, from the feed (``feed_copy``); ``kept``: how both are kept in memory
    tokens      whether a token is good, by the keys (``jwks``) of its ``issuer`` (``https_get``)
    events      what API Gateway's events say
    refusals    why somebody is not let in

``sandbox`` calls these functions with the table opened and a deadline set. Delivering messages to many
clients is the business of ``delivery``.
"""
