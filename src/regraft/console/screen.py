"""What a person sees while a run goes on: a line a step, a progress bar with the time left."""

from __future__ import annotations

from collections.abc import Callable
from shlex import quote
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from regraft.evaluation import Metric

NUMBERS = {"obtain": 1, "base": 2, "freeze": 3, "head": 4, "train": 5, "finetune": 6, "evaluate": 7}
MARKS = {"warning": "[yellow]![/]", "info": "[dim]i[/]"}


class Screen:
    """Listens to a run's events and shows them on standard error."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self.progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(24),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.out, self.chosen = "", ""
        self.label: str | None = None
        self.task: Any = None
        self.shown: dict[str, Callable[[dict[str, Any]], None]] = {
            "begin": self._begin,
            "audit": self._findings,
            "decided": self._decided,
            "epoch": self._epoch,
            "engine": self._engine,
            "trial": self._trial,
            "note": self._note,
            "advice": self._note,
            "chosen": self._chosen,
        }

    def __call__(self, event: dict[str, Any]) -> None:
        if event["kind"] == "tick":
            return self._tick(event)
        self._end()
        show = self.shown.get(event["kind"])
        if show is not None:
            show(event)
        return None

    def _aside(self, text: str) -> None:
        self.console.print(f"            [dim]{text}[/]", soft_wrap=True)

    def _findings(self, event: dict[str, Any], indent: int = 10) -> None:
        for finding in event["findings"]:
            text = f"{MARKS[finding['severity']]} {escape(finding['message'])}"
            self.console.print(f"{' ' * indent}{text}", soft_wrap=True)

    def _begin(self, event: dict[str, Any]) -> None:
        self.out = event["out"]
        counts = ", ".join(f"{n:,} {split}" for split, n in event["counts"].items() if n)
        self.console.print(f"[bold]{escape(event['name'])}[/]: {event['apart']}; {counts}")
        self._findings(event, indent=2)

    def _decided(self, event: dict[str, Any]) -> None:
        step = f"[green]{NUMBERS[event['step']]}[/] [bold]{event['step']:9}[/]"
        self.console.print(f"{step} {_of(event)}{escape(event['decided'])}", soft_wrap=True)
        self._aside(escape(event["why"]))

    def _epoch(self, event: dict[str, Any]) -> None:
        judged = ""
        if "val_loss" in event:
            judged = f"val loss {event['val_loss']:.3f}  {_valued(event, 'val_')}  "
        self._aside(
            f"{_of(event)}epoch {event['epoch']:2}/{event['epochs']}  loss "
            f"{event['train_loss']:.3f}  {judged}{event['examples_per_second']:.0f} examples/s"
        )

    def _engine(self, event: dict[str, Any]) -> None:
        if event["chosen"]:
            self._aside(f"features by {escape(event['text'])}")

    def _trial(self, event: dict[str, Any]) -> None:
        self._aside(
            f"{escape(event['strategy']):26} {event['epochs']:4.2g} epochs  val loss "
            f"{event['loss']:.3f}  {_valued(event, 'value')}  {event['seconds']:.0f} s"
        )

    def _note(self, event: dict[str, Any]) -> None:
        self._aside(escape(event["text"]))

    def _chosen(self, event: dict[str, Any]) -> None:
        self.chosen = "" if "fold" in event else event["chosen"]  # a fold's model is not handed over
        self.console.print(f"  [bold]chosen[/]    {event['chosen']}")
        self._aside(escape(event["why"]))

    def _tick(self, event: dict[str, Any]) -> None:
        if not event["total"]:
            return
        if event["label"] != self.label:
            self._end()
            self.label = event["label"]
            self.progress.start()
            self.task = self.progress.add_task(event["label"], total=event["total"], note="")
        notes = []
        if "strategy" in event:
            notes.append(event["strategy"])
        if "epoch" in event:
            notes.append(f"epoch {event['epoch']}/{event['epochs']}")
        if "loss" in event:
            notes.append(f"loss {event['loss']:.3f}")
        if "examples_per_second" in event:
            notes.append(f"{event['examples_per_second']:.0f} examples/s")
        self.progress.update(self.task, completed=event["done"], note=" ".join(notes))

    def _end(self) -> None:
        if self.task is not None:
            self.progress.remove_task(self.task)
            self.progress.stop()
        self.label = self.task = None

    def how_to_go_on(self) -> str:
        """What is kept of a run that was stopped, and the command that goes on with it."""
        if not self.out:
            return "Nothing was written yet."
        kept = f"The best so far ({self.chosen}) is kept in {self.out}. " if self.chosen else ""
        return f"{kept}{self.command()}"

    def command(self) -> str:
        """The command that goes on with a run that was begun."""
        return f"Go on with: regraft fit --resume --out {quote(self.out)}"

    def close(self) -> None:
        """Take the bar away."""
        self._end()


def _valued(event: dict[str, Any], key: str) -> str:
    """The metric that an event is told in, by words; its value stands under the key, or behind it by its
    name.
    """
    metric = Metric.shown_as(event["metric"])
    shown = metric.shown(event[key + metric.name if key.endswith("_") else key])
    return f"{metric.words} {shown or 'not defined'}"


def _of(event: dict[str, Any]) -> str:
    """The strategy that an event is of, where several are trained at full length."""
    return f"{escape(event['strategy'])}: " if "strategy" in event else ""
