"""Getting messages to clients: from an event to posts, and from undelivered messages to the queues.

    relay         the two entries: a stream event, or a batch of queue messages, from start to end
    deliveries    from an event to the jobs to serve; runs of FIFO jobs that share a read
    fanout        when a batch goes to workers instead, and its dispatch
    outbox        entries for the queues, and the items that go back if a queue does not take them
    settlement    where undelivered messages go: retry queue, dead letters, or back
    pacing        how long an invocation waits before it hands records back

    broadcaster   every message to every client: the bound, order, the deadline
    lanes         one lane per client: how far it has come
    retry_policy  the next step for a client whose post was not delivered
    rate          how many posts per second the account lets through
    backoff       how long to wait before the next try
    evidence      which rows may go because their clients answered 410
    deletions     deletes the rows of gone clients beside the posting
    report        the outcomes of a broadcast, its figures, and when a message is refused by all

    protocols     the interfaces to the world: transport, connection store, queue

Nothing here opens a socket or knows AWS.
"""
