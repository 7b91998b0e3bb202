"""What the engine does against each fault, taken out again: a proof that cannot fail without it proves nothing.

Each module here has one function `apply()`, which breaks the engine of the process that calls it. A fold worker calls
it when `BROKEN` names the module: `group.start("w1", BROKEN="unfenced")`. `make prove` shows that the proof fails then.
"""
