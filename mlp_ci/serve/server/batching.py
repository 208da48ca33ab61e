"""Requests that are predicted together: a prediction costs nearly the same for one row and for sixteen.

There is no timer that a lone request would wait for. A batch goes on gathering while each turn of the event loop still
brings another request, at most ``delay``; and while one batch is predicted the next one gathers in the sockets, so that
batches grow with the load.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlp_ci.serve.payload import BadRequest

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from concurrent.futures import ThreadPoolExecutor

    from mlp_ci.serve.model import Loaded
    from mlp_ci.serve.server.counting import Counts

# A prediction that is faster runs in the event loop: handing it to a thread costs more than it takes. A slower one
# would keep the server from answering whether it is alive.
SLOW = 0.005
STUCK = 60.0  # seconds after which a prediction is taken to hang
_TURNS = 2  # turns of the event loop without another request that end the gathering: reading it, and starting its task


class ModelFailed(Exception):
    """The model raised on an input that fits its signature."""


class Overloaded(Exception):
    """Too many requests wait already. ``seconds``: when it may be worth while to ask again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"ask again in {seconds} s")
        self.seconds = seconds


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """``rows`` of one prediction, ``delay`` in seconds that a request waits for others, ``queue`` of requests.

    A request of more rows is predicted alone, and whole: its rows may belong together.
    """

    rows: int = 512
    delay: float = 0.005
    queue: int = 1024


@dataclass(slots=True)
class Question:
    """One request's input: ``rows`` of values in the order of ``names``, or an ``array``, or arrays by name.

    Questions with the same ``key`` may be asked together; without one it is asked alone. ``params`` are for the model.
    """

    count: int
    key: Hashable = None
    names: tuple[str, ...] = ()
    rows: Sequence[Sequence[Any]] = ()
    array: Any = None
    params: dict[str, Any] | None = None

    def told(self, params: dict[str, Any] | None) -> Question:
        """This question with params, which only others with the same ones may be asked together with."""
        if params is not None:
            self.params = params
            if self.key is not None:
                self.key = (self.key, json.dumps(params, sort_keys=True, default=str))
        return self


@dataclass(slots=True)
class _Waiting:
    question: Question
    future: asyncio.Future[list[Any]]


