"""How far a relay scales and what it costs, without an AWS account.

    prices       one dated table                      pure data
    values       traffic, setup, plan                 plain data, and the assumptions
    packing      messages -> posts                    pure
    model        traffic and setup -> a plan          pure formulas
    costs        a plan -> dollars a month            pure
    advice       which mode                           pure
    remedies     what to raise next                   pure
    scenario     a simulation's input and result      plain data
    simulation   the same, event by event             pure, seeded
    posting      one function of it, step by step     pure, seeded
    work         what it works on                     plain data, a clock
    quantities   numbers as people write them         pure
    plot         the plan as an SVG                   needs matplotlib

Nothing here knows AWS or the terminal; ``async_relay.cli.plan`` shows it, and runs the simulation with
``--simulate``. ``benchmarks/measurement.py`` measures the real Broadcaster beside the simulation.
"""
