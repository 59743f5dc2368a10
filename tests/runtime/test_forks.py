"""A model that was used is used in a forked child too, as web servers and multiprocessing do."""

from __future__ import annotations

import os

import pytest

from commands import start
from conftest import Fitted

FORKED = """
import os, signal, time
import torch
import regraft

torch.set_num_threads(2)
model = regraft.load({run!r})
ours = model.predict({file!r})[0].probability
child = os.fork()
if child == 0:
    theirs = model.predict({file!r})[0].probability
    os._exit(0 if abs(ours - theirs) < 1e-5 and torch.get_num_threads() == 1 else 1)
for _ in range(600):
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        break
    time.sleep(0.1)
else:
    os.kill(child, signal.SIGKILL)  # it waits for ever
    status = 1
os._exit(0 if status == 0 and torch.get_num_threads() == 2 else 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_forked_child_predicts(fitted: Fitted) -> None:
    first = FORKED.format(run=str(fitted.run), file=str(fitted.data / "red" / "0.png"))
    process = start("models", first=first)
    _, err = process.communicate()
    assert process.returncode == 0, err
