"""``headwater policy`` on damaged policies and damaged dumps: an answer or a sentence, quickly."""

from __future__ import annotations

import contextlib
import io
import json
import random
import tempfile
import time
from pathlib import Path

from appliance.cli.root import run
from tests.cli.test_policy_offline import POLICY, TAILNET
from tests.fuzz.harness import main, mutate
from tests.support.pace import patience

MAX_S = 2.0
"""Ten times what the slowest takes on a busy machine."""
PIECES = [
    b'"\\ud800"', '"é"'.encode(), b"\0", b'"*"', b'"tag:web"', b"[]", b"{}", b"null", b"1e999",
    b'"autogroup:self:*"', b'"10.0.0.0/8:22"', b'"\\u0000x"', b'"via": ["tag:web"],',
]  # fmt: skip
COMMANDS = [
    "check policy", "test policy", "fmt policy", "diff policy --against good",
    "explain laptop web-1:443 -f policy", "explain autogroup:member printer -f policy",
    "explain alice tag:web:22 -f policy -o json-line", "check policy -o json",
    "diff policy --against good -o yaml", "explain 100.64.0.1 [fd7a:115c:a1e0::1]:22 -f policy",
]  # fmt: skip


def case(rng: random.Random) -> None:
    policy = POLICY.encode()
    for _ in range(rng.randint(0, 3)):
        at = rng.randrange(len(policy))
        policy = policy[:at] + rng.choice(PIECES) + policy[at + rng.choice((0, 0, 3, 8)) :]
    policy = mutate(rng, policy) if rng.random() < 0.5 else policy
    dump = json.dumps(TAILNET).encode()
    dump = mutate(rng, dump) if rng.random() < 0.4 else dump
    with tempfile.TemporaryDirectory() as folder:
        places = {"policy": policy, "good": POLICY.encode(), "tailnet.json": dump}
        for name, data in places.items():
            (Path(folder) / name).write_bytes(data)
        words = rng.choice(COMMANDS).split()
        words += [] if words[0] == "fmt" else ["--tailnet", "tailnet.json"]
        answer([str(Path(folder) / word) if word in places else word for word in words])


def answer(words: list[str]) -> None:
    """Run a command, which must find its words in good time."""
    began = time.process_time()
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(["policy", *words])
    assert code in (0, 1), (words, code)
    assert code == 0 or out.tell() or err.tell(), "a refusal says why"
    assert time.process_time() - began < patience(MAX_S), words


if __name__ == "__main__":
    main(case)
