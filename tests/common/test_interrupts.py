"""Tests of Ctrl-C and SIGTERM: deferred, ignored, and while a server or another process is stopped."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ssd_triton.common.interrupts import interrupts_deferred
from ssd_triton.common.processes import end_group, process_pool
from tests.interruptible import Interruptible, sigint

HANDLERS = [signal.default_int_handler, signal.SIG_IGN]
"""What this process may do with SIGINT: as from a terminal, and as in ``nohup make test &``."""


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Both signals raise KeyboardInterrupt, however the tests were started."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    with sigint(signal.default_int_handler):
        yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_comes_after_the_block(number: signal.Signals) -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt):
        with interrupts_deferred(), interrupts_deferred():
            signal.raise_signal(number)
            steps.append("whole")
        steps.append("never")
    assert steps == ["whole"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_an_interrupt_comes_with_the_error_of_the_block() -> None:
    with pytest.raises(KeyboardInterrupt) as interrupt, interrupts_deferred():
        signal.raise_signal(signal.SIGINT)
        raise ValueError("the block's own")
    assert isinstance(interrupt.value.__context__, ValueError)


def test_an_ignored_signal_stays_ignored() -> None:
    with sigint(signal.SIG_IGN):
        with interrupts_deferred():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_thread_leaves_the_signals_to_the_main_one() -> None:
    found: list[object] = []

    def look() -> None:
        with interrupts_deferred():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_no_interrupt_is_lost_and_none_comes_inside() -> None:
    """A thread sends the signal, so that it arrives anywhere."""
    first, second = itertools.count(), itertools.count()
    for round_number in range(200):
        begun = finished = 0
        sender = threading.Timer(round_number * 1e-5, os.kill, (os.getpid(), signal.SIGINT))
        deadline_s = time.monotonic() + 10
        try:
            with interrupts_deferred():
                sender.start()
            while time.monotonic() < deadline_s:
                with interrupts_deferred():
                    begun = next(first)
                    finished = next(second)
        except KeyboardInterrupt:
            assert begun == finished
        else:
            pytest.fail("the interrupt did not come")
        sender.join()


# --- A command ------------------------------------------------------------------------------------------------------


class Interrupting:
    """An initializer that interrupts the parent while a process starts: when it is pickled."""

    def __call__(self) -> None:
        """Do nothing."""

    def __reduce__(self) -> tuple[Any, ...]:
        signal.raise_signal(signal.SIGINT)
        return functools.partial, (os.getpid,)


def test_an_interrupt_while_processes_start_is_not_lost() -> None:
    with pytest.raises(KeyboardInterrupt), process_pool(2, Interrupting()):
        pytest.fail("the block began")


ANSWERING = """
import sys
from ssd_triton.commands import runner
def main():
    print("ready", flush=True)
    for line in sys.stdin:
        print("still here", flush=True)
    return 0
sys.exit(runner.exit_code(main, "-c"))
"""


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_test_can_interrupt_a_command_however_it_was_started(handler: Any) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with sigint(handler), Interruptible([sys.executable, "-c", ANSWERING], **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "-c: interrupted\n")


def test_a_command_that_began_with_sigint_ignored_ends_on_sigterm() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with sigint(signal.SIG_IGN):
        process = subprocess.Popen([sys.executable, "-c", ANSWERING], text=True, **pipes)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        process.stdin.write("?\n")
        process.stdin.flush()
        assert process.stdout.readline() == "still here\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, errors) == (130, "-c: interrupted\n")


KEEPING = """
import sys, time
from ssd_triton.commands import runner
def main():
    try:
        print("ready", flush=True)
        time.sleep(30)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        sys.stdin.readline()
        print("kept", flush=True)
    time.sleep(30)
    return 0
sys.exit(runner.exit_code(main, "-c"))
"""


def test_signals_at_once_are_one_interrupt_and_a_later_one_is_another() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Interruptible([sys.executable, "-c", KEEPING], **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for number in (signal.SIGINT, signal.SIGTERM):  # two, since two of one kind may arrive as one
            process.send_signal(number)
        assert process.stdout.readline() == "interrupted\n"
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "kept\n"
        time.sleep(1.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (130, "-c: interrupted\n")


# --- Ending other processes -----------------------------------------------------------------------------------------

STUBBORN = ["sh", "-c", "trap '' TERM; sleep 60 & echo ready; wait"]
"""Two processes that do not end when they are asked to."""


@pytest.fixture
def stubborn() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(STUBBORN, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


def assert_group_has_ended(leader: subprocess.Popen[str]) -> None:
    """The pipe ends with the last process that could write into it."""
    assert leader.stdout is not None
    assert leader.stdout.read() == ""
    assert leader.returncode == -signal.SIGKILL


def test_a_group_that_does_not_end_is_killed(stubborn: subprocess.Popen[str]) -> None:
    start_s = time.monotonic()
    end_group(stubborn, timeout_s=0.3)
    assert_group_has_ended(stubborn)
    assert time.monotonic() - start_s < 10


def test_an_interrupt_kills_the_group_at_once(stubborn: subprocess.Popen[str]) -> None:
    start_s = time.monotonic()
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        end_group(stubborn, timeout_s=50)
    assert_group_has_ended(stubborn)
    assert time.monotonic() - start_s < 10
