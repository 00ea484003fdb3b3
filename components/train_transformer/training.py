"""Train a sequence classifier with ``transformers``: from scratch (tokenizer too), or from any ``from_pretrained``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedTokenizerFast,
)

from tidegate.errors import ParameterError

VOCABULARY = 2000
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class Options:
    """How to train; lengths in tokens."""

    base: str
    epochs: int
    batch_size: int
    learning_rate: float
    max_length: int
    seed: int


@dataclass(frozen=True)
class Trained:
    """A model in evaluation mode with its tokenizer, classes and the mean loss of the last epoch."""

    model: Any
    tokenizer: Any
    classes: Sequence[Any]
    max_length: int
    loss: float


def train(texts: Sequence[str], labels: Sequence[Any], options: Options) -> Trained:
    """Train; the same texts and options give the same weights on the same machine.

    Raises:
        ParameterError: fewer than two classes, or no steps to train.
    """
    classes = sorted(set(labels))
    if len(classes) < 2 or options.epochs < 1 or len(texts) < options.batch_size:
        raise ParameterError(
            f"{len(texts)} texts of {len(classes)} classes, {options.epochs} epochs",
            allowed="Two classes or more, one epoch or more, and a batch of texts.",
        )
    torch.manual_seed(options.seed)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # sums in another order are other weights
    tokenizer = _tokenizer(texts, options)
    model = _model(tokenizer, len(classes), options)
    encoded = tokenizer(list(texts), truncation=True, max_length=options.max_length, padding=True, return_tensors="pt")
    target = torch.tensor([classes.index(y) for y in labels])
    loss = _fit(model, encoded["input_ids"], encoded["attention_mask"], target, options)
    return Trained(model.eval(), tokenizer, classes, options.max_length, loss)


def _tokenizer(texts: Sequence[str], options: Options) -> Any:
    if options.base:
        return AutoTokenizer.from_pretrained(options.base)
    normalizer, words = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    made = Tokenizer(models.WordPiece(vocab=_vocabulary(texts, normalizer, words), unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizer, words
    pair = [(t, made.token_to_id(t)) for t in ("[SEP]", "[CLS]")]
    made.post_processor = processors.BertProcessing(*pair)
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def _vocabulary(texts: Sequence[str], normalizer: Any, split: Any) -> dict[str, int]:
    """Special tokens, single characters, then the commonest words: the library's own trainer breaks ties at random."""
    counts = Counter(w for t in texts for w, _ in split.pre_tokenize_str(normalizer.normalize_str(t)))
    letters = sorted({c for word in counts for c in word})
    common = sorted(counts, key=lambda w: (-counts[w], w))
    tokens = [*SPECIAL, *letters, *(f"##{c}" for c in letters), *common]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens[:VOCABULARY]))}


def _model(tokenizer: Any, classes: int, options: Options) -> Any:
    if options.base:
        return AutoModelForSequenceClassification.from_pretrained(
            options.base, num_labels=classes, ignore_mismatched_sizes=True, attn_implementation="eager"
        )
    config = DistilBertConfig(
        vocab_size=len(tokenizer),
        dim=64,
        n_layers=2,
        n_heads=4,
        hidden_dim=128,
        max_position_embeddings=max(64, options.max_length),
        dropout=0.05,
        attention_dropout=0.0,
        seq_classif_dropout=0.05,
        num_labels=classes,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="eager",
    )
    return DistilBertForSequenceClassification(config)


def _fit(model: Any, ids: torch.Tensor, mask: torch.Tensor, target: torch.Tensor, options: Options) -> float:
    """Run the epochs under a one-cycle schedule; return the last epoch's mean loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=0.01)
    batches = len(target) // options.batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, total_steps=options.epochs * batches + 1, pct_start=0.1
    )
    model.train()
    mean = 0.0
    for epoch in range(options.epochs):
        losses = [
            _step(model, ids, mask, target, rows, optimizer, schedule)
            for rows in torch.randperm(len(target)).split(options.batch_size)[:batches]
        ]
        mean = sum(losses) / len(losses)
        print(f"epoch {epoch + 1} of {options.epochs}: loss {mean:.4f}", flush=True)
    return mean


def _step(
    model: Any,
    ids: torch.Tensor,
    mask: torch.Tensor,
    target: torch.Tensor,
    rows: torch.Tensor,
    optimizer: Any,
    schedule: Any,
) -> float:
    longest = int(mask[rows].sum(1).max())
    loss = model(input_ids=ids[rows, :longest], attention_mask=mask[rows, :longest], labels=target[rows]).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    schedule.step()
    return float(loss.item())
