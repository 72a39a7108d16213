"""Do libraries that nobody here wrote run unmodified on the environments?

    python -m benchmarks.clients.compatibility --cleanrl CHECKOUT --venvs FOLDER

Each client has a virtual environment of its own in FOLDER. The script makes a missing
one: ``python -m venv``, then ``pip install torch==VERSION -e . PACKAGES`` with the
version of torch that runs the script. A client that cannot be installed is a result.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agents.command_line import parse_command_line
from benchmarks.clients.recorded import recorded_id
from benchmarks.paths import ROOT
from benchmarks.results_file import update_result

TIME_LIMIT = 900  # seconds per check
SIMULATED_ID = "LRTuningSim-markov-tiny-v0"
ZOO_SETTINGS = f"{SIMULATED_ID}:\n  n_timesteps: 1000\n  policy: MlpPolicy\n"
ZOO = f"--algo a2c --env {SIMULATED_ID} --gym-packages lr_gym -f logs"
CLEANRL = "{cleanrl}/cleanrl"
DISCRETE = f"--env-id lr_gym:{SIMULATED_ID} --no-cuda --total-timesteps"
CONTINUOUS = f"--env-id {recorded_id('Sim', 'continuous')} --no-cuda --total-timesteps"


@dataclass(frozen=True)
class Client:
    """A library, how to install it, and what to run."""

    package: str
    """The distribution that the version is read from; a checkout for CleanRL."""
    checks: Mapping[str, str]
    """What is run, and how: a function of `checks`, or words after ``python``."""
    packages: tuple[str, ...] = ()
    """What pip installs."""
    without_dependencies: tuple[str, ...] = ()
    """What pip installs last, without what it depends on."""


CLIENTS: dict[str, Client] = {
    "Gymnasium": Client(
        "gymnasium",
        {
            "all wrappers of single environments": "gymnasium_wrappers",
            "all wrappers of vector environments": "gymnasium_vector_wrappers",
            "`SyncVectorEnv`": "gymnasium_sync",
            "`AsyncVectorEnv`, fork": "gymnasium_fork",
            "`AsyncVectorEnv`, spawn": "gymnasium_spawn",
            "`AsyncVectorEnv`, forkserver": "gymnasium_forkserver",
        },
        ("opencv-python", "moviepy", "array-api-compat", "pygame", "matplotlib"),
    ),
    "stable-baselines3": Client(
        "stable-baselines3",
        {
            "`check_env`; PPO, DQN, A2C": "sb3_learners",
            "`SubprocVecEnv`, fork and spawn": "sb3_subprocesses",
        },
        ("stable-baselines3",),
    ),
    "RL Zoo": Client(
        "rl_zoo3",
        {
            "`rl_zoo3.train`, then `rl_zoo3.enjoy`": (
                f"-m rl_zoo3.train {ZOO} --conf-file settings.yml "
                "--eval-freq 500 --eval-episodes 2"
                f"; -m rl_zoo3.enjoy {ZOO} -n 40 --no-render"
            )
        },
        ("rl_zoo3",),
    ),
    "CleanRL": Client(
        "CleanRL",
        {
            **{
                f"`{name}.py`, 12,000 steps": f"{CLEANRL}/{name}.py {DISCRETE} 12000"
                for name in ("dqn", "ppo", "c51")
            },
            **{
                f"`{name}_continuous_action.py`, 600 steps": (
                    f"{CLEANRL}/{name}_continuous_action.py {CONTINUOUS} 600 "
                    "--learning-starts 300"
                )
                for name in ("sac", "td3", "ddpg")
            },
            **{
                f"`{name}_continuous_action.py`, 4,200 steps": (
                    f"{CLEANRL}/{name}_continuous_action.py {CONTINUOUS} 4200"
                )
                for name in ("ppo", "rpo")
            },
        },
        ("tyro", "tensorboard"),
    ),
    "TorchRL": Client(
        "torchrl",
        {
            "`check_env_specs(GymEnv(id))`, simulated and real": "torchrl_specs",
            "the same, continuous actions": "torchrl_continuous",
            "the same, default observation": "torchrl_default_features",
            "`GymWrapper(make_vec(id))`, SameStep, default observation": (
                "torchrl_vector"
            ),
            "`Collector(ParallelEnv)`": "torchrl_collector",
        },
        ("torchrl",),
    ),
    "RLlib": Client("ray", {"PPO, 2 iterations": "rllib_ppo"}, ("ray[rllib]",)),
    "Tianshou": Client(
        "tianshou",
        {
            "DQN, `DummyVectorEnv`": "tianshou_dqn",
            "DQN, `SubprocVectorEnv`": "tianshou_subprocesses",
        },
        ("tianshou",),
    ),
    "Minari": Client(
        "minari",
        {"record, read, remake the environment": "minari_round_trip"},
        ("minari[hdf5,create]",),
    ),
    "skrl": Client("skrl", {"DQN": "skrl_dqn"}, ("skrl",)),
    "d3rlpy": Client(
        "d3rlpy",
        {"DQN, online and offline": "d3rlpy_dqn"},
        # It pins Gymnasium 1.0.0, which lacks what lr-gym needs.
        (
            *("click", "colorama", "dataclasses-json", "gym", "h5py"),
            *("scikit-learn", "structlog"),
        ),
        ("d3rlpy",),
    ),
}


@dataclass
class Args:
    """Run clients, each in a virtual environment of its own."""

    venvs: Path
    """Folder of the virtual environments, by the lower-case name of the client."""
    cleanrl: Path | None = None
    """A checkout of CleanRL; without it CleanRL is left out."""
    clients: tuple[str, ...] = tuple(CLIENTS)
    """Which clients."""
    out: Path = Path("benchmarks/results/clients/compatibility.json")
    """The result file, one entry per client."""


def python_of(folder: Path) -> Path:
    """Return the Python of a virtual environment."""
    return folder / "bin" / "python"


def install(client: Client, folder: Path) -> str | None:
    """Make a virtual environment if it is missing; return pip's error, if any."""
    if python_of(folder).exists():
        return None
    torch = version("torch").partition("+")[0]
    pip = [str(python_of(folder)), "-m", "pip", "install", "-q"]
    commands = [
        [sys.executable, "-m", "venv", str(folder)],
        [*pip, f"torch=={torch}", "-e", str(ROOT), *client.packages],
    ]
    if client.without_dependencies:
        commands.append([*pip, "--no-deps", *client.without_dependencies])
    for command in commands:
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            shutil.rmtree(folder)  # the next call tries again
            return f"not installed: {last_line(result.stderr)}"
    return None


