"""The table and the queues in AWS, by signed calls of our own, and the SDK for the rest.

    environment      credentials, Region and endpoints, where environment variables alone decide them; pure
    container        credentials that an endpoint beside the function hands out, as with SnapStart
    calls            calls of DynamoDB and SQS over a pool of signed sockets
    sdk              aioboto3's session and clients
    session          decides whether our own sockets or the SDK serve a call
    dynamodb         the connections table
    feed             what was published
    incidents        the table whose changes are broadcast, read for history
    sqs              the queues
    management_api   the transport that posts through the SDK
    foreign          tells the SDK's answers of AWS from a proxy's pages

``sdk``, ``management_api`` and ``foreign`` import the SDK; no other module of the package does when it is imported.

Rules
- A call on our own sockets is tried once. If it fails, the SDK makes the call again, with its retries and its
  error messages. So the SDK, which takes most of a cold start to load, is loaded only when something is out of
  the ordinary, or with ``TRANSPORT=sdk``.
- Retries are never stacked: botocore's standard policy retries calls of the table and the queues, and
  ``delivery`` retries posts.
"""

from .dynamodb import DynamoStore
from .feed import DynamoFeed
from .incidents import DynamoIncidents
from .session import Aws
from .sqs import SqsQueue

__all__ = ["Aws", "DynamoFeed", "DynamoIncidents", "DynamoStore", "SqsQueue"]
