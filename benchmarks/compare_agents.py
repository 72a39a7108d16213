"""Compare methods of learning-rate control, as a sceptic would want it done.

    python benchmarks/compare_agents.py --env shakespeare text8
    python benchmarks/compare_agents.py --env markov --quick
    python benchmarks/compare_agents.py --agents linear wsd my_agents.py:MyAgent
    python benchmarks/compare_agents.py --architecture lstm

Every method gets the same budget of trainings, to tune its initial rate or to learn
(`protocol.py`), and is then tested on fresh seeds and on the test split; `summary.py`
says what the numbers are. Each finished job is a file in the output folder, so that an
interrupted comparison, started again, goes on where it was.
"""

from benchmarks.comparison.entry import Args, main

if __name__ == "__main__":
    import tyro

    main(tyro.cli(Args, description=__doc__))
