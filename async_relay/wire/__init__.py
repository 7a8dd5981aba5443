"""What crosses a border, in and out. Pure.

streams    records of a DynamoDB Stream
messages   what clients are sent
incidents  the built-in formatter, which alone knows what an incident is
formatter  a formatter of the owner's own, loaded and called
jobs       what crosses a queue: jobs and dead letters
"""
