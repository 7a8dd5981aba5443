"""What crosses a border, in and out. Pure.

streams    records of a DynamoDB Stream
messages   what clients are sent
jobs       what crosses a queue: jobs and dead letters
"""
