"""Signed HTTP/1.1 on keep-alive sockets of our own.

direct        PostToConnection: the transport of ``TRANSPORT=direct``
pool          the sockets: who carries what, timeouts, answers
dialling      one connection to whichever of a host's addresses answers first
descriptors   how many sockets a process may hold
sigv4         AWS Signature Version 4
"""