def versions(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of `packages` in a virtual environment."""
    script = "import sys; from importlib.metadata import version\n"
    script += "print(*map(version, sys.argv[1:]))"
    words = [str(python), "-c", script, *packages]
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    return dict(zip(packages, result.stdout.split(), strict=True))


def run_check(python: Path, check: str, cleanrl: Path) -> dict[str, Any]:
    """Run a check in an empty folder; return its outcome, message and seconds."""
    if check.isidentifier():
        code = f"from benchmarks.clients.checks import {check}; {check}()"
        commands = [["-c", code]]
    else:
        filled = check.replace("{cleanrl}", str(cleanrl))
        commands = [command.split() for command in filled.split(";")]
    started, message = time.perf_counter(), ""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "settings.yml").write_text(ZOO_SETTINGS, encoding="utf-8")
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(cleanrl)]),
            "OMP_NUM_THREADS": "1",
            "MINARI_DATASETS_PATH": folder,
        }
        for words in commands:
            message = message or _run([str(python), *words], folder, environment)
    return {
        "outcome": "fail" if message else "pass",
        "message": message,
        "seconds": round(time.perf_counter() - started, 1),
    }


def _run(command: Sequence[str], folder: str, environment: Mapping[str, str]) -> str:
    """Run a command; return the last line of its error, or nothing."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        errors = process.communicate(timeout=TIME_LIMIT)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its children too
        process.communicate()
        return f"not finished after {TIME_LIMIT} s"
    return last_line(errors) if process.returncode else ""


def last_line(text: str) -> str:
    """Return the last line of an error's text that is not empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def checkout_version(checkout: Path) -> str:
    """Return the short commit of a checkout."""
    words = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    return f"commit {result.stdout.strip()}"


def check_client(name: str, args: Args) -> dict[str, Any]:
    """Install a client and run its checks; return the result."""
    client, cleanrl = CLIENTS[name], (args.cleanrl or Path()).resolve()
    folder = args.venvs.resolve() / name.lower().replace(" ", "-")
    error = install(client, folder)
    if error:
        outcome = {"outcome": "fail", "message": error, "seconds": None}
        return {"version": None, "checks": {"install": outcome}}
    python, common = python_of(folder), ("torch", "gymnasium", "numpy")
    found = versions(python, common)
    if name == "CleanRL":
        own = checkout_version(cleanrl)
    else:
        own = versions(python, [client.package])[client.package]
    checks = {}
    for title, check in client.checks.items():
        checks[title] = run_check(python, check, cleanrl)
        print(f"{name} {own}, {title}: {checks[title]}", flush=True)
    return {"version": own, "with": found, "checks": checks}


def main(args: Args) -> None:
    """Run the clients; write each result when it is there."""
    for name in args.clients:
        if name == "CleanRL" and args.cleanrl is None:
            continue
        update_result(args.out, name, check_client(name, args))


if __name__ == "__main__":
    main(parse_command_line(Args, __doc__))
