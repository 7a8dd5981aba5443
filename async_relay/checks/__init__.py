"""Whether a deployment is as it must be, from a description of it.

    deployment    the description               plain data
    findings      findings, report, verdict     plain data
    account       credentials, clock, endpoint, quota
    functions     settings, state, zip
    permissions   what each role must be allowed
    tables, queues, mappings, door
    examination   all of them, in order

Nothing here knows the network or the terminal: ``async_relay.cli`` asks AWS and shows the report.
"""
