"""Train ColTiny's two encoders, from nothing or from earlier weights; stop and resume at will.

``python -m training.train --minutes 60 --run training/work/runs/one [--init weights.pt]``

The same command resumes the run where its last checkpoint stands. ``--minutes`` is the whole run's training time, on
which the learning rate's cosine is laid out; time spent stopped does not count.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from training.batches import batches
from training.corpus import Corpus
from training.lexicon import Lexicon
from training.losses import WEIGHTS, WordBank, losses
from training.model import PageEncoder, WordEncoder, load_weights


class Average:
    """Exponential moving average of both encoders: what is evaluated and exported."""

    def __init__(self, page: PageEncoder, word: WordEncoder) -> None:
        self.page, self.word = copy.deepcopy(page).eval(), copy.deepcopy(word).eval()

    @torch.no_grad()
    def update(self, page: PageEncoder, word: WordEncoder, decay: float) -> None:
        """Move towards the weights of now."""
        for kept, new in ((self.page, page), (self.word, word)):
            for a, b in zip(kept.state_dict().values(), new.state_dict().values(), strict=True):
                if a.is_floating_point():
                    a.lerp_(b, 1 - decay)
                else:
                    a.copy_(b)


def optimizer(page: PageEncoder, word: WordEncoder, rate: float) -> torch.optim.AdamW:
    """AdamW; only matrices and kernels decay, not norms, biases or the feature table (rare rows would fade)."""
    named = [*page.named_parameters(), *word.named_parameters()]
    decay = [p for name, p in named if p.ndim > 1 and "embedding" not in name]
    chosen = {id(p) for p in decay}
    groups = [
        {"params": decay, "weight_decay": 0.02},
        {"params": [p for _, p in named if id(p) not in chosen], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)


def rate_at(share: float, step: int, peak: float) -> float:
    """Learning rate: 100 steps of warm-up, then half a cosine down to 2 % of the peak at ``share`` = 1."""
    return peak * min(1.0, (step + 1) / 100) * (0.49 * (1 + math.cos(math.pi * min(1.0, share))) + 0.02)


def save(path: Path, state: dict[str, object]) -> None:
    """Write atomically, so that a killed run always leaves a whole checkpoint."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of checkpoints and log")
    parser.add_argument("--init", type=Path, help="weights to start from (a run's final.pt)")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--batch", type=int, default=4, help="tiles a step")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw tiles")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=float, default=4, metavar="MINUTES")
    parser.add_argument("--corpus", type=Path, default=Path("training/work/corpus.json.gz"))
    options = parser.parse_args()
    options.run.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)

    device = torch.device(options.device)
    corpus = Corpus.load(options.corpus)
    lexicon = Lexicon(corpus)
    precision = getattr(torch, options.precision)
    bank = WordBank(lexicon, device, precision)
    page, word = PageEncoder(), WordEncoder()
    if options.init:
        page, word, _ = load_weights(options.init)
    page, word = page.to(device), word.to(device)
    average = Average(page, word)
    step, spent = 0, 0.0
    last = options.run / "last.pt"
    resumed = torch.load(last, map_location=device, weights_only=False) if last.exists() else None
    if resumed:
        page.load_state_dict(resumed["live_page"])
        word.load_state_dict(resumed["live_word"])
        average.page.load_state_dict(resumed["page"])
        average.word.load_state_dict(resumed["word"])
        step, spent = resumed["step"], resumed["seconds"]
    page = page.train().to(memory_format=torch.channels_last)
    page.precision = precision
    word.train()
    optimiser = optimizer(page, word, options.rate)
    if resumed:
        optimiser.load_state_dict(resumed["optimiser"])
    parameters = [*page.parameters(), *word.parameters()]
    drawn = batches(corpus, lexicon, options.batch, options.seed * 1_000_003 + step, options.workers)
    print(f"{len(bank.words)} words to confuse, from step {step}, {spent / 60:.1f} minutes in", flush=True)

    def checkpoint(name: str, *, whole: bool) -> None:
        state: dict[str, object] = {
            "page": average.page.state_dict(), "word": average.word.state_dict(), "step": step, "seconds": spent,
        }  # fmt: skip
        if whole:
            live = {"live_page": page.state_dict(), "live_word": word.state_dict(), "optimiser": optimiser.state_dict()}
            state |= live
        save(options.run / name, state)

    total: dict[str, Tensor] = {}
    counted, waited, since = 0, 0.0, time.monotonic()
    limit = options.minutes * 60
    next_save = spent + options.save_every * 60
    while spent < limit:
        start = time.monotonic()
        rate = rate_at(spent / limit, step, options.rate)
        for group in optimiser.param_groups:
            group["lr"] = rate
        if step % 100 == 0 or not len(bank.vectors):
            bank.refresh(word)
        asked = time.monotonic()
        crops = next(drawn).to(device)
        waited += time.monotonic() - asked
        seen = page.see(crops.pixels.float().contiguous(memory_format=torch.channels_last))
        found, log = losses(page, seen, crops, word, bank)
        loss = torch.stack([WEIGHTS[name] * value for name, value in found.items()]).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, 5.0)
        if torch.isfinite(norm):  # one bad batch must not end a run
            optimiser.step()
        step += 1
        if step % 4 == 0:
            average.update(page, word, min(0.99, 1 - 1 / (step / 16 + 2)))
        spent += time.monotonic() - start
        counted += 1
        for name, value in {**found, **log, "loss": loss}.items():
            total[name] = value.detach() + total.get(name, 0.0)
        if step % 50 == 0 or step == 3:
            means = {name: round(value.item() / counted, 4) for name, value in total.items()}
            share = round(waited / (time.monotonic() - since), 2)  # near 0: more workers would not help
            line = {"minutes": round(spent / 60, 2), "step": step, "rate": round(rate, 6), "waited": share, **means}
            print(json.dumps(line), flush=True)
            with (options.run / "log.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            total, counted, waited, since = {}, 0, 0.0, time.monotonic()
        if spent > next_save:
            next_save = spent + options.save_every * 60
            checkpoint("last.pt", whole=True)
            checkpoint(f"at-{spent / 60:05.1f}.pt", whole=False)
    checkpoint("final.pt", whole=False)


if __name__ == "__main__":
    main()
