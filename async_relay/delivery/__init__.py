"""Getting messages to clients: the two entries, the broadcast, and what becomes of what is left.

    relay         one stream event, or one batch of jobs, from start to end
    broadcaster   every message to every client: the bound, order, the deadline
    lanes         one client's progress, and what the answer to its post means
    rate          how many posts a second the account lets through
    evidence      which rows may go because their clients answered 410
    deletions     rows of gone clients, deleted beside the posting
    report        what a broadcast came to
    settlement    where each undelivered message goes: retry queue, dead letters, or back
    backoff       how long to wait before the next try
    pacing        how long an invocation waits before it hands records back
    protocols     what all of this asks of the world: transport, connection store, queue

Nothing here opens a socket or knows AWS.
"""
