"""`packstream bench`: what the system does against named references, measured in the same run on the same machine.

Each bench is a module with `async def run(plan: Plan) -> list[Result]` and starts its own parts. Rounds are interleaved
(A B A B …), so that a drift of the machine meets both sides; ratios are medians over the rounds.
"""
