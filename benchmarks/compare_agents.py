"""Compare methods of learning-rate control at equal budgets, on held-out seeds.

    python benchmarks/compare_agents.py --env shakespeare text8
    python benchmarks/compare_agents.py --env markov --quick
    python benchmarks/compare_agents.py --agents linear wsd my_agents.py:MyAgent
    python benchmarks/compare_agents.py --architecture lstm

Every method gets the same budget of trainings, to tune its initial rate or to learn
(`comparison/protocol.py`). It is then tested on held-out seeds and on the test split;
`comparison/summary.py` defines the numbers. Each finished job is a file in the output
folder, so the same command continues an interrupted comparison.
"""

from agents.command_line import parse_command_line
from benchmarks.comparison.entry import Args, main

if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
