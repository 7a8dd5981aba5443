"""Signed HTTP/1.1 over keep-alive sockets of our own.

    direct        PostToConnection: the transport of ``TRANSPORT=direct``
    pool          sockets to one endpoint: which socket sends a request, timeouts, retries on stale sockets
    sockets       one socket: it writes a request and parses the answer
    opening       opens a socket: TCP, TLS, and another try where no file descriptor is left
    dialling      a TCP connection to the first of a host's addresses that answers
    descriptors   how many sockets the process may hold
    tls           which certificate authorities a socket trusts
    sigv4         AWS Signature Version 4; pure

``aws.calls`` uses the same pool for DynamoDB and SQS.
"""
