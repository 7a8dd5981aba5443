"""AWS through aioboto3: the one place that knows the SDK and its errors.

    session          credentials, Region, clients that close together
    dynamodb         the connection store
    sqs              the queues
    management_api   the transport that posts through the SDK

Rule: one retry policy each. botocore's standard one for the table and the queues, ours for posts.
"""

from .dynamodb import DynamoStore
from .management_api import SdkTransport
from .session import Aws
from .sqs import SqsQueue

__all__ = ["Aws", "DynamoStore", "SdkTransport", "SqsQueue"]