@dataclass
class Batcher:
    """Gathers questions, has the model answer them together, and hands each its part."""

    loaded: Loaded
    limits: BatchLimits
    counts: Counts
    waiting: list[_Waiting] = field(default_factory=list)
    seconds: float = 0.0  # what a prediction took of late
    per_row: float = 0.0
    busy_since: float | None = None
    _until: float = 0.0
    _gathering: bool = False
    _pool: ThreadPoolExecutor | None = None

    def submit(self, question: Question) -> asyncio.Future[list[Any]]:
        """One prediction per row, later; or BadRequest, ModelFailed. Raises Overloaded at once."""
        if len(self.waiting) >= self.limits.queue:
            rows = sum(one.question.count for one in self.waiting)
            raise Overloaded(min(60, max(1, math.ceil(rows * self.per_row))))
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Any]] = loop.create_future()
        self.waiting.append(_Waiting(question, future))
        if not self._gathering and self.busy_since is None:
            self._gathering = True
            self._until = loop.time() + self.limits.delay
            loop.call_soon(self._gather, loop, 1, _TURNS)
        return future

    @property
    def stuck(self) -> bool:
        """Whether a prediction does not come back."""
        return self.busy_since is not None and time.monotonic() - self.busy_since > STUCK

    def _gather(self, loop: asyncio.AbstractEventLoop, seen: int, turns: int) -> None:
        found = len(self.waiting)
        turns = _TURNS if found > seen else turns - 1
        if turns > 0 and found < self.limits.rows and loop.time() < self._until:
            loop.call_soon(self._gather, loop, found, turns)
            return
        self._gathering = False
        self._flush(loop)

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ask the next batch: here if that is quick, else in a thread, with the event loop free to say no."""
        if self.busy_since is not None or not self.waiting:
            return
        batch = self._next()
        if self.seconds < SLOW and sum(one.question.count for one in batch) <= self.limits.rows:
            self._deliver(batch, self._ask(batch))
            if self.waiting:
                loop.call_soon(self._flush, loop)
            return
        self.busy_since = time.monotonic()
        asked = loop.run_in_executor(self._thread(), self._ask, batch)
        asked.add_done_callback(lambda done: self._came_back(loop, batch, done))

    def _came_back(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting], done: asyncio.Future[Any]) -> None:
        self.busy_since = None
        if not done.cancelled():
            self._deliver(batch, done.result())
        self._flush(loop)

    def _thread(self) -> ThreadPoolExecutor:
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(1, "prediction")
        return self._pool

    def _next(self) -> list[_Waiting]:
        """What is asked together with the one that has waited longest."""
        first, *others = self.waiting
        batch, left, rows = [first], [], first.question.count
        for one in others:
            question = one.question
            if first.question.key is not None and question.key == first.question.key:
                rows += question.count
                if rows <= self.limits.rows:
                    batch.append(one)
                    continue
                rows -= question.count
            left.append(one)
        self.waiting = left
        return batch

    def _deliver(self, batch: list[_Waiting], answers: list[list[Any] | Exception]) -> None:
        for one, answer in zip(batch, answers, strict=True):
            if one.future.done():  # its client has gone
                continue
            if isinstance(answer, Exception):
                one.future.set_exception(answer)
            else:
                one.future.set_result(answer)

    def _ask(self, batch: list[_Waiting]) -> list[list[Any] | Exception]:
        began = time.perf_counter()
        questions = [one.question for one in batch]
        answers = answer_all(self.loaded, questions)
        took = time.perf_counter() - began
        rows = sum(q.count for q in questions)
        if rows <= self.limits.rows:  # one enormous request says nothing of those to come
            self.seconds += 0.2 * (took - self.seconds)
        self.per_row += 0.2 * (took / rows - self.per_row)
        self.counts.batch(rows, took)
        return answers


def answer_all(loaded: Loaded, questions: list[Question]) -> list[list[Any] | Exception]:
    """The model's answer to each question: all asked in one call, or each alone where that goes wrong."""
    try:
        predictions = predict(loaded, questions)
    except Exception as error:
        if len(questions) > 1:  # one bad request must not spoil its neighbours
            return [answer for one in questions for answer in answer_all(loaded, [one])]
        if isinstance(error, BadRequest):
            return [error]
        print(f"the model failed: {error!r}", file=sys.stderr)
        return [ModelFailed(type(error).__name__)]
    if len(questions) == 1:
        return [predictions]
    answers: list[list[Any] | Exception] = []
    start = 0
    for one in questions:
        answers.append(predictions[start : start + one.count])
        start += one.count
    return answers


def predict(loaded: Loaded, questions: list[Question]) -> list[Any]:
    """One prediction for each row of all ``questions``, which have the same key; checks the rows once for all."""
    first = questions[0]
    if first.params is not None and loaded.predict_with is not None:
        given = _joined(questions) if first.array is not None else loaded.signature.frame(_columns(loaded, questions))
        predictions = loaded.predict_with(given, dict(first.params))
    elif first.array is not None:
        predictions = loaded.predict(_joined(questions))
    else:
        rows = _rows(questions)
        signature = loaded.signature
        if loaded.matrix is not None and first.names is signature.names:
            predictions = loaded.matrix(signature.matrix(rows))
        else:
            columns = signature.columns(rows, first.names)
            if loaded.arrays is not None:
                predictions = loaded.arrays(signature.arrays(columns))
            else:
                predictions = loaded.predict(signature.frame(columns))
    asked = sum(one.count for one in questions)
    if len(predictions) != asked:
        msg = f"the model returned {len(predictions)} predictions for {asked} rows"
        raise ValueError(msg)
    return predictions


def _rows(questions: list[Question]) -> Sequence[Sequence[Any]]:
    return questions[0].rows if len(questions) == 1 else [row for one in questions for row in one.rows]


def _columns(loaded: Loaded, questions: list[Question]) -> dict[str, Sequence[Any]]:
    return loaded.signature.columns(_rows(questions), questions[0].names)


def _joined(questions: list[Question]) -> Any:
    import numpy as np

    arrays = [one.array for one in questions]
    if len(arrays) == 1:
        return arrays[0]
    if isinstance(arrays[0], dict):
        return {name: np.concatenate([one[name] for one in arrays]) for name in arrays[0]}
    return np.concatenate(arrays)
