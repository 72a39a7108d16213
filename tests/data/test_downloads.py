"""Downloads are complete or absent; archives and hashes are checked."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agents import tabular_q
from agents.agent import make_env
from lr_gym import load_corpus
from lr_gym.data import corpora, downloads
from tests.helpers.published import TEXT, Server, archive, publish, temporary_files


def damaged(content: bytes) -> bytes:
    """Change one byte of the compressed text itself."""
    return content[:100] + bytes([content[100] ^ 0xFF]) + content[101:]


def test_the_true_download_path(server: Server, no_data: Path) -> None:
    corpus = load_corpus("enwik8")
    whole = np.concatenate([corpus.train, corpus.val, corpus.test])
    assert corpus.decode(whole).encode("latin-1") == TEXT
    assert [len(s) / len(TEXT) for s in (corpus.train, corpus.val)] == [0.9, 0.05]
    assert temporary_files(no_data / "cache") == ["enwik8"]
    server.stop()
    corpora._load_file.cache_clear()
    assert load_corpus("enwik8").sha256 == corpus.sha256
    assert server.requests == 1


@pytest.mark.usefixtures("server")
def test_the_q_agent_runs_on_a_fresh_download(no_data: Path) -> None:
    stand_in = tabular_q.Args(
        env="enwik8", scale="tiny", episodes=1, out=no_data / "q.json"
    )
    settings = {"max_iters": 4, "eval_interval": 2, "warmup_iters": 0, "n_layer": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            tabular_q,
            "script_env",
            lambda env, **options: make_env(env, **(options | settings)),
        )
        tabular_q.main(stand_in)
    assert (no_data / "q.json").is_file()


def test_two_processes_download_once(server: Server, no_data: Path) -> None:
    script = (
        "import dataclasses, sys\n"
        "from lr_gym.data import corpora, downloads\n"
        "url, download, text, size = sys.argv[1:]\n"
        "downloads.PUBLISHED['enwik8'] = dataclasses.replace(\n"
        "    downloads.PUBLISHED['enwik8'], url=url, download_hash=download,\n"
        "    text_hash=text, size=int(size))\n"
        "print(corpora.load_corpus('enwik8').sha256)\n"
    )
    stand_in = downloads.PUBLISHED["enwik8"]
    command = [sys.executable, "-c", script, stand_in.url, stand_in.download_hash]
    command += [stand_in.text_hash, str(stand_in.size)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    answers = {process.communicate(timeout=120)[0] for process in processes}
    assert answers == {hashlib.sha256(TEXT).hexdigest() + "\n"}
    assert server.requests == 1
    assert temporary_files(no_data / "cache") == ["enwik8"]


def test_a_download_with_another_hash_is_refused(
    server: Server, no_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.content = archive({"enwik8": TEXT[:-1]})
    monkeypatch.setenv("LR_GYM_ALLOW_PARTIAL", "1")  # for local files only
    with pytest.raises(ValueError, match="hash"):
        load_corpus("enwik8")
    assert temporary_files(no_data / "cache") == []


@pytest.mark.parametrize(
    ("download", "message"),
    [
        (b"no archive at all", "not the published text|not a complete zip"),
        (archive({"other": TEXT}), "has no member 'enwik8'"),
        (archive({"../enwik8": TEXT, "/tmp/enwik8": TEXT}), "has no member 'enwik8'"),
        (archive({"enwik8": TEXT + b"!"}), "is larger than the published"),
        (archive({"enwik8": TEXT})[:-200], "not the published text|not a complete zip"),
        (damaged(archive({"enwik8": TEXT})), "is damaged"),
    ],
    ids=["text", "member", "slip", "bomb", "truncated", "corrupted"],
)
def test_a_bad_archive_is_refused_and_leaves_no_files(
    server: Server,
    no_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    download: bytes,
    message: str,
) -> None:
    # Served with a matching hash, so that only the archive is wrong ...
    server.content = download
    publish(monkeypatch, server.url, download)
    with pytest.raises(ValueError, match=message):
        load_corpus("enwik8")
    assert temporary_files(no_data / "cache") in ([], ["enwik8"])
    assert not (no_data / "enwik8").exists()
    # ... and as a local file.
    data = no_data / "data"
    data.mkdir()
    (data / "enwik8.zip").write_bytes(download)
    monkeypatch.setenv("LR_GYM_DATA", str(data))
    with pytest.raises(ValueError, match=message):
        load_corpus("enwik8")
    assert [p.name for p in data.iterdir()] == ["enwik8.zip"]


def test_a_local_archive_is_used_before_any_download(
    server: Server, no_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (no_data / "enwik8.zip").write_bytes(server.content)
    monkeypatch.setenv("LR_GYM_DATA", str(no_data))
    assert load_corpus("enwik8").complete
    assert server.requests == 0


def test_offline_and_absent_says_what_to_do(server: Server, no_data: Path) -> None:
    server.stop()
    with pytest.raises(FileNotFoundError) as caught:
        load_corpus("enwik8")
    for part in ("enwik8", server.url, "LR_GYM_DATA", "corpus='markov'"):
        assert part in str(caught.value)
    assert temporary_files(no_data / "cache") == []


def test_the_q_agents_error_without_the_data(no_data: Path) -> None:
    """As a user sees it: the script, no data, no network."""
    environment = {
        **os.environ,
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "no_proxy": "",
    }
    root = Path(tabular_q.__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "agents/tabular_q.py", "--env", "enwik8", "--scale", "tiny"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert last.startswith("error: corpus 'enwik8' is not on this machine")
    assert "LR_GYM_DATA" in last
    assert "corpus='markov'" in last
