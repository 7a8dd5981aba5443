"""The whole relay on this machine: ``python -m demo``, or ``make demo``.

What happens, in order; each line is a module
- ``installation``  the local AWS gets an environment of its own in ``.demo``
- ``local_aws``     it runs in a process group of its own, and dies with it
- ``deployment``    the zip is built and the real ``template.yaml`` deployed; ``--fanout``: with the fan-out
- ``issuer``        tokens, since the stack's door is closed; ``door`` those who come without a good one
- ``clients``       dashboards: real WebSockets, each with a token
- ``feed``          incidents and remediation logs, seeded, written to DynamoDB
- ``ledger``        who got what, how fast; ``verdict`` says what went wrong, ``deliveries`` how it stands
- ``page``          serves the dashboard, and ``panel`` beside it: buttons that do something to the stack; ``view`` the
  terminal
- ``playing``       puts these together
- ``story``         plays until Ctrl-C; ``show`` the round that is checked
"""
