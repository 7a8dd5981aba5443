"""AWS: tables and queues by calls of our own, and the SDK for all that is not plain.

    environment      credentials, Region and endpoints, where plain variables say them
    calls            signed calls of DynamoDB and SQS on sockets of our own
    sdk              aioboto3's session and clients: the one place that knows botocore
    session          which of the two serves a call
    dynamodb         the connection store
    sqs              the queues
    management_api   the transport that posts through the SDK

Rules
- A call on our own sockets is tried once; whatever does not succeed at once is the SDK's, with its
  retries and its words. So the SDK, which takes most of a cold start to load, is loaded when
  something is out of the ordinary, or for whoever sets ``TRANSPORT=sdk``.
- One retry policy each. botocore's standard one for the table and the queues, ours for posts.
"""

from .dynamodb import DynamoStore
from .session import Aws
from .sqs import SqsQueue

__all__ = ["Aws", "DynamoStore", "SqsQueue"]
